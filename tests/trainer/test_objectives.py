"""Runs of every objective, from a mixture, watched by tasks: what they leave behind, and that they resume exactly."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_run import AfterLooks, carried_out, curve_of, failure_of, moved, order_of, records_of, written

from sweep_analysis.recipe import Training
from sweep_analysis.record import ExitStatus, FailureReason
from sweep_analysis.rung import RunOrder
from sweep_trainer.__main__ import train
from sweep_trainer.data import prepare
from sweep_trainer.data.examples import Layout
from sweep_trainer.engines.micro_batch import MicroBatch
from sweep_trainer.interruption import Interrupted


def rows_to(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return str(path)


def sources(tmp_path: Path, **files: list[dict[str, Any]]) -> dict[str, Any]:
    listed = [{"name": name, "files": [rows_to(tmp_path / f"{name}.jsonl", rows)]} for name, rows in files.items()]
    return {"sources": listed, "validation_tokens": 1024, "validation_share": 0.3}


def asked_for(tmp_path: Path, steps: int = 10, **fields: Any) -> RunOrder:
    training = Training.model_validate(
        {"sequence_length": 32, "batch_tokens": 256, "checkpoint_seconds": 3600, "model": {"layers": 1}} | fields
    )
    return order_of(training, 9_000, (steps,), tmp_path)


def letters(letter: str, count: int = 300) -> list[dict[str, Any]]:
    return [{"text": f"{letter * 40}{i}"} for i in range(count)]


PAIRS = [{"prompt": f"{i}?", "chosen": "aaa" + str(i), "rejected": "bbbb" + str(i % 7)} for i in range(400)]
EXAMPLES = [{"prompt": f"say {i} ", "completion": "yes" if i % 2 else "no"} for i in range(600)]
QUIZ = [{"query": "aaaa", "choices": ["bbb", "aaa"], "answer": 1}] * 3
CLOZE = [{"prompt": "aaaaaaa", "completion": "aaa"}, {"prompt": "bbbb", "completion": "zzzz"}]


def watched(tmp_path: Path) -> dict[str, Any]:
    tasks = [
        {"name": "quiz", "kind": "MultipleChoice", "data": rows_to(tmp_path / "quiz.jsonl", QUIZ)},
        {"name": "cloze", "kind": "Cloze", "data": rows_to(tmp_path / "cloze.jsonl", CLOZE), "limit": 1},
    ]
    data = sources(tmp_path, a=letters("a"), b=letters("b"))
    return {"data": data, "evaluation": {"every": 0.25, "tasks": tasks}, "document_mask": True}


def test_a_mixture_is_measured_source_by_source_and_task_by_task_and_resumes_exactly(tmp_path: Path) -> None:
    order = asked_for(tmp_path, steps=24, **watched(tmp_path))
    carried_out(order)
    (record,) = records_of(order).values()
    assert [domain.name for domain in record.domains] == ["a", "b"]
    assert record.loss == pytest.approx(np.mean([domain.loss for domain in record.domains]), rel=0.01)
    assert sum(domain.tokens for domain in record.domains) == record.tokens
    assert record.context_length == 32
    assert str(record.attention).startswith("Sdpa ")
    quiz, cloze = record.evaluations
    assert (quiz.questions, quiz.accuracy) == (3, 1.0)
    assert cloze.questions == 1
    assert 0 < (cloze.loss or 0) < math.log(256)
    points = [point for point in curve_of(order) if "validationLoss" in point]
    assert [point["step"] for point in points] == [6, 12, 18]
    assert points[0]["perplexity"] == pytest.approx(math.exp(points[0]["validationLoss"]))
    assert set(points[0]["domains"]) == {"a", "b"}
    other = moved(order, tmp_path / "stopped")
    with pytest.raises(Interrupted):
        carried_out(other, AfterLooks(13))
    again = other.changed(attempt=2)
    carried_out(again)
    assert curve_of(again) == curve_of(order)
    assert records_of(again)[record.tokens].evaluations == record.evaluations


def test_the_configuration_beside_the_checkpoints_repeats_the_run(tmp_path: Path) -> None:
    order = asked_for(tmp_path, data=sources(tmp_path, a=letters("a")))
    carried_out(order)
    kept = json.loads((tmp_path / "storage" / "configuration.json").read_text())
    assert kept["resolved"]["shape"]["width"] > 0
    assert {"trainer", "torch", "numpy"} <= set(kept["versions"])
    again = moved(RunOrder.model_validate(kept["order"]), tmp_path / "again")
    carried_out(again)
    assert [r.loss for r in records_of(again).values()] == [r.loss for r in records_of(order).values()]


def test_fine_tuning_starts_from_weights_and_learns_the_completions_alone(tmp_path: Path) -> None:
    first = asked_for(tmp_path / "first", data=sources(tmp_path, a=letters("a")))
    carried_out(first)
    weights = next((tmp_path / "first" / "storage").glob("model-*.safetensors"))
    data = sources(tmp_path, answers=EXAMPLES)
    fields = {"objective": {"kind": "FineTuning", "start_from": str(weights)}, "document_mask": True}
    order = asked_for(tmp_path / "tuned", steps=30, data=data, **fields)
    carried_out(order)
    (record,) = records_of(order).values()
    assert record.loss < 2.5
    prepared = prepare(order.training, tmp_path, tmp_path / "tuned" / "cache")
    rows = prepared.batch(0, 0, 8)
    predicted = bytes(rows[rows > 0].astype(np.uint8)).decode()
    assert set(predicted) <= set("yesno")
    assert "say" in bytes(np.where(rows < 0, ~rows, rows).astype(np.uint8).flatten()).decode()
    exported = asked_for(
        tmp_path / "third",
        data=data,
        objective={"kind": "FineTuning", "start_from": str(next((tmp_path / "first" / "storage").glob("export-*")))},
    )
    assert train(str(written(exported))) == ExitStatus.DONE


def test_a_base_that_changed_under_the_same_name_is_refused_and_each_record_tells_which_one_it_began_from(
    tmp_path: Path,
) -> None:
    first = asked_for(tmp_path / "first", data=sources(tmp_path, a=letters("a")))
    carried_out(first)
    assert next(iter(records_of(first).values())).start_digest is None
    found = next((tmp_path / "first" / "storage").glob("model-*.safetensors"))
    base = tmp_path / "base.safetensors"
    base.write_bytes(found.read_bytes())
    digest = "sha256:" + hashlib.sha256(base.read_bytes()).hexdigest()
    fields = {"data": sources(tmp_path, answers=EXAMPLES)}
    order = asked_for(tmp_path / "tuned", objective={"kind": "FineTuning", "start_from": str(base)}, **fields)
    carried_out(order)
    (record,) = records_of(order).values()
    assert record.start_digest == digest
    weights = load_file(base)
    weights["norm"] = weights["norm"] + 1
    save_file(weights, base)
    again = order.changed(attempt=2, report=str(tmp_path / "tuned" / "another"))
    assert train(str(written(again))) == ExitStatus.BAD_CONFIGURATION
    message = failure_of(again).message
    assert f'startFrom\'s weights: "{digest}", now "sha256:' in message
    assert "give this one a folder of its own" in message


def test_weights_of_another_shape_are_refused_by_the_tensor_that_differs(tmp_path: Path) -> None:
    first = asked_for(tmp_path / "first", data=sources(tmp_path, a=letters("a")))
    carried_out(first)
    weights = next((tmp_path / "first" / "storage").glob("model-*.safetensors"))
    fields = {"data": sources(tmp_path, answers=EXAMPLES), "model": {"layers": 2}}
    for start, sentence in ((weights, "is 256×"), (tmp_path / "gone", "cannot be read")):
        order = asked_for(tmp_path / "other", objective={"kind": "FineTuning", "start_from": str(start)}, **fields)
        assert train(str(written(order))) == ExitStatus.BAD_CONFIGURATION
        assert failure_of(order).reason is FailureReason.BAD_CONFIGURATION
        assert sentence in failure_of(order).message
        assert len(failure_of(order).message.splitlines()) == 1


def test_a_reward_model_computes_whole_pairs_whatever_the_size_of_its_pieces(tmp_path: Path) -> None:
    data = sources(tmp_path, answers=PAIRS)
    curves = []
    for pieces in ({}, {"micro_batch": 2}):
        order = asked_for(tmp_path / str(len(pieces)), data=data, objective={"kind": "RewardModel"}, **pieces)
        carried_out(order)
        curves.append([point["loss"] for point in curve_of(order)])
    assert curves[0][:3] == pytest.approx(curves[1][:3], rel=0.02)  # the first step of Adam magnifies rounding
    micro = MicroBatch(None, 2)
    assert [micro.halve(12) and micro.sequences for _ in range(4)] == [6, 4, 2, False]


def test_a_kernel_that_cannot_run_ends_the_run_before_its_first_step(tmp_path: Path) -> None:
    order = asked_for(tmp_path, data=sources(tmp_path, a=letters("a")), attention="Fa2", precision="bf16")
    assert train(str(written(order))) == ExitStatus.BAD_CONFIGURATION
    assert failure_of(order).message.startswith("attention Fa2 needs a CUDA device")
    assert not list(Path(order.storage).glob("checkpoint-*"))


def test_a_reward_model_learns_which_answer_is_better(tmp_path: Path) -> None:
    data = sources(tmp_path, answers=PAIRS)
    order = asked_for(tmp_path, steps=25, data=data, objective={"kind": "RewardModel"})
    carried_out(order)
    (record,) = records_of(order).values()
    assert record.loss < 0.5 * math.log(2)
    assert curve_of(order)[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "line", "sentence"),
    [
        ("quiz", '{"query": "a"}', "question 1 is not"),
        ("quiz", '{"query": "a", "choices": ["b"], "answer": 1}', "question 1 is not"),
        ("quiz", '{"query": "a", "choices": ["\\ud800"], "answer": 0}', "question 1 is not"),
        ("quiz", json.dumps({"query": "a", "choices": ["b" * 99], "answer": 0}), "has an answer of 99 tokens"),
        ("quiz", "", "holds no questions"),
        ("gone", "", "cannot be read"),
    ],
)
def test_a_task_that_cannot_be_asked_is_refused_before_the_first_step(
    name: str, line: str, sentence: str, tmp_path: Path
) -> None:
    fields = watched(tmp_path)
    (tmp_path / "quiz.jsonl").write_text(line + "\n")
    fields["evaluation"]["tasks"][0]["data"] = str(tmp_path / f"{name}.jsonl")
    with pytest.raises(ValueError, match=sentence):
        prepare(asked_for(tmp_path, **fields).training, tmp_path, tmp_path / "cache")


def test_examples_longer_than_a_sequence_are_left_out_and_too_many_of_them_are_refused(tmp_path: Path) -> None:
    long = [{"prompt": "p" * 40, "completion": "c"}]
    few = asked_for(tmp_path, data=sources(tmp_path, few=EXAMPLES + long), objective={"kind": "FineTuning"})
    prepare(few.training, tmp_path, tmp_path / "cache")
    index = json.loads(next((tmp_path / "cache").glob("few-*/index.json")).read_text())
    assert index["leftOut"] == 1
    many = asked_for(tmp_path, data=sources(tmp_path, many=EXAMPLES[:5] + long * 9), objective={"kind": "FineTuning"})
    with pytest.raises(ValueError, match="9 of 14 examples are longer than a sequence of 32 tokens; raise"):
        prepare(many.training, tmp_path, tmp_path / "cache")


def test_an_answer_that_ends_a_row_keeps_its_last_token_within_the_sequence() -> None:
    from sweep_analysis.objective import Objective

    layout = Layout(Objective(kind="RewardModel"), 8, end=0)
    a, b = np.arange(1, 4), np.arange(4, 8)
    (unit,) = layout.laid([(a, b, b[:2]), (a, np.arange(20), b)])
    assert unit.reshape(2, 9).tolist() == [[1, 2, 3, 4, 5, 6, 7, 0, ~0], [1, 2, 3, 4, 5, 0, ~0, ~0, ~0]]
    assert layout.left_out == 1
