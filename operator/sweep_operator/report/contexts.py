"""The losses at other context lengths, beside those of the same models at the target's.

Owns that one table. Fits nothing: the law of context wants more lengths than most ladders have, and `fit` has it.
"""

import math

from sweep_analysis.record import Record
from sweep_analysis.rung import Purpose
from sweep_analysis.scale import format_scale
from sweep_operator.report.gather import Ladder
from sweep_operator.report.markup import Markup, tag
from sweep_operator.report.tables import MOST_ROWS, scrolling
from sweep_operator.report.words import rung_name

NEAR = 1.05
"""Token counts that differ by whole batches alone are within this ratio; further apart they are not compared."""


def context_table(ladder: Ladder) -> Markup | None:
    """A row a record at a context of its own, with the mean loss at the target's; None where there is no such run."""
    bodies, shown = [], 0
    for rung in ladder.sweep.status.rungs:
        usual = ladder.records[rung.name, rung.revision]
        placed = [
            (run.spec.run, place, record)
            for run in ladder.runs
            if run.spec.run.purpose is Purpose.CONTEXT
            and (run.spec.rung, run.spec.revision) == (rung.name, rung.revision)
            for place, record in enumerate(run.status.accepted)
        ]
        # by place among a run's token counts, since whole batches of another context make slightly other counts
        placed.sort(key=lambda each: (each[0].parameters, each[1], each[0].sequence_length or 0, each[0].seed))
        if placed:
            shown += len(placed)
            title = tag("tr", tag("th", tag("b", rung_name(rung)), colspan="5", scope="rowgroup"), class_="group")
            rows = [_row(run.sequence_length or 0, record, usual) for run, _, record in placed[:MOST_ROWS]]
            more = tag("tr", tag("td", f"and {len(placed) - MOST_ROWS} more", colspan="5", class_="quiet"))
            bodies.append(tag("tbody", title, *rows, more if len(placed) > MOST_ROWS else None))
    if not shown:
        return None
    usual_length = ladder.sweep.spec.training.sequence_length
    columns = ("N", "D", "Context", "Observed", f"At {usual_length:,}")
    head = tag("tr", *(tag("th", each, scope="col") for each in columns))
    caption = tag("caption", "Losses in nats per token, each on validation text cut at its own context.")
    return scrolling(tag("table", caption, tag("thead", head), *bodies, class_="numbers"), "Other context lengths")


def _row(context: int, record: Record, usual: tuple[Record, ...]) -> Markup:
    beside = [
        math.log(other.loss)
        for other in usual
        if other.parameters.total == record.parameters.total
        and max(other.tokens, record.tokens) <= NEAR * min(other.tokens, record.tokens)
    ]
    mean = f"{math.exp(sum(beside) / len(beside)):.4f}" if beside else "none"
    return tag(
        "tr",
        tag("td", format_scale(record.parameters.total)),
        tag("td", format_scale(record.tokens)),
        tag("td", f"{context:,}"),
        tag("td", tag("span", f"{record.loss:.4f}", class_="observed")),
        tag("td", mean, class_=None if beside else "quiet"),
    )
