"""Draw the dashboards from live data into docs/images, with matplotlib, in Grafana's layout.

    python benchmarks/dashboards.py [--seconds 8]

A real API server, the operator under the chart's rights and a real Prometheus; nodes are simulated and trainers are
played (`tests/watched_sweeps.py`). Each panel shows what its own queries return. These are not screenshots of Grafana.
"""

import argparse
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "charts")]

import matplotlib as mpl  # noqa: E402 - beside the tests' own modules
import watched_sweeps  # noqa: E402 - after the path to the tests' own modules is set
from control_plane import ControlPlane, program  # noqa: E402 - after the path to the tests' own modules is set
from helm_chart import Helm  # noqa: E402 - after the path to the tests' own modules is set
from matplotlib import pyplot as plt  # noqa: E402 - after the path to the tests' own modules is set
from matplotlib.axes import Axes  # noqa: E402 - after the path to the tests' own modules is set
from standin_trainers import Play  # noqa: E402 - after the path to the tests' own modules is set

from sweep_analysis.scale import format_scale  # noqa: E402 - after the path to the tests' own modules is set
from sweep_chart.dashboards import DASHBOARDS  # noqa: E402 - after the path to the tests' own modules is set
from sweep_chart.dashboards.panel import Dashboard, Panel  # noqa: E402 - after the path to the tests' own modules is set

CHOSEN = {"$__rate_interval": "15s", "$job": ".*", 'namespace="$namespace"': 'namespace="research"', "$namespace": ".*"}
NAMES = {"sweep": "climb"}
CELL = (0.62, 0.36)
"""Inches of one cell of the grid."""


class Screen:
    """One Prometheus, looked at over the last seconds."""

    def __init__(self, world: watched_sweeps.WatchedSweeps, seconds: float, sweep: str) -> None:
        self._prometheus, self._seconds, self._sweep = world.prometheus, seconds, sweep

    def _filled(self, expression: str) -> str:
        for variable, chosen in (CHOSEN | {"$sweep": self._sweep}).items():
            expression = expression.replace(variable, chosen)
        return expression

    def now(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series."""
        found = self._prometheus.query(self._filled(expression))
        return [(series["metric"], float(series["value"][1])) for series in found]

    def over_time(self, expression: str) -> list[tuple[dict[str, str], list[float], list[float]]]:
        """Labels, minutes ago and values of each series."""
        now = time.time()
        found = self._prometheus.over_time(self._filled(expression), self._seconds)
        return [
            (s["metric"], [float(t) - now for t, _ in s["values"]], [float(v) for _, v in s["values"]]) for s in found
        ]

    def draw(self, board: Dashboard) -> Path:
        """The whole dashboard; returns the picture's path."""
        placed = board.to_json()["panels"]
        height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in placed)
        figure = plt.figure(figsize=(24 * CELL[0], height * CELL[1]), dpi=80)
        panels = {panel.title: panel for panel in board.panels}
        for place in placed:
            x, y, w, h = (place["gridPos"][key] for key in "xywh")
            if place["type"] == "row":
                figure.text(0.1 / 24, 1 - (y + 0.7) / height, place["title"], fontsize=11, weight="bold")
                continue
            pad = (1.1, 0.5, 1.2, 1.9) if place["type"] in ("timeseries", "xychart", "state-timeline") else (0.3,) * 4
            box = (
                (x + pad[0]) / 24,
                1 - (y + h - pad[3]) / height,
                (w - pad[0] - pad[1]) / 24,
                (h - pad[2] - pad[3]) / height,
            )
            axes = figure.add_axes(box)
            axes.set_title(place["title"], fontsize=8, loc="left", pad=3)
            KINDS[place["type"]](self, axes, panels[place["title"]])
        path = ROOT / "docs" / "images" / f"dashboard-{board.name}.png"
        figure.savefig(path)
        plt.close(figure)
        return path

    def stat(self, axes: Axes, panel: Panel) -> None:
        found = self.now(panel.queries[0].expr)
        if panel.options["textMode"] == "name":
            text = panel.queries[0].legend.strip("{}") and next(iter(found[0][0].values()), "–") if found else "–"
        else:
            text = shown(found[0][1], panel.unit) if found else "0"
        axes.axis("off")
        axes.text(0.5, 0.4, text, ha="center", va="center", fontsize=15)

    def timeseries(self, axes: Axes, panel: Panel) -> None:
        for query in panel.queries:
            for labels, when, values in self.over_time(query.expr):
                axes.plot(when, values, lw=1.2, label=named(query.legend, labels))
        finish(axes, panel)

    def state_timeline(self, axes: Axes, panel: Panel) -> None:
        series = self.over_time(panel.queries[0].expr)
        lines = sorted({named(panel.queries[0].legend, labels).split(": ")[0] for labels, *_ in series})
        states = sorted({named(panel.queries[0].legend, labels).split(": ")[1] for labels, *_ in series})
        colours = dict(zip(states, mpl.colormaps["tab10"].colors, strict=False))
        for labels, when, _ in series:
            line, state = named(panel.queries[0].legend, labels).split(": ")
            axes.broken_barh([(t, 1) for t in when], (lines.index(line) - 0.4, 0.8), color=colours[state])
        axes.set_yticks(range(len(lines)), lines)
        for state in states:
            axes.plot([], [], color=colours[state], lw=5, label=state)
        finish(axes, panel)

    def xychart(self, axes: Axes, panel: Panel) -> None:
        across = {labels["rung"]: value for labels, value in self.now(panel.queries[0].expr)}
        lines = {str(o["matcher"]["options"]) for o in panel.overrides if o["properties"][0]["value"] == "lines"}
        for query in panel.queries[1:]:
            points = sorted((across[labels["rung"]], value) for labels, value in self.now(query.expr))
            style = {"marker": ""} if query.legend in lines else {"marker": "o", "ls": "none"}
            if points:
                axes.plot(*zip(*points, strict=True), lw=1.2, label=query.legend, **style)
        axes.set_xscale("log")
        finish(axes, panel)
        axes.set_xlabel(panel.queries[0].legend, fontsize=7)

    def table(self, axes: Axes, panel: Panel) -> None:
        rows: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
        units = {str(o["matcher"]["options"]): str(o["properties"][0]["value"]) for o in panel.overrides}
        for query in panel.queries:
            for labels, value in self.now(query.expr):
                identity = tuple(
                    (k, v) for k, v in sorted(labels.items()) if k in ("namespace", "sweep", "parameter", "alertname")
                )
                row = rows.setdefault(identity, dict(labels))
                value_of = {query.legend: shown(value, units.get(query.legend, "short"))}
                row |= labels | ({} if query.legend.startswith(":") else value_of)
        axes.axis("off")
        if not rows:
            return
        columns = list(dict.fromkeys(c for row in rows.values() for c in row))
        cells = [[row.get(c, "–") for c in columns] for row in rows.values()]
        drawn = axes.table(cells, colLabels=columns, loc="upper left", cellLoc="left", edges="horizontal")
        drawn.auto_set_font_size(False)
        drawn.set_fontsize(7)
        drawn.auto_set_column_width(range(len(columns)))


KINDS: dict[str, Any] = {
    "stat": Screen.stat,
    "timeseries": Screen.timeseries,
    "state-timeline": Screen.state_timeline,
    "xychart": Screen.xychart,
    "table": Screen.table,
}


def named(legend: str, labels: dict[str, str]) -> str:
    """A legend with its labels filled in."""
    for label, value in labels.items():
        legend = legend.replace(f"{{{{{label}}}}}", value)
    return legend


def shown(value: float, unit: str) -> str:
    """A number with its unit, short."""
    if unit == "percentunit":
        return f"{value:.1%}"
    if unit == "s":
        return f"{value:.3g} s" if value < 120 else f"{value / 60:.3g} min"
    if unit == "sci" or abs(value) >= 1e6:
        return f"{value:.2e}"
    return format_scale(round(value)) if value >= 1000 else f"{value:.4g}"


def finish(axes: Axes, panel: Panel) -> None:
    """Grid, small type, legend below."""
    axes.tick_params(labelsize=6)
    axes.grid(visible=True, lw=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if panel.kind != "xychart":
        axes.set_xlabel("seconds ago", fontsize=6, labelpad=0)
        axes.xaxis.set_major_formatter(lambda x, _: f"{-x:.0f}")
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        short = [textwrap.shorten(label, 26) for label in labels[:8]]
        axes.legend(
            handles[:8], short, fontsize=5.5, ncols=4, loc="upper left", bbox_to_anchor=(-0.08, -0.13), frameon=False
        )


def keep_reporting(world: watched_sweeps.WatchedSweeps, over: threading.Event) -> None:
    """Speak for all trainers, now and then."""
    while not over.wait(1.0):
        world.report_training()


def main() -> None:
    """Let the sweeps live, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="that a played trainer trains (default: 8)")
    options = parser.parse_args()

    def slowly(run: Any, attempt: int) -> Play:
        play = watched_sweeps.play(run, attempt)
        return Play(seconds=options.seconds) if play.outcome == "Succeeded" else play

    with tempfile.TemporaryDirectory() as folder:
        plane = ControlPlane(Path(folder, "plane")).start()
        plane.run_workloads()
        plane.add_nodes(2)
        helm = Helm(program("helm"), Path(folder)).on(plane.kubeconfig())
        world = watched_sweeps.WatchedSweeps(plane, helm, Path(folder), train=slowly)
        began, over = time.time(), threading.Event()
        try:
            world.start()
            training = threading.Thread(target=keep_reporting, args=(world, over), daemon=True)
            training.start()
            world.let_them_live()
            screen = Screen(world, time.time() - began, NAMES["sweep"])
            for board in DASHBOARDS:
                print(screen.draw(board))
        finally:
            over.set()
            world.stop()
            plane.stop()


if __name__ == "__main__":
    main()
