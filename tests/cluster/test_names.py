"""Names of children: every sweep that the API server takes has children whose names it takes too, each its own."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from sweep_analysis.rung import Run
from sweep_operator.api import Metadata, RungSpec, ScalingSweep
from sweep_operator.names import run_name

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
RUN = Run(parameters=20_000, tokens=(200_000,))
NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", fullmatch=True)
RUNGS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)


def sweep(name: str, uid: str = "u-1") -> ScalingSweep:
    spec = {
        "target": {"parameters": "1M", "tokens": "20M"},
        "ladder": {"generate": {"from": "20K", "to": "80K", "rungs": 3, "tokensPerParameter": [10]}},
        "training": {"data": {"corpus": "Classics"}},
    }
    return ScalingSweep.model_validate({"metadata": {"name": name, "uid": uid}, "spec": spec})


@given(NAMES, RUNGS, st.integers(1, 10**6))
@example("a" * 63, "r" * 12, 99_999)
@example("0.0.0.0.0.0.0.0.0.0.0", "0-0", 1)
@example("a" * 19 + "." + "b" * 30, "t", 1)
def test_a_childs_name_is_a_label_and_leaves_room_for_its_attempt(name: str, rung: str, attempt: int) -> None:
    run = run_name(sweep(name), rung, 1, RUN)
    assert LABEL.fullmatch(run)
    assert len(run) <= 20 + 1 + 12 + 1 + 8
    assert LABEL.fullmatch(f"{run}-{attempt}")


def test_sweeps_whose_names_begin_alike_have_children_of_their_own() -> None:
    alike = [sweep("web-scale-2026-spring-" + end, uid) for end, uid in (("a", "u-1"), ("b", "u-2"), ("a", "u-3"))]
    names = {run_name(one, rung, revision, RUN) for one in alike for rung in ("a", "b") for revision in (1, 2)}
    assert len(names) == 12


@pytest.mark.parametrize("name", ["", "a" * 64, "A", "-a", "a-", "a_b", "ä", "a b", "лестница"])
def test_names_that_would_make_no_label_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        Metadata(name=name)


@pytest.mark.parametrize("name", ["", "a" * 13, "A", "-a", "a.b", "ü"])
def test_names_of_rungs_that_would_make_no_label_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        RungSpec.model_validate({"name": name, "runs": [{"parameters": "1M", "tokensPerParameter": [10]}]})
