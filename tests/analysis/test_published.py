"""Published tables: every number whose runs are at hand comes out to the digits that were verified."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from sweep_analysis import ladders
from sweep_analysis.choose import choose
from sweep_analysis.fit import fit

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SCALINGSWEEP_SHARED", ROOT / "../shared")) / "data"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the published runs are not at hand (SCALINGSWEEP_SHARED names their folder)"
)


def _command():
    spec = importlib.util.spec_from_file_location("published", ROOT / "benchmarks/published.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["published"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def published():
    return _command()


@pytest.fixture(scope="module")
def rows(published):
    return list(published.rows(DATA))


def _of(rows, source):
    found = [row for row in rows if row.source.startswith(source)]
    assert found, source
    return found


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("Epoch 2024, 240 points, Huber", 5),
        ("Epoch 2024, 240 points, near-LAD", 6),
        ("Epoch 2024, 240 points, 4,000 bootstraps", 6),
        ("kyo-takano", 5),
        ("Gemstones 2025", 3),
        ("Gadre 2024, RedPajama", 6),
        ("Gadre 2024, C4", 3),
        ("Gadre 2024, RefinedWeb", 3),
        ("Porian 2024", 14),
        ("Muennighoff 2023", 1),
    ],
)
def test_published_numbers_are_reproduced(rows, source, count):
    found = _of(rows, source)
    assert len(found) == count
    for row in found:
        assert row.agrees, f"{row.quantity}: {row.ours!r}, and {row.published} was published"


def test_ours_is_never_the_worse_optimum(published):
    for optimum in published.optima(DATA):
        assert optimum.at_ours <= optimum.at_published * (1 + 1e-9), optimum.source


def test_valleys_of_the_runs_themselves_agree_with_the_published_exponents(published):
    found = list(published.valleys(DATA))
    inside = [low <= value <= high for _, value, _, low, high in found]
    assert sum(inside) >= 12, "of fourteen 95 % intervals"
    for name, value, ours, _, _ in found:
        assert ours == pytest.approx(value, abs=0.025), name


def test_the_page_is_what_the_command_writes(published):
    assert (ROOT / "docs/published.md").read_text(encoding="utf-8") == published.page(DATA)


def test_the_next_rungs_of_chinchillas_points_are_forecast_best_by_one_exponent(published):
    chosen, second = choose(published.epoch(DATA)).candidates[:2]
    assert (chosen.law, f"{100 * chosen.held_out:.2f}", chosen.steps) == ("OverTraining", "0.73", 14)
    assert (second.law, f"{100 * second.held_out:.2f}") == ("Chinchilla", "1.08")


def test_no_published_ladder_is_suspected_of_mixed_units():
    for ladder in ladders.published(DATA):
        points = [point for rung in ladder.rungs for point in rung]
        columns = {name: np.array([getattr(p, name) for p in points]) for name in ("parameters", "tokens", "loss")}
        assert fit(columns).warnings == (), ladder.name
        bits = fit({**columns, "loss": columns["loss"] / np.log(2)}).warnings
        assert len(bits) == 1, ladder.name
        assert "in bits" in bits[0]
