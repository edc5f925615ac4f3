"""The laws, one family a file; `LAWS` is the catalogue by name."""

from sweep_analysis.laws.base import Axis, Constant, Law
from sweep_analysis.laws.chinchilla import Chinchilla
from sweep_analysis.laws.compute import SaturatingCompute

LAWS: dict[str, Law] = {law.name: law for law in (Chinchilla(), SaturatingCompute())}


def law_of(name: "str | Law") -> Law:
    """The law of that name. Raises ValueError that lists the names."""
    if isinstance(name, Law):
        return name
    if name not in LAWS:
        close = next(
            (known for known in LAWS if known.lower() == str(name).lower().replace("-", "").replace("_", "")), None
        )
        hint = f"did you mean {close}?" if close else f"known: {', '.join(LAWS)}"
        raise ValueError(f"no law is called {name!r}; {hint}")
    return LAWS[name]


__all__ = ["LAWS", "Axis", "Constant", "Law", "law_of"]
