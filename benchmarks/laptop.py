"""The laptop ladder as a person meets it: how long it takes, where the time goes, how quickly the commands answer.

    python benchmarks/laptop.py [--json FILE]

Runs examples/laptop.yaml in a fresh folder (data prepared beforehand counts as installed only if the cache holds it),
then each quick command several times; prints a table and the machine it ran on. Run it on an idle machine.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SCALINGSWEEP = Path(sys.executable).parent / "scalingsweep"
LAPTOP = ROOT / "examples" / "laptop.yaml"
REPEATS = 7


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    figures = {"machine": machine(), **ladder(), "seconds": commands()}
    print(f"machine                      {figures['machine']}")
    print(f"ladder and target            {figures['wall']:.1f} s on the wall (goal: at most 240)")
    print(f"  trainers in their steps    {figures['deviceInTraining']:.1%} of their time (goal: at least 90 %)")
    print(f"  no trainer at work         {figures['idleWall']:.1%} of the wall")
    print(f"  all slots in steps         {figures['inTraining']:.1%} of slots times wall")
    print(f"driver's peak memory         {figures['driverPeakMiB']:.0f} MiB (goal: at most 200)")
    for name, seconds in figures["seconds"].items():
        print(f"{name:28s} {seconds:.2f} s, median of {REPEATS} (goal: at most 0.50)")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def machine() -> str:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def ladder() -> dict[str, Any]:
    """Climb once and take the time apart."""
    folder = Path(tempfile.mkdtemp(prefix="laptop-"))
    began = time.perf_counter()
    driver = subprocess.Popen([SCALINGSWEEP, "run", LAPTOP, "--workdir", folder / "ladder"], stdout=subprocess.DEVNULL)
    peak = [0.0]
    watcher = threading.Thread(target=watch_memory, args=(driver.pid, peak), daemon=True)
    watcher.start()
    status = driver.wait()
    wall = time.perf_counter() - began
    if status != 0:
        raise RuntimeError(f"the ladder ended with exit status {status}; see {folder}")
    training = device = 0.0
    spans = []
    for run in (folder / "ladder" / "runs").iterdir():
        training += json.loads((run / "report" / "progress.json").read_text())["trainingSeconds"]
        for path in (run / "attempts").glob("*.json"):
            attempt = json.loads(path.read_text())
            spans.append((seconds(attempt["startedAt"]), seconds(attempt["endedAt"])))
            device += spans[-1][1] - spans[-1][0]
    shutil.rmtree(folder)
    slots = os.cpu_count() or 1
    return {
        "wall": wall,
        "trainingSeconds": training,
        "deviceSeconds": device,
        "deviceInTraining": training / device,
        "inTraining": training / (slots * wall),
        "idleWall": 1 - covered(spans) / wall,
        "driverPeakMiB": peak[0],
    }


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def covered(spans: list[tuple[float, float]]) -> float:
    """Seconds during which at least one span was open."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def watch_memory(pid: int, peak: list[float]) -> None:
    """The process's own high-water mark, MiB, as the kernel keeps it."""
    while True:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            return
        peak[0] = max([peak[0], *(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))])
        time.sleep(0.2)


def commands() -> dict[str, float]:
    """Median wall seconds of the commands that should feel instant, and of the analysis' import."""
    calls = {
        "scalingsweep --help": [SCALINGSWEEP, "--help"],
        "scalingsweep lint": [SCALINGSWEEP, "lint", LAPTOP],
        "scalingsweep plan": [SCALINGSWEEP, "plan", LAPTOP],
        "import sweep_analysis": [sys.executable, "-c", "import sweep_analysis"],
    }
    return {name: statistics.median(timed(call) for _ in range(REPEATS)) for name, call in calls.items()}


def timed(call: list[Any]) -> float:
    began = time.perf_counter()
    subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
