"""What the loop costs: every way that the command measures is the way that its row says, and the page has its table."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_trainer", ROOT / "benchmarks" / "trainer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WAYS = ["plain, by hand", "query norms", "experts, 2 of 4", "bf16", "transformers, Qwen3"]


@pytest.mark.parametrize("way", WAYS)
def test_each_way_is_trained_by_a_bare_loop_the_engine_and_the_trainer(
    way: str, benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By hand or by autograd, as the row says: the command raises where it is not so."""
    if "transformers" in way:
        pytest.importorskip("transformers", reason="the extra `huggingface` is not installed")
    monkeypatch.setattr(benchmark, "STEPS", 12)
    assert list(benchmark.WAYS) == WAYS
    row = benchmark.measure(way, 40_000, 1, tmp_path)
    assert row["way"] == way
    assert min(row["bare"], row["engine"], row["trainer"]) > 0


def test_a_way_that_is_not_what_its_row_says_is_an_error(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(benchmark.WAYS, "query norms", {})
    with pytest.raises(RuntimeError, match="query norms: the trainer takes hand-derived gradients"):
        benchmark.measure("query norms", 20_000, 1, tmp_path)


def test_the_page_has_the_table_of_the_results_with_every_way(benchmark: ModuleType) -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "trainer.json").read_text())["rows"]
    page = (ROOT / "docs" / "engines.md").read_text()
    assert benchmark.with_table(page, rows) == page
    assert {row["way"] for row in rows} == set(WAYS)
    with pytest.raises(ValueError, match="no table that begins"):
        benchmark.with_table("nothing", rows)
