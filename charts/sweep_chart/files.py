"""Every generated file of the chart, by its path from the repository's root."""

import tomllib
from pathlib import Path

from sweep_chart import dashboards, documents, metrics_page, sbom, schema

ROOT = Path(__file__).parents[2]
CHART = "charts/scalingsweep"
IMAGES = ("operator", "trainer")
TABLE = ("<!-- values: written by `make chart` -->\n", "<!-- end of values -->\n")


def generated() -> dict[str, str]:
    """Path: content."""
    return {
        f"{CHART}/values.yaml": schema.values_yaml(),
        f"{CHART}/values.schema.json": schema.values_schema(),
        f"{CHART}/README.md": between(ROOT / CHART / "README.md", TABLE, schema.values_table()),
        f"{CHART}/templates/_rules.tpl": documents.rules_template(),
        f"{CHART}/templates/user-roles.yaml": documents.user_roles_template(),
        f"{CHART}/templates/admission-policies.yaml": documents.admission_template(),
        **{f"{CHART}/dashboards/{name}": text for name, text in dashboards.documents().items()},
        **{f"requirements/{image}.cdx.json": _bill(image) for image in IMAGES},
        "docs/metrics.md": metrics_page.page(),
        **{f"{CHART}/files/crds/{path.name}": path.read_text() for path in sorted((ROOT / "crds").glob("*.yaml"))},
    }


def _bill(image: str) -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return sbom.bill(ROOT / "requirements" / f"{image}.txt", project["version"])


def between(page: Path, marks: tuple[str, str], text: str) -> str:
    """The page with what stands between the marks replaced."""
    before, rest = page.read_text().split(marks[0])
    return before + marks[0] + text + marks[1] + rest.split(marks[1])[1]
