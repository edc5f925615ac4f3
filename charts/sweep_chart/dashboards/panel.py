"""The few kinds of panel that the dashboards are made of, and how they become Grafana's JSON.

Owns the layout (rows of panels on a grid of 24) and the settings that are the same everywhere. Colours are left to
Grafana, which has them in light and dark.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

JSON = dict[str, Any]
SCHEMA_VERSION = 41
GRID = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
Kind = Literal["stat", "timeseries", "table", "xychart", "state-timeline", "bargauge"]


@dataclass(frozen=True, slots=True)
class Query:
    """One expression over time, or where `now` says so its newest value alone.

    `table` asks for labels as columns; `exemplars` for those beside the curve.
    """

    expr: str
    legend: str = ""
    now: bool = False
    table: bool = False
    exemplars: bool = False

    def to_json(self, letter: str) -> JSON:
        """As a target of a panel."""
        return {
            "refId": letter,
            "datasource": SOURCE,
            "expr": self.expr,
            "legendFormat": self.legend or "__auto",
            "format": "table" if self.table else "time_series",
            "instant": self.now,
            "range": not self.now,
            **({"exemplar": True} if self.exemplars else {}),
        }


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; `asks` is the question that it answers, shown as its description."""

    title: str
    asks: str
    kind: Kind
    queries: tuple[Query, ...]
    width: int = 8
    height: int = 8
    unit: str = "short"
    defaults: JSON = field(default_factory=dict)
    """Further defaults of its fields."""
    options: JSON = field(default_factory=dict)
    overrides: tuple[JSON, ...] = ()
    transformations: tuple[JSON, ...] = ()

    def to_json(self, number: int, x: int, y: int) -> JSON:
        """The panel at its place."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.asks,
            "datasource": SOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "targets": [query.to_json(chr(ord("A") + i)) for i, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": {"unit": self.unit, **self.defaults}, "overrides": list(self.overrides)},
            "options": self.options,
            "transformations": list(self.transformations),
        }


@dataclass(frozen=True, slots=True)
class Row:
    """A line of panels under a heading; those that do not fit side by side go on below."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """Something that the reader picks, from the values of a label."""

    name: str
    query: str
    label: str
    several: bool = True

    def to_json(self) -> JSON:
        """As Grafana lists it."""
        chosen = {"current": {"text": "All", "value": "$__all"}} if self.several else {}
        return {
            "type": "query",
            "name": self.name,
            "label": self.label,
            "datasource": SOURCE,
            "query": {"query": self.query, "refId": self.name},
            "refresh": 2,
            "sort": 1,
            "multi": self.several,
            "includeAll": self.several,
            "options": [],
            **chosen,
        }


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard; `name` is its file, and its address in Grafana."""

    name: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    since: str = "now-24h"

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of them."""
        return tuple(panel for row in self.rows for panel in row.panels)

    def to_json(self) -> JSON:
        """The document that Grafana loads."""
        source = {
            "type": "datasource",
            "name": "datasource",
            "label": "Prometheus",
            "query": "prometheus",
            "options": [],
            "multi": False,
            "includeAll": False,
            "refresh": 1,
        }
        return {
            "uid": f"scalingsweep-{self.name}",
            "title": f"Scaling sweeps / {self.title}",
            "description": self.description,
            "tags": ["scalingsweep"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": self.since, "to": "now"},
            "timezone": "browser",
            "templating": {"list": [source, *(variable.to_json() for variable in self.variables)]},
            "annotations": {"list": []},
            "links": [
                {
                    "type": "dashboards",
                    "title": "Scaling sweeps",
                    "tags": ["scalingsweep"],
                    "asDropdown": True,
                    "icon": "external link",
                    "includeVars": True,
                    "keepTime": True,
                    "targetBlank": False,
                    "tooltip": "",
                    "url": "",
                }
            ],
            "panels": self._placed(),
        }

    def _placed(self) -> list[JSON]:
        placed: list[JSON] = []
        y = 0
        for row in self.rows:
            heading = {"h": 1, "w": GRID, "x": 0, "y": y}
            placed.append(
                {"id": len(placed) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": []}
                | {"gridPos": heading}
            )
            x, y, tallest = 0, y + 1, 0
            for panel in row.panels:
                if x + panel.width > GRID:
                    x, y, tallest = 0, y + tallest, 0
                placed.append(panel.to_json(len(placed) + 1, x, y))
                x, tallest = x + panel.width, max(tallest, panel.height)
            y += tallest
        return placed


def stat(title: str, asks: str, expr: str, *, width: int = 4, unit: str = "short", **defaults: Any) -> Panel:
    """One number, the newest."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
        "wideLayout": True,
        "showPercentChange": False,
    }
    return Panel(title, asks, "stat", (Query(expr, title),), width, 4, unit, {"noValue": "0", **defaults}, options)


def word(title: str, asks: str, expr: str, label: str, *, width: int = 4) -> Panel:
    """A word, from a label of the newest value: over time each label that there was would have a word of its own."""
    panel = stat(title, asks, expr, width=width)
    options = panel.options | {"textMode": "name", "graphMode": "none", "colorMode": "none"}
    newest = Query(expr, f"{{{{{label}}}}}", now=True)
    return Panel(title, asks, "stat", (newest,), width, 4, "none", {"noValue": "–"}, options)


def lines(
    title: str,
    asks: str,
    *queries: Query,
    width: int = 8,
    unit: str = "short",
    stacked: bool = False,
    overrides: tuple[JSON, ...] = (),
    **defaults: Any,
) -> Panel:
    """Values over time."""
    custom: JSON = {"lineWidth": 1, "fillOpacity": 10 if stacked else 0, "spanNulls": False, "showPoints": "auto"}
    if stacked:
        custom["stacking"] = {"mode": "normal", "group": "A"}
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Panel(title, asks, "timeseries", queries, width, 8, unit, {"custom": custom, **defaults}, options, overrides)


def states(title: str, asks: str, query: Query, *, width: int = 12) -> Panel:
    """Which states lasted when, a line each."""
    options = {
        "mergeValues": True,
        "showValue": "never",
        "alignValue": "left",
        "rowHeight": 0.9,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    defaults = {"custom": {"fillOpacity": 70, "lineWidth": 0}}
    return Panel(title, asks, "state-timeline", (query,), width, 8, "none", defaults, options)


def table(
    title: str,
    asks: str,
    columns: dict[str, str],
    *,
    width: int = 24,
    height: int = 9,
    units: dict[str, str] | None = None,
    wide: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
) -> Panel:
    """Newest values side by side, a line for each combination of labels; `columns` are expressions by name.

    A column whose name begins with a label sign (`:phase`) is there for that label alone; its value is not shown.
    `wide` names columns that hold long words, `without` labels that are not shown.
    """
    one = len(columns) == 1  # then Grafana's data source calls it by no letter
    names = {"Value" if one else f"Value #{chr(ord('A') + i)}": name for i, name in enumerate(columns)}
    hidden = {value: True for value, name in names.items() if name.startswith(":")}
    hidden |= dict.fromkeys(without, True)
    renamed = {value: name for value, name in names.items() if value not in hidden}
    overrides = tuple(
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": unit}]}
        for name, unit in (units or {}).items()
    ) + tuple(
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "custom.minWidth", "value": 240}]}
        for name in wide
    )
    return Panel(
        title,
        asks,
        "table",
        tuple(Query(expr, name, now=True, table=True) for name, expr in columns.items()),
        width,
        height,
        defaults={"noValue": "–", "custom": {"minWidth": 80}},
        options={"showHeader": True, "cellHeight": "sm"},
        overrides=overrides,
        transformations=(
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": {"Time": True, **hidden}, "renameByName": renamed}},
        ),
    )


@dataclass(frozen=True, slots=True)
class Curve:
    """A named expression drawn over the x of a plot, as points or as a line."""

    name: str
    expr: str
    line: bool = False


def plot(title: str, asks: str, x: Curve, curves: tuple[Curve, ...], *, by: str, unit: str, width: int = 12) -> Panel:
    """Newest values over another value, matched by a label; x is logarithmic."""
    queries = tuple(Query(curve.expr, curve.name, now=True, table=True) for curve in (x, *curves))
    columns = {f"Value #{chr(ord('A') + i)}": curve.name for i, curve in enumerate((x, *curves))}
    series = [
        {
            "name": {"fixed": curve.name},
            "x": {"matcher": {"id": "byName", "options": x.name}},
            "y": {"matcher": {"id": "byName", "options": curve.name}},
        }
        for curve in curves
    ]
    logarithmic = {"id": "custom.scaleDistribution", "value": {"type": "log", "log": 10}}
    overrides: list[JSON] = [
        {"matcher": {"id": "byName", "options": x.name}, "properties": [logarithmic, {"id": "unit", "value": "sci"}]}
    ]
    overrides += [
        {"matcher": {"id": "byName", "options": c.name}, "properties": [{"id": "custom.show", "value": "lines"}]}
        for c in curves
        if c.line
    ]
    return Panel(
        title,
        asks,
        "xychart",
        queries,
        width,
        10,
        unit,
        {"custom": {"show": "points", "pointSize": {"fixed": 8}, "lineWidth": 1, "fillOpacity": 0}},
        {
            "mapping": "manual",
            "series": series,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "single", "sort": "none"},
        },
        tuple(overrides),
        (
            {"id": "joinByField", "options": {"byField": by, "mode": "outer"}},
            {"id": "organize", "options": {"excludeByName": {}, "renameByName": columns}},
            {"id": "sortBy", "options": {"sort": [{"field": x.name}]}},
        ),
    )
