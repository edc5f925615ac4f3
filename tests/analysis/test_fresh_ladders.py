"""Which published runs the fresh origins count, and that a file of logs cannot run anything."""

import importlib
import math
import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sweep_analysis.forecast import Point


@pytest.fixture
def fresh(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("fresh_ladders")


@pytest.fixture
def further(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("further_ladders")


def run(last, *, steps=1000, size=2e8, loss=3.0):
    curve = pd.DataFrame({"_step": [500, last], "val/.dclm_loss": [3.5, loss]})
    return SimpleNamespace(
        name="dclm_llama_160M_ctx8192_lr0.003",
        summary={"model/": {"num_params": size}, "dataset/": {"num_train_steps": steps, "global_batch_size": 128}},
        logs={"val/.dclm_loss": curve},
    )


def test_a_run_counts_by_the_loss_at_its_last_planned_step(fresh):
    (point,) = fresh.finished([run(1000)])
    assert point == Point(2e8, 1000 * 128 * 8192.0, 3.0, "dclm_llama_160M_ctx8192_lr0.003")


def test_a_run_that_stopped_before_its_last_planned_step_is_none(fresh):
    never_begun = SimpleNamespace(name="dclm_llama_160M_ctx8192_lr0.003", summary={}, logs={})
    assert not list(fresh.finished([run(999), never_begun]))


def test_a_diverged_run_that_was_trained_to_its_end_counts(fresh):
    assert [p.loss for p in fresh.finished([run(1000, loss=10.8)])] == [10.8]


def test_of_a_grid_the_run_of_lowest_loss_counts_and_no_nan(further):
    grid = [Point(1e8, 2e9, loss, name) for loss, name in ((3.1, "a"), (3.0, "b"), (math.nan, "c"))]
    assert further.best_of_each([*grid, Point(2e8, 2e9, 2.9, "d")]) == [grid[1], Point(2e8, 2e9, 2.9, "d")]


class WandBRunData:
    """As the class is named that the published logs were pickled from."""


def test_what_a_logged_run_had_is_found_as_attributes_whatever_its_group(fresh, tmp_path):
    one, other = WandBRunData(), WandBRunData()
    one.name, other.name, other.steps = "one", "other", np.array([500, 1000])
    path = tmp_path / "logs.pkl"
    path.write_bytes(pickle.dumps({"a group": [one], "another": [other]}, protocol=4))
    runs = fresh.logged(path)
    assert [type(r) for r in runs] == [fresh.Run] * 2
    assert [r.name for r in runs] == ["one", "other"]
    assert runs[1].steps.tolist() == [500, 1000]


def test_a_pickle_that_would_run_something_is_refused(fresh, tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    path = tmp_path / "logs.pkl"
    path.write_bytes(pickle.dumps({"a group": [Harmful()]}))
    with pytest.raises(pickle.UnpicklingError, match="no part of a table of logs"):
        fresh.logged(path)
    assert not (tmp_path / "made").exists()
