"""The live picture on a terminal: one line a rung, the newest events under it.

Owns layout and colours (NO_COLOR is honoured by rich itself). Drawn by the driver's own thread, a few times a second
at most, so that trainers keep the processor.
"""

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sweep_analysis.gate import Outcome
from sweep_operator.api import RungState, ScalingRun, ScalingSweep
from sweep_operator.clusters import Event
from sweep_operator.live.picture import Picture, RungRow, picture_of, slots_of
from sweep_operator.live.summary import target_sentence
from sweep_operator.live.table import duration, flops, loss, percent

EVENTS = 4
"""Newest events that stay in sight."""
WIDE = 110
"""Columns from which on the forecast's deviation and the speed are shown too."""
_STATES = {
    RungState.PROMOTED: "green",
    RungState.RUNNING: "bold",
    RungState.DIAGNOSING: "bold yellow",
    RungState.HELD: "yellow",
    RungState.STOPPED: "red",
    RungState.FAILED: "red",
    RungState.PENDING: "dim",
    RungState.SUPERSEDED: "dim",
}
_OUTCOMES = {Outcome.PASS: "green", Outcome.INCONCLUSIVE: "yellow", Outcome.FAIL: "red", Outcome.NOT_JUDGED: "dim"}


class TerminalView:
    """Redraws in place; what scrolls away is in the files."""

    seconds = 0.5

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, soft_wrap=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._events: deque[tuple[datetime, Event]] = deque(maxlen=EVENTS)
        self._picture: Picture | None = None
        self._live.start()

    def show(self, sweep: ScalingSweep, runs: Sequence[ScalingRun]) -> None:
        """Draw the ladder as it stands."""
        self._picture = picture_of(sweep, runs, slots_of(sweep))
        self._draw()

    def event(self, event: Event) -> None:
        """Keep it in sight."""
        self._events.append((datetime.now(UTC).astimezone(), event))
        self._draw()

    def notice(self, sentence: str) -> None:
        """In sight like an event."""
        self.event(Event("FileSetAside", sentence, warning=True))

    def close(self) -> None:
        """Leave the last picture standing."""
        if self._live.is_started:
            self._live.stop()

    def _draw(self) -> None:
        parts: list[RenderableType] = []
        if self._picture is not None:
            parts += [_headline(self._picture), _ladder(self._picture, self._console.width)]
        parts += [_event_line(at, event) for at, event in self._events]
        self._live.update(Group(*parts), refresh=True)


def _headline(picture: Picture) -> Text:
    line = Text()
    line.append(picture.name, style="bold")
    line.append(f"  {picture.phase}", style="cyan")
    line.append(f"  spent {flops(picture.flops)} FLOPs, {duration(picture.gpu_seconds)}")
    if picture.left_seconds:
        line.append(f"  about {duration(picture.left_seconds)} left")
    line.append(f"\ntarget  {target_sentence(picture)}")
    return line


def _ladder(picture: Picture, columns: int) -> Table:
    wide = columns >= WIDE
    header = ["RUNG", "STATE", "RUNS", "LOSS", "FORECAST", "DEV", "VERDICT", "DONE", "TOKENS/S", "LEFT"]
    rows = [_cells(row, wide=wide) for row in picture.rows]
    hidden = {"DEV", "TOKENS/S"} if not wide else set()
    kept = [i for i, name in enumerate(header) if name not in hidden]
    verdicts = header.index("VERDICT")
    others = sum(max(cell_len(text) for text in (header[i], *(r[i].plain for r in rows))) + 2 for i in kept)
    others -= max(cell_len(text) for text in (header[verdicts], *(r[verdicts].plain for r in rows)))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    for i in kept:
        right = header[i] in ("RUNS", "LOSS", "DEV", "DONE", "TOKENS/S", "LEFT")
        table.add_column(header[i], justify="right" if right else "left", no_wrap=True)
    for row in rows:
        row[verdicts].truncate(max(7, columns - others), overflow="ellipsis")
        table.add_row(*(row[i] for i in kept))
    return table


def _cells(row: RungRow, *, wide: bool) -> list[Text]:
    """A rung's line, by the columns of `_ladder`."""
    live = row.state in (RungState.RUNNING, RungState.DIAGNOSING)
    forecast = "-"
    if row.forecast:
        value = f"{row.forecast.value:.3f} " if wide else ""
        forecast = f"{value}[{row.forecast.low:.3f}, {row.forecast.high:.3f}]"
    outcome = row.verdict.outcome if row.verdict else None
    verdict = "-"
    if row.verdict:
        verdict = "not judged" if outcome is Outcome.NOT_JUDGED else str(row.verdict.reason)
    return [
        Text(row.title),
        Text(row.state, style=_STATES.get(RungState(row.state), "")),
        Text(f"{row.done}/{row.runs}", style="red" if row.failed else ""),
        Text(loss(row.loss)),
        Text(forecast, style="" if row.forecast else "dim"),
        Text(percent(row.deviation, signed=True)),
        Text(verdict, style=_OUTCOMES[outcome] if outcome else ""),
        Text(f"{100 * row.share:.0f} %" if live else "-"),
        Text(f"{row.tokens_per_second:,.0f}" if live and row.tokens_per_second else "-"),
        Text(duration(row.left_seconds) if row.left_seconds else "-"),
    ]


def _event_line(at: datetime, event: Event) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{at:%H:%M:%S} ", style="dim")
    line.append(event.reason, style="yellow" if event.warning else "cyan")
    line.append(f" {event.rung} " if event.rung else " ")
    line.append(" ".join(event.message.split()))
    return line
