"""Records of earlier runs: what is taken, what they sharpen, and what they never do."""

import json
import re
from collections import Counter
from datetime import timedelta

import pytest
from simulated_cluster import SimulatedCluster, climb, healthy, record_of, settle

from sweep_analysis.forecast import Forecast, NoForecast
from sweep_analysis.gate import Outcome, Reason
from sweep_analysis.rung import Run
from sweep_analysis.table import Text
from sweep_operator.api import RungState
from sweep_operator.clusters import Unavailable
from sweep_operator.imports import MAX_BYTES, imports_of, records_of

SIZES = (8_000, 12_000, 17_000)
RECORDS = [{"file": "earlier.csv"}]


def rows(sizes=SIZES, ratios=(10, 20, 40)):
    """A CSV file of runs that obey the simulated law."""
    runs = [Run(parameters=size, tokens=(size * ratio,)) for size in sizes for ratio in ratios]
    lines = [f"{run.parameters},{run.tokens[0]},{healthy(run, run.tokens[0])!r}" for run in runs]
    return "\n".join(["parameters,tokens,loss", *lines])


def imported(manifest, text=None, **spec):
    cluster = SimulatedCluster(manifest(records=RECORDS, **spec))
    cluster.texts["earlier.csv"] = rows() if text is None else text
    return cluster


def test_the_first_rung_is_forecast_from_imported_records_and_not_judged_by_them(manifest):
    status = climb(imported(manifest))
    first = status.rungs[0]
    assert isinstance(first.forecast.outcome, Forecast)
    assert first.forecast.outcome.records == status.imports.records == 9
    assert (first.verdict.outcome, first.state) == (Outcome.NOT_JUDGED, RungState.PROMOTED)
    assert "the ladder's own, which alone judge a rung" in first.verdict.message
    assert status.phase == "Succeeded"
    assert status.law.records == 9 + sum(len(r.runs) * 2 for r in status.rungs if r.name != "target")


def test_without_them_nothing_forecasts_the_first_rung_and_what_is_spent_is_the_same(manifest):
    without, brought = climb(SimulatedCluster(manifest())), climb(imported(manifest))
    assert isinstance(without.rungs[0].forecast.outcome, NoForecast)
    assert without.imports is None
    assert brought.spent == without.spent


def test_imported_records_of_larger_models_are_no_plateau_of_a_small_rung(manifest):
    """They only widen its forecast: the forecaster knows climbs."""
    status = climb(imported(manifest, rows(sizes=(200_000, 400_000, 800_000))))
    checks = [check.reason for r in status.rungs if r.verdict for check in r.verdict.checks]
    assert Reason.STILL_SCALING in checks
    assert Reason.PLATEAU not in checks
    smaller = climb(imported(manifest))
    assert status.rungs[3].forecast.outcome.half_width > 1.5 * smaller.rungs[3].forecast.outcome.half_width


def test_what_was_imported_stays_whatever_becomes_of_its_source(manifest):
    cluster = imported(manifest)
    settle(cluster)
    kept = cluster.stored.status.imports
    cluster.texts["earlier.csv"] = "other things"
    settle(cluster)
    cluster.texts.clear()
    assert climb(cluster).imports == kept


def test_a_source_that_cannot_be_read_starts_nothing_and_is_asked_for_again(manifest):
    cluster = imported(manifest)
    text = cluster.texts.pop("earlier.csv")
    settle(cluster)
    refused = cluster.stored.status.condition("Accepted")
    assert (refused.status, refused.reason) == ("False", "RecordsUnavailable")
    assert "earlier.csv" in refused.message
    assert not cluster.children
    assert not cluster.stored.status.frozen
    assert [e.reason for e in cluster.events] == ["RecordsUnavailable"]
    writes = len(cluster.writes)
    settle(cluster)
    assert len(cluster.writes) == writes
    cluster.texts["earlier.csv"] = text
    cluster.now += timedelta(minutes=2)
    assert climb(cluster).phase == "Succeeded"


@pytest.mark.parametrize("before", [[], RECORDS])
def test_neither_added_nor_dropped_once_a_forecast_was_written(manifest, before):
    cluster = imported(manifest)
    cluster.stored = manifest(records=before)
    settle(cluster)
    after = [] if before else RECORDS
    cluster.stored = cluster.stored.changed(spec={**cluster.stored.spec.to_json(), "records": after})
    settle(cluster)
    refused = cluster.stored.status.condition("Accepted")
    assert (refused.reason, refused.message.split()[0]) == ("FrozenField", "spec.records")


def whole(manifest, **differs):
    """The records of a ladder, as its trainers reported them."""
    cluster = SimulatedCluster(manifest())
    climb(cluster)
    children = [run for run in cluster.children.values() if run.spec.rung in "abc"]
    told = [
        record_of(run, 1, t, healthy(run.spec.run, t), cluster.now) for run in children for t in run.spec.run.tokens
    ]
    return "\n".join(json.dumps(record.changed(**differs).to_json()) for record in told)


def jsonl(manifest, text):
    cluster = SimulatedCluster(manifest(records=[{"file": "earlier.jsonl"}]))
    cluster.texts["earlier.jsonl"] = text
    return cluster


def test_whole_records_bring_their_digests_and_the_runs_that_they_belong_to(manifest):
    status = climb(jsonl(manifest, whole(manifest)))
    assert status.phase == "Succeeded"
    assert (status.imports.validation_digest, status.imports.tokenizer_digest) == ("sha256:v", "sha256:t")
    assert len(set(status.imports.runs)) == 6
    assert status.imports.records == 12


@pytest.mark.parametrize(
    ("field", "reason"),
    [("validation_digest", Reason.VALIDATION_SET_DIFFERS), ("tokenizer_digest", Reason.TOKENIZER_DIFFERS)],
)
def test_records_that_cannot_be_compared_stop_the_ladder_at_its_first_rung(manifest, field, reason):
    status = climb(jsonl(manifest, whole(manifest, **{field: "sha256:another"})))
    assert (status.rungs[0].state, status.rungs[0].verdict.reason) == (RungState.STOPPED, reason)
    assert "apply a new sweep without them" in status.rungs[0].verdict.message


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "earlier.csv is empty; its first line should name the columns"),
        ("parameters,loss\n1000,3.0\n", "earlier.csv: no column tokens"),
        ("N,D,L\n1000,20000,-1\n", "line 2 of earlier.csv: loss is -1; it must be a finite number greater than zero"),
        ("N,D,L\n1e17,20000,3\n", "parameters is 1e+17; it must be within 1 and 2^53"),
        ("N,D,L\n" + "1000,20000,3\n" * 4097, "spec.records names 4,097 records; at most 4,096 are taken in all"),
        ("N,D,L\n" + " " * MAX_BYTES, f"spec.records names {MAX_BYTES + 6:,} bytes; at most {MAX_BYTES:,} are taken"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(text, sentence):
    with pytest.raises(Unavailable, match=re.escape(sentence)):
        imports_of([Text("earlier.csv", text)])


def test_rows_of_one_run_share_it_and_rows_without_a_run_share_none():
    named = "run,N,D,L\nx,1000,10000,4\nx,1000,20000,3.9\ny,2000,40000,3.8\n"
    imports = imports_of([Text("a.csv", named), Text("b.csv", "N,D,L\n1000,10000,4\n1000,20000,3.9\n")])
    assert sorted(Counter(imports.runs).values()) == [1, 1, 1, 2]
    assert {record.purpose for record in records_of(imports)} == {"Imported"}


def test_the_order_of_the_rows_changes_nothing():
    head, *body = rows().splitlines()
    assert imports_of([Text("a.csv", "\n".join([head, *reversed(body)]))]) == imports_of([Text("a.csv", rows())])
