"""Ladders in a folder, with the stand-in trainer before the real one: for tests of the local adapter and commands."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep_analysis.rung import Purpose, Run
from sweep_operator.api import Condition, Metadata, RunSpec, ScalingRun, ScalingSweep
from sweep_operator.names import config_digest, run_name

STANDIN = Path(__file__).parent / "sweep" / "standin"

MANIFEST = """\
apiVersion: scalingsweep.dev/v1alpha1
kind: ScalingSweep
metadata: {name: tiny}
spec:
  target: {parameters: 170K, tokens: 3.4M}
  ladder:
    rungs:
    - {name: a, runs: [{parameters: 27K, tokensPerParameter: [10, 20], seeds: [0, 1]}]}
    - {name: b, runs: [{parameters: 44K, tokensPerParameter: [10, 20]}]}
    - {name: c, runs: [{parameters: 70K, tokensPerParameter: [10, 20]}]}
    - {name: d, runs: [{parameters: 110K, tokensPerParameter: [10, 20]}]}
  gate: {warmupRungs: 3, tolerance: 0.03}
  training:
    data: {files: [text.txt]}
    batchTokens: 2048
"""


@dataclass
class Folder:
    """A folder with a manifest, and the command line called in it."""

    path: Path
    script: dict[str, Any] = field(default_factory=lambda: {"seconds": 0.1})
    """What the stand-in trainer is told ($STANDIN)."""

    def __post_init__(self) -> None:
        (self.path / "text.txt").write_text("some text\n")
        self.write(MANIFEST)

    @property
    def manifest(self) -> Path:
        return self.path / "sweep.yaml"

    @property
    def workdir(self) -> Path:
        return self.path / "tiny"

    def write(self, text: str) -> None:
        self.manifest.write_text(text)

    def edit(self, old: str, new: str) -> None:
        assert old in self.manifest.read_text()
        self.write(self.manifest.read_text().replace(old, new))

    def environment(self, **more: str) -> dict[str, str]:
        imposed = ("NO_COLOR", "PYTHONDONTWRITEBYTECODE", "COLUMNS", "LINES")  # by whoever runs the tests
        clean = {k: v for k, v in os.environ.items() if k not in imposed}
        path = os.pathsep.join(filter(None, [str(STANDIN), os.environ.get("PYTHONPATH")]))
        own = {"PYTHONPATH": path, "STANDIN": json.dumps(self.script)}
        return {**clean, **own, "SCALINGSWEEP_CACHE": str(self.path / "cache"), **more}

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "sweep_operator.cli", *map(str, arguments)]

    def call(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Call the command line to its end, in this process: imports are paid for once."""
        from sweep_operator.cli import main

        out, err, folder = io.StringIO(), io.StringIO(), Path.cwd()
        before, during = dict(os.environ), self.environment()
        os.environ.clear()
        os.environ.update(during)
        os.chdir(self.path)
        try:
            with redirect_stdout(out), redirect_stderr(err):
                status = main([str(argument) for argument in arguments])
        finally:
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(before)
        return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """`scalingsweep run` of the manifest."""
        return self.call("run", self.manifest.name, *arguments)

    def begin(self, *arguments: object) -> subprocess.Popen[str]:
        """Start `scalingsweep run` and leave it running."""
        return subprocess.Popen(
            self.command("run", self.manifest.name, *arguments),
            cwd=self.path,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def status(self) -> dict[str, Any]:
        return json.loads((self.workdir / "status.json").read_text())

    def files(self) -> set[str]:
        """Every file below the folder, so that a test can say that nothing was written."""
        return {str(p.relative_to(self.path)) for p in self.path.rglob("*")}

    def attempts(self) -> list[dict[str, Any]]:
        return [json.loads(p.read_text()) for p in sorted(self.workdir.glob("runs/*/attempts/*.json"))]

    def running(self) -> list[int]:
        """Process numbers of attempts that are open."""
        return [a["pid"] for a in self.attempts() if "endedAt" not in a]


def until(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Ask again until the answer is true; returns it."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)
    return answer


def lasting(status: dict[str, Any]) -> dict[str, Any]:
    """A status without times and without what disturbances cost: equal however often a ladder was disturbed."""
    times = {"time", "startedAt", "finishedAt", "lastTransitionTime", "lastUpdated"}
    dropped = times | {"spent", "gpuHours", "observedGeneration"}

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k not in dropped}
        return [strip(v) for v in value] if isinstance(value, list) else value

    return strip(status)


def losses(workdir: Path) -> dict[str, dict[int, float]]:
    """Accepted losses by run and token count, to the last digit."""
    found = {}
    for file in workdir.glob("runs/*/status.json"):
        records = json.loads(file.read_text())["accepted"]
        found[file.parent.name] = {record["tokens"]: record["loss"] for record in records}
    return found


def accepted(sweep: ScalingSweep) -> ScalingSweep:
    """The sweep as it is once its spec was looked at and found right."""
    valid = Condition(
        type="Accepted",
        status="True",
        reason="Valid",
        message="",
        observed_generation=sweep.metadata.generation,
        last_transition_time="2026-01-01T00:00:00.000Z",
    )
    status = sweep.status.changed(observed_generation=sweep.metadata.generation, conditions=(valid,))
    return sweep.changed(status=status)


def a_run(sweep: ScalingSweep, parameters: int = 27_048, seed: int = 0, rung: str = "a") -> ScalingRun:
    """A run of the sweep as the reconcilers would create it."""
    run = Run(parameters=parameters, tokens=(270_336, 540_672), seed=seed, purpose=Purpose.LADDER)
    return ScalingRun(
        metadata=Metadata(name=run_name(sweep, rung, 1, run), namespace=sweep.metadata.namespace),
        spec=RunSpec(
            sweep=sweep.metadata.name,
            sweep_uid=sweep.metadata.uid,
            rung=rung,
            revision=1,
            run=run,
            config_digest=config_digest(sweep.spec.training, run),
        ),
    )
