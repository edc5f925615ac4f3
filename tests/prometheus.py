"""A live Prometheus over some targets, for as long as a test needs one."""

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from control_plane import free_port


@dataclass
class Prometheus:
    """Scrapes `targets` (job: addresses) once a second and evaluates `rules` as often."""

    folder: Path
    targets: dict[str, Sequence[str]]
    rules: list[dict[str, Any]] = field(default_factory=list)

    def start(self) -> "Prometheus":
        """Start it; skips the test where it is not installed."""
        program = shutil.which("prometheus")
        if program is None:
            pytest.skip("prometheus is not installed (Debian's package of that name has it)")
        self.port = free_port()
        (self.folder / "rules.yaml").write_text(yaml.safe_dump({"groups": self.rules}))
        jobs = [
            {"job_name": job, "honor_labels": True, "static_configs": [{"targets": list(addresses)}]}
            for job, addresses in self.targets.items()
        ]
        configuration = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": jobs,
        }
        (self.folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
        arguments = ["--config.file=prometheus.yaml", "--storage.tsdb.path=data", "--log.level=warn"]
        arguments += ["--enable-feature=exemplar-storage"]
        arguments += [f"--web.listen-address=127.0.0.1:{self.port}"]
        with (self.folder / "prometheus.log").open("ab") as log:
            self.process = subprocess.Popen([program, *arguments], cwd=self.folder, stdout=log, stderr=log)
        for _ in range(200):
            with contextlib.suppress(OSError):  # not listening yet, or 503 while it reads its log
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5).close()
                return self
            time.sleep(0.1)
        raise AssertionError((self.folder / "prometheus.log").read_text()[-1500:])

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(10)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Series of an expression, now."""
        return self._ask("query", query=expression)["result"]

    def label_values(self, selector: str, label: str) -> list[str]:
        """Values of a label over the series of a selector, as Grafana asks for a variable's."""
        values: list[str] = self._ask(f"label/{label}/values", **{"match[]": selector})
        return values

    def exemplars(self, selector: str) -> list[dict[str, Any]]:
        """Exemplars of the last hour: `seriesLabels`, and `exemplars` with labels, value and time."""
        now = time.time()
        return self._ask("query_exemplars", query=selector, start=now - 3600, end=now)

    def over_time(self, expression: str, seconds: float, step: float = 1.0) -> list[dict[str, Any]]:
        """Series of an expression over the last seconds."""
        now = time.time()
        return self._ask("query_range", query=expression, start=now - seconds, end=now, step=step)["result"]

    def _ask(self, what: str, **parameters: Any) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters.get('query')}: {error.read().decode()}") from None
