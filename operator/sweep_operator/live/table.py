"""Numbers and tables as text: for `get`, `plan`, the end of a ladder, pipes and files.

Owns alignment and the shortest readable form of losses, durations and shares. No colours.
"""

from collections.abc import Sequence
from unicodedata import combining, east_asian_width


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns two blanks apart; those numbered in `right` are aligned to the right."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(width(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            " " * (w - width(cell)) + cell if i in right else cell + " " * (w - width(cell))
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def loss(value: float | None) -> str:
    """Nats per token to four digits after the point; a dash for none."""
    return "-" if value is None else f"{value:.4f}"


def interval(value: float, low: float, high: float) -> str:
    """`2.981 [2.934, 3.029]`."""
    return f"{value:.4f} [{low:.4f}, {high:.4f}]"


def percent(value: float | None, *, signed: bool = False) -> str:
    """A share as per cent; a dash for none."""
    return "-" if value is None else f"{100 * value:{'+' if signed else ''}.2f} %"


def duration(seconds: float | None) -> str:
    """`48s`, `3m 07s`, `5h 02m`, `3d 4h`; a dash for none."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600}h"


def flops(value: float) -> str:
    """`1.23e+12` without the sign that nobody needs: `1.23e12`."""
    return f"{value:.3g}".replace("e+", "e")
