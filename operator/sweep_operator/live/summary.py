"""What a ladder came to, in words and one table: printed at the end of `run` and by `get`.

Owns the wording. Pure text, so that a pipe and a terminal show the same.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sweep_analysis.gate import Outcome
from sweep_operator.api import TARGET, ScalingSweep
from sweep_operator.live.picture import Picture, RungRow
from sweep_operator.live.table import duration, flops, interval, loss, percent, table
from sweep_operator.names import label_value

HEADER = ("RUNG", "STATE", "RUNS", "LOSS", "FORECAST", "DEVIATION", "VERDICT", "GPU-TIME")


def rung_table(picture: Picture) -> str:
    """One line a rung; LOSS is the geometric mean over a rung's records, which is what was forecast and judged."""
    return table(HEADER, [cells(row) for row in picture.rows], right=(2, 3, 5, 7))


def cells(row: RungRow) -> tuple[str, ...]:
    """A rung's line."""
    forecast = interval(row.forecast.value, row.forecast.low, row.forecast.high) if row.forecast else "none"
    return (
        row.title,
        row.state,
        f"{row.done}/{row.runs}" + (f" ({row.failed} failed)" if row.failed else ""),
        loss(row.loss),
        forecast,
        percent(row.deviation, signed=True),
        verdict_word(row),
        duration(row.gpu_seconds) if row.gpu_seconds else "-",
    )


def verdict_word(row: RungRow) -> str:
    """The verdict's reason, and its outcome where that is not plain from it."""
    if row.verdict is None:
        return "-"
    if row.verdict.outcome in (Outcome.PASS, Outcome.NOT_JUDGED):
        return str(row.verdict.reason) if row.verdict.outcome is Outcome.PASS else f"not judged ({row.verdict.reason})"
    return f"{row.verdict.outcome}: {row.verdict.reason}"


def summary(sweep: ScalingSweep, picture: Picture, report: Path | None = None) -> str:
    """The table, the law, the target, what it took, and where the report lies."""
    lines = [rung_table(picture), ""]
    if imports := sweep.status.imports:
        of = len(set(imports.runs))
        lines.append(f"imported {imports.records} records of {of} earlier runs ({imports.digest[:19]})")
    law = sweep.status.law
    if law:
        constants = ", ".join(f"{name} {i.value:.4g} [{i.low:.4g}, {i.high:.4g}]" for name, i in law.parameters.items())
        lines.append(f"law      {law.name}, {law.records} records, {law.phase}, alone {law.fit_status}: {constants}")
    lines.append(f"target   {target_sentence(picture)}")
    lines.append(f"spent    {flops(picture.flops)} FLOPs (6ND), {duration(picture.gpu_seconds)} of device time")
    if picture.gpu_seconds > 0 and picture.training_seconds > 0:
        share = min(1.0, picture.training_seconds / picture.gpu_seconds)
        lines[-1] += f": {percent(share)} in training steps, {percent(1 - share)} evaluation and the rest"
    if report:
        lines.append(f"report   {report}")
    return "\n".join(lines)


def target_sentence(picture: Picture) -> str:
    """What was forecast for the target against what came."""
    row = next((r for r in picture.rows if r.name == TARGET and r.finished), None)
    expected = row.forecast if row and row.forecast else picture.target
    if expected is None:
        return "no forecast yet"
    text = f"forecast {interval(expected.value, expected.low, expected.high)} nats/token"
    if picture.target_observed is not None:
        inside = expected.low <= picture.target_observed <= expected.high
        deviation = picture.target_observed / expected.value - 1
        where = "inside" if inside else "outside"
        text += f", observed {loss(picture.target_observed)} ({percent(deviation, signed=True)}, {where} the interval)"
    elif picture.target_jump:
        text += f", at {picture.target_jump:.3g} times the largest compute measured"
    return text


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """How a person names a sweep in a further command, and where what belongs to it lies."""

    before: str
    """What stands before a command's own arguments: the sweep's name on a cluster."""
    after: str
    """What stands after them: `--workdir DIR`, or `-n NAMESPACE`."""
    logs: str
    again: str
    """How a changed manifest is put into effect."""
    report: Path | None = None

    @classmethod
    def on_this_machine(cls, workdir: str, report: Path | None = None) -> Self:
        """A ladder's folder."""
        logs = f"see the runs' logs under {workdir}/runs"
        return cls("", f"--workdir {workdir}", logs, "run the same command again", report)

    @classmethod
    def on_cluster(cls, namespace: str, name: str) -> Self:
        """A sweep of a namespace."""
        logs = f"see kubectl describe scalingruns -n {namespace} -l scalingsweep.dev/sweep={label_value(name)}"
        return cls(name, f"-n {namespace}", logs, "apply it")

    def command(self, verb: str, *arguments: str) -> str:
        """The command line that does `verb` to this sweep."""
        return " ".join(part for part in ("scalingsweep", verb, self.before, *arguments, self.after) if part)


def next_step(sweep: ScalingSweep, where: Whereabouts) -> str | None:
    """What a person may do about a ladder that stands still, in one sentence; None when nothing is to be done."""
    status = sweep.status
    if status.is_true("Suspended"):
        return f"suspended; go on with: {where.command('resume')}"
    if status.is_true("AwaitingApproval"):
        rung = next((r for r in status.rungs if r.state == "Held"), None)
        message = status.condition("AwaitingApproval")
        assert message is not None, "it was just seen to be true"
        return f"held: {message.message}\naccept it with: {where.command('approve', rung.name if rung else '')}"
    finished = status.condition("Finished")
    if finished is None or finished.status != "True":
        return None
    stopped = next((r for r in status.rungs if r.state == "Stopped"), None)
    match finished.reason:
        case "Failed":
            return f"{where.logs}; try again with: {where.command('retry')}"
        case "OverBudget" if stopped is None:
            return f"raise spec.budget in the manifest and {where.again}"
        case "Inconsistent" | "NotWorthIt" | "OverBudget" if stopped is not None:
            return f"to go on all the same: {where.command('approve', stopped.name)}"
    return None
