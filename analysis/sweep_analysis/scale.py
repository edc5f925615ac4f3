"""`Scale`: how sizes are written (`30M`, `1.4T`, `"1e21"`), and how a wrong one is answered.

Owns reading and printing. A Scale is decimal and is not a Kubernetes Quantity: `30m` and `7Gi` are refused with the
form that was probably meant.
"""

import math
import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

PATTERN = r"^[0-9]+(\.[0-9]+)?([KMBT]|e[0-9]{1,2})?$"
_SUFFIXES = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_PROBABLY_MEANT = {
    "k": "K",
    "m": "M",
    "G": "B",
    "g": "B",
    "b": "B",
    "t": "T",
    "Ki": "K",
    "Mi": "M",
    "Gi": "B",
    "Ti": "T",
}
LARGEST = 10**30


def parse_scale(value: Any) -> int:
    """A size as an integer. Raises ValueError with one sentence that names the right form."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"a size is a whole number or a string like 30M, 1.4T or 1e21, not {type(value).__name__}")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a size; write a whole number or a string like 30M or 1e21")
        if value != int(value):
            raise ValueError(f"{value} is not a whole number of parameters, tokens or FLOPs")
        number = int(Decimal(repr(value)))
    elif isinstance(value, int):
        number = value
    else:
        number = _parse_text(value)
    if number <= 0:
        raise ValueError(f"{value} is not a size: it must be greater than zero")
    if number > LARGEST:
        raise ValueError(f"{value} is beyond anything that can be trained; the largest size taken is 1e30")
    return number


def _parse_text(text: str) -> int:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMBT]|e[0-9]{1,2})?", text)
    if match:
        number, suffix = match.groups()
        factor = (
            Decimal(_SUFFIXES.get(suffix, 1)) if not (suffix or "").startswith("e") else Decimal(10) ** int(suffix[1:])
        )
        exact = Decimal(number) * factor
        if exact != int(exact):
            raise ValueError(f"{text!r} is not a whole number")
        return int(exact)
    meant = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    if meant:
        number, suffix = meant.groups()
        if suffix in _PROBABLY_MEANT:
            raise ValueError(
                f"{text!r} is not a size: did you mean {number}{_PROBABLY_MEANT[suffix]!s}? (K, M, B, T are decimal)"
            )
        if suffix in _SUFFIXES or not suffix:
            raise ValueError(f"{text!r} is not a size: did you mean {number}{suffix}?")
    raise ValueError(f"{text!r} is not a size; write a whole number or a string like 30M, 1.4T or 1e21")


def format_scale(value: float) -> str:
    """The shortest readable form to three significant digits: 20480 → 20.5K, 7e9 → 7B."""
    if value >= 1e15:
        return f"{value:.3g}".replace("e+", "e")
    for suffix, factor in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= 0.9995 * factor:
            return f"{float(f'{value / factor:.3g}'):g}{suffix}"
    return f"{value:.3g}"


Scale = Annotated[
    int,
    BeforeValidator(parse_scale),
    Field(gt=0),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": PATTERN}],
        }
    ),
]
"""A number of parameters, tokens or FLOPs; read from an integer or a string, kept as an exact integer."""
