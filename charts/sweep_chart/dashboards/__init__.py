"""The three Grafana dashboards, as code: what a team lead, a researcher and the person on call need to see first.

`documents()` gives the JSON that the chart ships. No datasource is named: a variable picks one.
"""

import json

from sweep_chart.dashboards.operator import OPERATOR
from sweep_chart.dashboards.overview import OVERVIEW
from sweep_chart.dashboards.panel import Dashboard
from sweep_chart.dashboards.sweep import ONE_SWEEP

DASHBOARDS: tuple[Dashboard, ...] = (OVERVIEW, ONE_SWEEP, OPERATOR)


def documents() -> dict[str, str]:
    """File name: JSON."""
    return {f"{board.name}.json": json.dumps(board.to_json(), indent=1) + "\n" for board in DASHBOARDS}
