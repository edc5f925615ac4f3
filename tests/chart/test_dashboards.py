"""Dashboards as documents: typed by Grafana's own schema, no datasource by name, each panel with its question."""

import fcntl
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import platformdirs
import pytest
import yaml
from helm_chart import CHART, Helm, only

from sweep_chart.dashboards import DASHBOARDS

PINS = {"@grafana/schema": "13.2.3", "typescript": "7.0.2"}
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((CHART / "dashboards").glob("*.json"))}


def test_each_of_the_three_is_shipped_with_the_sidecars_label(helm: Helm) -> None:
    values = {"dashboards": {"label": "board", "labelValue": "yes", "namespace": "grafana"}}
    documents = helm.documents(values=values)
    for name, board in BOARDS.items():
        shipped = only(documents, "ConfigMap", f"sweeps-scalingsweep-{name}")
        assert shipped["metadata"]["labels"]["board"] == "yes"
        assert shipped["metadata"]["namespace"] == "grafana"
        assert shipped["metadata"]["annotations"] == {"grafana_folder": "Scaling sweeps"}
        assert json.loads(shipped["data"][f"{name}.json"]) == board
    assert set(BOARDS) == {"overview", "sweep", "operator"}


@pytest.mark.parametrize("name", BOARDS)
def test_no_datasource_is_baked_in(name: str) -> None:
    board = BOARDS[name]
    assert board["templating"]["list"][0]["type"] == "datasource"
    named = set(re.findall(r'"uid": "([^"]+)"', json.dumps(board))) - {board["uid"]}
    assert named == {"${datasource}"}


@pytest.mark.parametrize("name", BOARDS)
def test_panels_lie_side_by_side_and_nowhere_on_each_other(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARDS[name]["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not taken & cells, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in BOARDS[name]["panels"]]
    assert len(ids) == len(set(ids))


def test_every_panel_asks_a_question_and_its_title_is_its_own() -> None:
    for board in DASHBOARDS:
        titles = [panel.title for panel in board.panels]
        assert len(titles) == len(set(titles))
        for panel in board.panels:
            assert re.search(r"\?", panel.asks), panel.title


def test_a_word_is_the_newest_one_alone() -> None:
    """Over a span of time each phase that there was would stand in a tile of its own."""
    words = [p for b in BOARDS.values() for p in b["panels"] if p.get("options", {}).get("textMode") == "name"]
    assert {panel["title"] for panel in words} == {"Phase", "Consistent", "Version"}
    assert {target["instant"] for panel in words for target in panel["targets"]} == {True}


def test_a_table_calls_its_values_as_grafanas_data_source_does() -> None:
    """`Value #A` and so on, but `Value` where there is one query alone."""
    for panel in (p for b in BOARDS.values() for p in b["panels"] if p["type"] == "table"):
        organize = panel["transformations"][-1]["options"]
        named = {name for name in organize["excludeByName"] | organize["renameByName"] if name.startswith("Value")}
        queries = panel["targets"]
        expected = {"Value"} if len(queries) == 1 else {f"Value #{query['refId']}" for query in queries}
        assert named == expected, panel["title"]


def test_no_colour_is_fixed_so_that_light_and_dark_both_read_well() -> None:
    assert not re.search(r"#[0-9a-fA-F]{6}|fixedColor|rgb\(", json.dumps(BOARDS))


def test_promtool_parses_every_expression(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian's package `prometheus` has it)")
    variables = {"$__rate_interval": "5m", "$namespace": "n", "$sweep": "s", "$job": "j"}
    rules: list[dict[str, Any]] = []
    for board in DASHBOARDS:
        for query in (query for panel in board.panels for query in panel.queries):
            expression = query.expr
            for variable, value in variables.items():
                expression = expression.replace(variable, value)
            assert "$" not in expression
            rules.append({"record": f"panel:{len(rules)}", "expr": expression})
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(tmp_path / "rules.yaml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def grafana_types() -> Path:
    """A folder with Grafana's types and the TypeScript compiler, fetched once where that is asked for."""
    versions = "-".join(f"{name.rsplit('/', 1)[-1]}-{version}" for name, version in PINS.items())
    folder = platformdirs.user_cache_path("scalingsweep") / "grafana" / versions
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parallel workers fetch once
        if not (folder / "node_modules" / "typescript").exists():
            fetch(folder)
    return folder


def fetch(folder: Path) -> None:
    """By npm, where that is asked for and can be done."""
    if not os.environ.get("SCALINGSWEEP_NPM"):
        pytest.skip("Grafana's types are not in the cache; SCALINGSWEEP_NPM=1 fetches them with npm, once")
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": PINS}))
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"Grafana's types cannot be fetched: {done.stderr.strip()[-300:]}")


@pytest.mark.slow
@pytest.mark.parametrize("name", BOARDS)
def test_the_document_has_the_type_that_grafana_gives_a_dashboard(grafana_types: Path, name: str) -> None:
    head = "import type { Dashboard } from '@grafana/schema';"
    source = f"{head}\nexport const board: Dashboard = {json.dumps(BOARDS[name])};\n"
    assert compiled(grafana_types, name, source) == ""
    wrong = source.replace('"schemaVersion"', '"schemeVersion"')
    assert "schemeVersion" in compiled(grafana_types, name, wrong)


def compiled(folder: Path, name: str, source: str) -> str:
    """What the compiler says."""
    path = folder / f"{name}-{os.getpid()}.ts"
    path.write_text(source)
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"]
    try:
        tsc = folder / "node_modules" / ".bin" / "tsc"
        done = subprocess.run([str(tsc), *options, path.name], cwd=folder, capture_output=True, text=True, timeout=200)
    finally:
        path.unlink()
    return done.stdout if done.returncode else ""
