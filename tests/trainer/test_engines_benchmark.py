"""The benchmark of engines: what it measures of a run, and the table that it puts into the page."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sweep_analysis.recipe import Training
from sweep_trainer.data import prepare


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "engines.py"
    spec = importlib.util.spec_from_file_location("benchmark_engines", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_table_goes_where_the_last_one_stands_in_the_page(benchmark: ModuleType) -> None:
    measured = {
        "PyTorch": {"tokensPerSecond": [900.0, 1000.0], "firstStep": [5.0, 4.0], "resumed": [6.0, 4.0]},
        "Ray, one worker": {"tokensPerSecond": [950.0], "firstStep": [12.0], "resumed": [14.0]},
    }
    page = benchmark.PAGE.read_text()
    once = benchmark.with_table(page, measured)
    assert "| PyTorch | 1,000 | 1.000 | 4.0 | 1.00 | 4.0 | 1.00 |\n" in once
    assert "| Ray, one worker | 950 | 0.950 | 12.0 | 3.00 | 14.0 | 3.50 |\n\n" in once
    assert "DeepSpeed, ZeRO 1 |" not in once
    assert benchmark.with_table(once, measured) == once
    header = benchmark.table(measured)[0]
    assert once.partition(header)[0] == page.partition(header)[0]
    assert once.partition(header)[2].partition("\n\n")[2] == page.partition(header)[2].partition("\n\n")[2]


@pytest.mark.slow
def test_a_way_is_a_run_that_stops_and_goes_on_from_its_checkpoint(
    benchmark: ModuleType, training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "recipe", lambda stage: training)
    prepare(training, tmp_path, tmp_path / "cache")
    measured = benchmark.way(7_000, "PyTorch", tmp_path / "cache", tmp_path / "way")
    assert list(measured) == list(benchmark.MEASURES)
    assert all(value > 0 for value in measured.values())
    assert len((tmp_path / "way" / "steps-1").read_text().splitlines()) >= benchmark.SETTLED + benchmark.LOOP
