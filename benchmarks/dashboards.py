"""Draw the dashboards from live data into docs/images, light and dark, with Grafana's own front-end libraries.

    SCALINGSWEEP_NPM=1 python benchmarks/dashboards.py [--seconds 8]     (the variable only until npm has fetched them)

A real API server, the operator under the chart's rights and a real Prometheus; nodes are simulated and trainers are
played (`tests/watched_sweeps.py`). Each panel shows what Prometheus answers to its own queries, through the panel's own
transformations and settings, by the components of `@grafana/ui` in a headless Chromium (`grafana/bodies.tsx` says
which kinds no package has). No Grafana server is asked: these are not screenshots of one.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "charts")]

import platformdirs  # noqa: E402 - beside the tests' own modules
import watched_sweeps  # noqa: E402 - after the path to the tests' own modules is set
from control_plane import ControlPlane, program  # noqa: E402 - after the path to the tests' own modules is set
from helm_chart import Helm  # noqa: E402 - after the path to the tests' own modules is set
from prometheus import Prometheus  # noqa: E402 - after the path to the tests' own modules is set
from standin_trainers import Play  # noqa: E402 - after the path to the tests' own modules is set

from sweep_chart.dashboards import DASHBOARDS  # noqa: E402 - after the path to the tests' own modules is set
from sweep_chart.dashboards.panel import Dashboard  # noqa: E402 - after the path to the tests' own modules is set

HERE, IMAGES = Path(__file__).parent / "grafana", ROOT / "docs" / "images"
CHOSEN = {
    "$__rate_interval": "15s",
    "$job": ".*",
    'namespace="$namespace"': 'namespace="research"',
    "$namespace": ".*",
    "$sweep": "climb",
}
WIDTH, TOP, LINE = 1500, 64, 38
"""Pixels: of a picture, above its first panel, and of one line of Grafana's grid."""


def answered(board: Dashboard, prometheus: Prometheus, began: float, now: float) -> dict[str, Any]:
    """The board with what Prometheus answers to each query of each panel, as grafana/frames.ts reads it."""
    document = board.to_json()
    results: dict[str, list[dict[str, Any]]] = {}
    for panel in document["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for variable, chosen in CHOSEN.items():
                expression = expression.replace(variable, chosen)
            instant = target["instant"]
            series = prometheus.query(expression) if instant else prometheus.over_time(expression, now - began)
            answer = {"refId": target["refId"], "legend": target["legendFormat"], "format": target["format"]}
            results.setdefault(str(panel["id"]), []).append(answer | {"series": series})
    return {"board": document, "results": results, "width": WIDTH, "from": began * 1000, "to": now * 1000}


def bundle(folder: Path) -> None:
    """Write page.js and page.css there; the libraries are fetched once, where that is asked for."""
    pins = (HERE / "package.json").read_bytes()
    cache = platformdirs.user_cache_path("scalingsweep") / "grafana" / hashlib.sha256(pins).hexdigest()[:16]
    if not (cache / "node_modules" / "esbuild").exists():
        if not os.environ.get("SCALINGSWEEP_NPM"):
            sys.exit("Grafana's libraries are not in the cache; SCALINGSWEEP_NPM=1 fetches them with npm, once")
        cache.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "package.json", cache)
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--legacy-peer-deps"]
        subprocess.run([shutil.which("npm") or "npm", "install", *options], cwd=cache, check=True)
    for source in HERE.glob("*.ts*"):
        shutil.copy(source, cache)
    command = [str(cache / "node_modules" / ".bin" / "esbuild"), "page.tsx", "--bundle", "--minify", "--format=iife"]
    command += ["--jsx=automatic", '--define:process.env.NODE_ENV="production"', "--log-level=error"]
    command += [f"--loader:.{kind}=dataurl" for kind in ("svg", "ttf", "woff", "woff2")]
    subprocess.run([*command, f"--outfile={folder / 'page.js'}"], cwd=cache, check=True)


def drawn(folder: Path, name: str, shown: dict[str, Any]) -> Path:
    """Draw one board; returns the picture's path."""
    lines = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in shown["board"]["panels"])
    data = json.dumps(shown).replace("</", "<\\/")
    (folder / f"{name}.html").write_text(
        "<!doctype html><meta charset=utf-8><link rel=stylesheet href=page.css><style>body{margin:0}</style>"
        f"<div id=root></div><script>window.SHOWN={data}</script><script src=page.js></script>"
    )
    path = IMAGES / f"dashboard-{name}.png"
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--window-size={WIDTH},{TOP + lines * LINE}", "--virtual-time-budget=8000", f"--screenshot={path}"]
    subprocess.run([*command, f"file://{folder}/{name}.html"], check=True, capture_output=True, timeout=180)
    return path


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

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle(folder)
        plane = ControlPlane(folder / "plane").start()
        plane.run_workloads()
        plane.add_nodes(2)
        helm = Helm(program("helm"), folder).on(plane.kubeconfig())
        world = watched_sweeps.WatchedSweeps(plane, helm, folder, train=slowly)
        began, over = time.time(), threading.Event()
        try:
            world.start()
            threading.Thread(target=keep_reporting, args=(world, over), daemon=True).start()
            world.let_them_live()
            now = time.time()
            boards = {board.name: answered(board, world.prometheus, began, now) for board in DASHBOARDS}
        finally:
            over.set()
            world.stop()
            plane.stop()
        for board, shown in boards.items():
            for theme in ("light", "dark"):
                print(drawn(folder, f"{board}-{theme}", shown | {"dark": theme == "dark"}))


if __name__ == "__main__":
    main()
