"""How a fit looks: one line in a console, a small table in text, a table in a notebook.

Owns the rounding and the layout. Computes nothing.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweep_analysis.fit import Fit


def number(value: float) -> str:
    """Five significant digits, with an exponent where a plain number would be hard to read."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.5g}" if 1e-3 <= abs(value) < 1e6 else f"{value:.4e}"


def line_of(fit: "Fit") -> str:
    """The fit in one line."""
    if not fit.usable:
        return f"<Fit {fit.law}: {fit.status}, {fit.records} records: {fit.message}>"
    constants = ", ".join(f"{name}={number(value)}" for name, value in fit.constants.items())
    return f"<Fit {fit.law}: {constants}; {fit.status}, {fit.records} records>"


def text_of(fit: "Fit") -> str:
    """The fit as lines for a terminal or a pipe."""
    lines = [f"{fit.law}: {fit.status}, {fit.records} records"]
    if fit.usable:
        percent = f"{100 * fit.confidence:g} % interval"
        rows = [(name, number(i.value), number(i.low), number(i.high)) for name, i in fit.parameters.items()]
        width = [max(len(row[column]) for row in rows) for column in range(4)]
        width[0] = max(width[0], len("constant"))
        lines += ["", f"{'constant':<{width[0]}}  {'value':>{width[1]}}  {percent}"]
        for name, value, low, high in rows:
            lines.append(f"{name:<{width[0]}}  {value:>{width[1]}}  [{low:>{width[2]}}, {high:>{width[3]}}]")
        lines += ["", f"objective {fit.objective:.8g}   condition number {fit.condition_number:.3g}"]
    if fit.message:
        lines.append(fit.message[0].upper() + fit.message[1:] + ".")
    lines += [f"Note: {warning}" for warning in fit.warnings]
    return "\n".join(lines)


def table_html(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """A table for notebooks; colours are the notebook's own."""
    cells = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    table = f"<table><thead><tr>{names}</tr></thead><tbody>{cells}</tbody></table>" if rows else ""
    return f"<div><p><b>{escape(title)}</b></p>{table}{''.join(f'<p>{escape(note)}</p>' for note in notes)}</div>"


def html_of(fit: "Fit") -> str:
    """The fit as a table for notebooks; colours are the notebook's own."""
    head = f"<b>{escape(fit.law)}</b> · {escape(str(fit.status))} · {fit.records} records"
    parts = [f"<div><p>{head}<br>\\({escape(fit.form.equation)}\\)</p>"]
    if fit.usable:
        meaning = {c.name: c.meaning for c in fit.form.constants}
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td>{number(i.value)}</td>"
            f"<td>{number(i.low)}</td><td>{number(i.high)}</td>"
            f"<td style='text-align:left'>{escape(meaning[name])}</td></tr>"
            for name, i in fit.parameters.items()
        )
        parts.append(
            f"<table><thead><tr><th></th><th>value</th><th colspan='2'>{100 * fit.confidence:g} % interval</th>"
            f"<th></th></tr></thead><tbody>{rows}</tbody></table>"
            f"<p>objective {fit.objective:.6g}, condition number {fit.condition_number:.3g}</p>"
        )
    notes = [fit.message, *fit.warnings]
    parts.append("".join(f"<p>{escape(note)}</p>" for note in notes if note) + "</div>")
    return "".join(parts)
