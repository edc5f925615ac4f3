"""Reading records: anything with columns is a table, and what no law can use is refused with its row named."""

import json
import math

import numpy as np
import pytest

from sweep_analysis.fit import FitStatus, fit
from sweep_analysis.record import Record
from sweep_analysis.table import TableError, read

N = np.geomspace(1e8, 4e9, 4).repeat(3)
D = N * np.tile([5.0, 20.0, 80.0], 4)
L = 1.8 + 480 / N**0.35 + 2100 / D**0.37
COLUMNS = {"parameters": N, "tokens": D, "loss": L}
ROWS = [{"parameters": n, "tokens": d, "loss": v} for n, d, v in zip(N.tolist(), D.tolist(), L.tolist(), strict=True)]


def _record(n, d, loss, uid="run", tokenizer="sha256:t", purpose="Ladder"):
    return Record(
        run={"uid": uid, "attempt": 1, "config_digest": "sha256:c"},
        purpose=purpose,
        parameters={"total": round(n), "non_embedding": round(n * 0.9), "active": round(n)},
        tokens=round(d),
        unique_tokens=round(d),
        epochs=1.0,
        flops={"sixND": 6 * n * d, "detailed": 7 * n * d},
        seed=0,
        loss=loss,
        validation_digest="sha256:v",
        tokenizer_digest=tokenizer,
        gpu_seconds=1.0,
        trainer_version="1",
        finished_at="2026-01-01T00:00:00Z",
    )


def _written(path, text):
    path.write_text(text)
    return path


def _csv(rows, head="parameters,tokens,loss"):
    return head + "\n" + "\n".join(",".join(str(v) for v in row) for row in rows) + "\n"


def _sources(tmp_path):
    import pandas as pd
    import pyarrow as pa
    from pyarrow import parquet

    frame = pd.DataFrame(COLUMNS)
    parquet.write_table(pa.Table.from_pandas(frame), tmp_path / "runs.parquet")
    rows = list(zip(N.tolist(), D.tolist(), L.tolist(), strict=True))
    return {
        "dict of arrays": COLUMNS,
        "dict of lists": {k: v.tolist() for k, v in COLUMNS.items()},
        "list of dicts": ROWS,
        "generator of dicts": (row for row in ROWS),
        "data frame": frame,
        "arrow table": pa.Table.from_pandas(frame),
        "structured array": frame.to_records(index=False),
        "CSV": _written(tmp_path / "runs.csv", _csv(rows)),
        "TSV": _written(tmp_path / "runs.tsv", _csv(rows).replace(",", "\t")),
        "path as text": str(tmp_path / "runs.csv"),
        "JSON lines": _written(tmp_path / "runs.jsonl", "\n".join(json.dumps(r) for r in ROWS)),
        "JSON array": _written(tmp_path / "runs.json", json.dumps(ROWS)),
        "Parquet": tmp_path / "runs.parquet",
    }


def test_every_kind_of_source_gives_the_same_fit(tmp_path):
    expected = fit(COLUMNS).constants
    for kind, source in _sources(tmp_path).items():
        assert fit(source).constants == expected, kind


def test_a_polars_like_frame_is_read_without_importing_polars():
    class Series:
        def __init__(self, values):
            self.values = values

        def to_numpy(self):
            return np.asarray(self.values)

    class Frame:
        columns = ("N", "D", "loss")

        def __getitem__(self, name):
            return Series({"N": N, "D": D, "loss": L}[name])

    assert fit(Frame()).constants == fit(COLUMNS).constants


def test_records_are_read_by_the_convention_asked_for():
    records = [_record(n, d, v) for n, d, v in zip(N, D, L, strict=True)]
    total, plain = read(records), read(records, convention="non_embedding")
    assert np.allclose(plain["parameters"] / total["parameters"], 0.9, rtol=1e-6)
    assert read([r.to_json() for r in records])["parameters"].tolist() == total["parameters"].tolist()


def test_records_of_two_tokenizers_are_refused():
    with pytest.raises(TableError, match="cannot be compared"):
        read([_record(1e8, 1e9, 3.0), _record(2e8, 1e9, 2.9, tokenizer="sha256:other")])


def test_diagnosis_records_never_enter_a_table():
    records = [_record(1e8, 1e9, 3.0), _record(2e8, 1e9, 2.0, purpose="Diagnosis")]
    assert read(records)["loss"].tolist() == [3.0]
    assert read([r.to_json() for r in records])["loss"].tolist() == [3.0]


def test_a_damaged_record_is_refused_with_its_row():
    bad = _record(1e8, 1e9, 3.0).to_json() | {"loss": -1}
    with pytest.raises(TableError, match="row 2 of the records is not a record: loss"):
        read([_record(1e8, 1e9, 3.0).to_json(), bad])


def test_a_column_map_names_tracker_columns():
    rows = [{"config": {"n": n}, "summary": {"seen": d, "val": v}} for n, d, v in zip(N, D, L, strict=True)]
    table = read(rows, columns={"parameters": "config.n", "tokens": "summary.seen", "loss": "summary.val"})
    assert len(table) == 12
    flat = [{"params.N": str(n), "metrics.tokens": d, "metrics.loss": v} for n, d, v in zip(N, D, L, strict=True)]
    assert len(read(flat, columns={"parameters": "params.N", "tokens": "metrics.tokens", "loss": "metrics.loss"})) == 12


def test_sizes_may_be_written_as_people_write_them(tmp_path):
    path = _written(tmp_path / "runs.csv", _csv([("30M", "1.4T", 3.1), ("7B", "2e12", 2.1)], "N,D,loss"))
    assert sorted(read(path)["parameters"].tolist()) == [30e6, 7e9]


def test_tokens_follow_from_compute_and_compute_from_tokens():
    assert np.allclose(np.sort(read({"N": N, "C": 6 * N * D, "loss": L})["tokens"]), np.sort(D))
    assert np.allclose(np.sort(read(COLUMNS, ["flops", "loss"])["flops"]), np.sort(6 * N * D))


@pytest.mark.parametrize(
    ("value", "said"),
    [("nan", "missing or NaN"), ("inf", "loss is inf"), ("0", "loss is 0"), ("-2", "loss is -2"), ("good", "'good'")],
)
def test_a_bad_value_is_refused_with_its_line(tmp_path, value, said):
    rows = [[n, d, v] for n, d, v in zip(N, D, L, strict=True)]
    rows[4][2] = value
    with pytest.raises(TableError, match=r"line 6 of runs.csv") as caught:
        fit(_written(tmp_path / "runs.csv", _csv(rows)))
    assert said in str(caught.value)


@pytest.mark.parametrize("column", ["parameters", "tokens", "loss"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
def test_a_bad_value_in_arrays_is_refused_with_its_row(column, value):
    bad = {k: v.copy() for k, v in COLUMNS.items()}
    bad[column][7] = value
    with pytest.raises(TableError, match=f"row 8 of the records: {column}"):
        fit(bad)


@pytest.mark.parametrize("size", [0.0, -1.0, math.nan])
def test_sizes_that_a_law_does_not_ask_for_and_none_has_are_left_out(size):
    outlier = np.where(np.arange(len(L)) == 4, 1.5 * L, L)
    asked = {"flops": 6 * N * D, "loss": outlier, "tokens": D}
    with_sizes = fit({**asked, "parameters": np.where(np.arange(len(L)) == 2, size, N)}, "KaplanCompute")
    assert "parameters" not in with_sizes.table.columns
    assert with_sizes.constants == fit(asked, "KaplanCompute").constants


def test_rows_without_a_value_may_be_dropped():
    rows = [*ROWS, {"parameters": 1e9, "tokens": 1e10, "loss": None}, {"parameters": 1e9, "tokens": 1e10}]
    with pytest.raises(TableError, match="row 13"):
        read(rows)
    assert len(read(rows, missing="drop")) == 12


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"parameters": N, "tokens": D}, "no column loss among parameters, tokens"),
        ({"parameters": N, "tokens": D[:3], "loss": L}, "differ in length"),
        ({"parameters": N, "tokens": D, "loss": np.stack([L, L], 1)}, "row 1 of the records: loss is .* not a number"),
        ([{**ROWS[0], "tokens": 10**400}, *ROWS], "row 1 of the records: tokens is '1000.* not a number"),
        ([], "no rows in the records"),
        ([1, 2], "row 1 of the records is a int"),
        (7, "cannot read records from int"),
        ("nowhere.csv", "there is no file nowhere.csv"),
    ],
)
def test_what_is_no_table_is_refused_in_one_sentence(source, said):
    with pytest.raises(TableError, match=said):
        fit(source)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "", "is empty"),
        ("b.csv", "N,D,loss\n", "no rows in"),
        ("c.csv", "N,D,loss\n1,2\n", "line 2 of c.csv has 2 values"),
        ("d.csv", "N,N,loss\n1,2,3\n", "names the column 'N' twice"),
        ("e.jsonl", '{"N": 1}\n{"N": \n', "line 2 of e.jsonl is not JSON"),
        ("e.json", '{"N": [1, 2], "D": [1, 2], "L": [2, 3]}', "line 1 of e.json: N is .* not a number"),
        ("g.csv", f"N,D,L,note\n1,2,3,x\n1,2,3,{'x' * 200_000}\n", "line 3 of g.csv is not CSV: field larger"),
        ("h.json", "[" * 100_000, "h.json is not JSON: brackets within brackets"),
        ("i.jsonl", '{"N": 1}\n{"N": ' + "1" * 5000 + "}", "line 2 of i.jsonl is not JSON: a number of thousands"),
        ("f.xlsx", "x", "unknown kind .xlsx"),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, name, text, said):
    with pytest.raises(TableError, match=said):
        fit(_written(tmp_path / name, text))


def test_a_line_is_the_files_own_whatever_stands_before_it(tmp_path):
    rows = [f"{n},{d},{v}" for n, d, v in zip(N, D, L, strict=True)]
    gaps = _written(tmp_path / "gaps.csv", "\n".join(["N,D,L", rows[0], "", rows[1], "1e8,1e9,bad"]))
    with pytest.raises(TableError, match=r"line 5 of gaps\.csv: L is 'bad'"):
        fit(gaps)
    notes = _written(tmp_path / "notes.csv", 'note,N,D,L\n"two\nlines",1e8,1e9,3\nx,1e8,1e9,bad\n')
    with pytest.raises(TableError, match=r"line 4 of notes\.csv: L is 'bad'"):
        fit(notes)
    objects = _written(tmp_path / "gaps.jsonl", '{"N": 1e8, "D": 1e9, "L": 3}\n\n{"N": 1e8, "D": 1e9, "L": "bad"}\n')
    with pytest.raises(TableError, match=r"line 3 of gaps\.jsonl: L is 'bad'"):
        fit(objects)


def test_a_damaged_parquet_file_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "runs.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(TableError, match=r"runs\.parquet is no Parquet file"):
        fit(tmp_path / "runs.parquet")
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table(COLUMNS), tmp_path / "runs.parquet")
    whole = (tmp_path / "runs.parquet").read_bytes()
    for place in (4, len(whole) - 60):  # a page, and the footer
        (tmp_path / "runs.parquet").write_bytes(whole[:place] + b"\xff" * 40 + whole[place + 40 :])
        with pytest.raises(TableError, match=r"runs\.parquet is no Parquet file, or a damaged one"):
            fit(tmp_path / "runs.parquet")


def test_separators_that_only_some_call_a_line_break_stay_inside_a_value(tmp_path):
    rows = list(zip(N, D, L, strict=True))
    for mark in "\v\f\x85\u2028":
        notes = [f"{n},{d},{v},a{mark}b" for n, d, v in rows]
        assert fit(_written(tmp_path / "runs.csv", "\n".join(["N,D,L,note", *notes]))).records == len(L)
    objects = [json.dumps({"N": n, "D": d, "L": v, "note": "a\u2028b"}, ensure_ascii=False) for n, d, v in rows]
    assert fit(_written(tmp_path / "runs.jsonl", "\n".join(objects))).records == len(L)


def test_exports_of_experiment_trackers_are_read_by_a_column_map(tmp_path):
    head = '"Name","State","config.model.n","config.tokens","val/loss","Notes"'
    runs = [f'"run-{i}","finished","{n}","{d}","{v}","a, b"' for i, (n, d, v) in enumerate(zip(N, D, L, strict=True))]
    crashed = '"run-99","crashed","1e9","2e10","",""'
    wandb = _written(tmp_path / "wandb.csv", "\n".join([head, *runs, crashed]))
    names = {"parameters": "config.model.n", "tokens": "config.tokens", "loss": "val/loss", "run": "Name"}
    with pytest.raises(TableError, match=r"line 14 of wandb\.csv: loss is missing"):
        fit(wandb, columns=names)
    kept = fit(wandb, columns=names, missing="drop")
    assert kept.constants == fit(COLUMNS).constants
    assert len(set(kept.table.labels["run"])) == 12
    rows = [f"{i},FINISHED,{n},{d},{v}" for i, (n, d, v) in enumerate(zip(N, D, L, strict=True))]
    mlflow = _written(tmp_path / "mlflow.csv", "\n".join(["run_id,status,params.n,params.d,metrics.loss", *rows]))
    names = {"parameters": "params.n", "tokens": "params.d", "loss": "metrics.loss"}
    assert fit(mlflow, columns=names).constants == fit(COLUMNS).constants


def test_a_column_map_of_what_no_law_reads_is_refused_with_the_right_name():
    with pytest.raises(TableError, match="names lss, which no law reads; did you mean loss"):
        fit(COLUMNS, columns={"lss": "loss"})
    with pytest.raises(TableError, match="names colour, which no law reads; this law reads parameters, tokens, loss"):
        fit({**COLUMNS, "c": L}, columns={"colour": "c"})


def test_a_wrong_column_map_lists_what_is_there():
    with pytest.raises(TableError, match=r"no column 'M' \(wanted as parameters\) among parameters, tokens, loss"):
        fit(COLUMNS, columns={"parameters": "M"})


def _warned(**changes):
    return " ".join(fit({**COLUMNS, **changes}).warnings)


def test_units_that_look_mixed_up_are_said_and_nothing_is_changed():
    assert fit(COLUMNS).warnings == ()
    assert "counted in billions" in _warned(tokens=D / 1e9)
    assert "counted in millions" in _warned(parameters=N / 1e6)
    assert "in bits" in _warned(loss=L / math.log(2))
    assert "is it in bits, or a sum" in _warned(loss=L * 10)
    assert "entropy of English" in _warned(loss=L / 10)
    mixed = D.copy()
    mixed[0] /= 1e9
    assert "are units mixed" in _warned(tokens=mixed)


@pytest.mark.parametrize("which", ["largest", "every third", "one"])
def test_losses_of_which_some_are_in_bits_are_suspected(which):
    row = np.arange(len(N))
    some = {"largest": row > 8, "every third": row % 3 == 1, "one": row == 5}[which]
    noisy = L * np.exp(2e-3 * np.random.default_rng(0).standard_normal(len(L)))
    assert _warned(loss=noisy) == ""
    said = _warned(loss=np.where(some, noisy / math.log(2), noisy))
    assert said.startswith(f"{some.sum()} of 12 losses are about 1.")
    assert "are some in bits" in said


def test_a_column_named_for_bits_is_suspected():
    result = fit({"N": N, "D": D, "val_bpb": L}, columns={"loss": "val_bpb"})
    assert "seems to hold bits" in result.warnings[0]


def test_duplicate_runs_that_disagree_are_said():
    twice = {k: np.append(v, v[0]) for k, v in COLUMNS.items()}
    assert fit(twice).warnings == ()
    twice["loss"][-1] *= 1.1
    assert "disagree" in fit(twice).warnings[0]


def test_too_few_points_and_bad_designs_are_values_with_a_remedy():
    few = fit({k: v[:4] for k, v in COLUMNS.items()})
    assert (few.status, few.usable, dict(few.constants)) == (FitStatus.TOO_FEW_POINTS, False, {})
    assert "add at least 2" in few.message
    one_ratio = fit({"parameters": N, "tokens": 20 * N, "loss": L})
    assert one_ratio.status == FitStatus.UNIDENTIFIED
    assert "add a second ratio" in one_ratio.message
    one_size = fit({"parameters": np.full(12, 1e9), "tokens": D, "loss": L})
    assert one_size.status == FitStatus.UNIDENTIFIED
    assert "distinct values of parameters" in one_size.message
    with pytest.raises(ValueError, match="was not fitted"):
        few.predict(1e9, 1e10)


def _at(context, loss, *, n=1_000, d=10_000):
    """A record of a run at this context; 128 is the target's."""
    purpose = "Ladder" if context == 128 else "Context"
    record = _record(n, d, loss, uid=f"{context}-{n}-{d}", purpose=purpose)
    return record.changed(context_length=context, validation_digest=f"sha256:{context}")


def _at_contexts():
    """What 2 + 3·s^-0.5 gives at six context lengths."""
    return [_at(s, 2.0 + 3.0 * s**-0.5) for s in (32, 64, 128, 256, 512, 1024)]


def test_records_of_other_contexts_are_no_points_of_a_law_of_parameters_and_tokens():
    assert list(read(_at_contexts())["loss"]) == [pytest.approx(2.0 + 3.0 * 128**-0.5)]


def test_the_law_of_context_recovers_its_constants_from_records_of_several_contexts():
    found = fit(_at_contexts(), "ContextLength").constants
    assert {name: pytest.approx(value, rel=1e-3) for name, value in found.items()} == {"E": 2, "K": 3, "gamma": 0.5}


def test_the_law_of_context_compares_one_size_on_one_token_count():
    for other in (_at(256, 3.0, n=2_000), _at(256, 3.0, d=20_000)):
        with pytest.raises(TableError, match="compared at one size and one token count"):
            fit([*_at_contexts(), other], "ContextLength")


def test_one_context_has_one_validation_set():
    twice = _at(256, 3.0).changed(validation_digest="sha256:another")
    with pytest.raises(TableError, match="pairs of validation set"):
        fit([*_at_contexts(), twice], "ContextLength")
