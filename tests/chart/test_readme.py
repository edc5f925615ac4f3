"""What the chart's own page shows is taken by the chart."""

import re

import yaml
from helm_chart import CHART, MONITORING, Helm


def test_the_values_that_the_readme_shows_are_taken(helm: Helm) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (CHART / "README.md").read_text(), re.DOTALL)
    assert helm.documents(*MONITORING, values=yaml.safe_load(text))


def test_the_table_of_values_has_every_leaf_of_values_yaml() -> None:
    page = (CHART / "README.md").read_text()

    def leaves(node: object, path: str) -> list[str]:
        if isinstance(node, dict) and node:
            return [leaf for key, value in node.items() for leaf in leaves(value, f"{path}.{key}".strip("."))]
        return [path]

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    free = {"resources", "dashboards.annotations"}  # handed on as they are, one row for the whole
    for path in leaves(values, ""):
        whole = next((name for name in free if path.startswith(name)), path)
        assert f"| `{whole}` |" in page, path
