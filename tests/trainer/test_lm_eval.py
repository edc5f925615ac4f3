"""The adapter to lm-eval, asked with a task that is defined in a local folder."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny_run import carried_out, failure_of, order_of, records_of, written

from sweep_analysis.measure import Evaluation, Task
from sweep_analysis.recipe import Training
from sweep_analysis.record import ExitStatus, FailureReason
from sweep_trainer.__main__ import train

TaskManager = pytest.importorskip("lm_eval.tasks", reason="lm-eval is not installed").TaskManager

TASK = """task: local_quiz
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{q}}"
doc_to_choice: "{{c}}"
doc_to_target: "{{a}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
metadata: {version: 1.0}
"""


@pytest.fixture
def quiz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that defines a task of four questions; nothing of it is on any hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    questions = [{"q": "aaaa", "c": ["bbb", "aaa"], "a": right} for right in (1, 1, 1, 0)]
    (tmp_path / "quiz.jsonl").write_text("\n".join(map(json.dumps, questions)) + "\n")
    (tmp_path / "quiz.yaml").write_text(TASK.replace("FILE", str(tmp_path / "quiz.jsonl")))
    return tmp_path


def test_a_task_of_lm_eval_is_answered_by_the_models_likelihoods(quiz: Path) -> None:
    from sweep_trainer.lm_eval import measured

    training = Training.model_validate(
        {"data": {"sources": [{"name": "a", "files": ["a.jsonl"]}]}, "sequence_length": 32}
    )

    def likes_a(rows: np.ndarray) -> list[tuple[float, bool]]:
        return [(1.0 + float((row[row >= 0] != ord("a")).sum()), False) for row in rows]

    (result,) = measured([Task(name="local_quiz", kind="LmEval", data=str(quiz))], training, likes_a)
    assert (result.questions, result.accuracy, result.normalized_accuracy) == (4, 0.75, 0.75)


def test_a_runs_record_has_what_lm_eval_measured_of_its_model(quiz: Path, training: Training, tmp_path: Path) -> None:
    tasks = [{"name": "local_quiz", "kind": "LmEval", "data": str(quiz), "limit": 3}]
    asked = Training.model_validate(training.to_json() | {"evaluation": {"tasks": tasks}})
    order = order_of(asked, 7_000, (10,), tmp_path)
    carried_out(order)
    ((result,),) = (record.evaluations for record in records_of(order).values())
    assert (result.name, result.kind, result.questions) == ("local_quiz", "LmEval", 3)
    assert result.accuracy in (0.0, 1.0)  # the same question three times


@pytest.fixture
def own(quiz: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same without lm-eval's thousands of tasks, which take long to read."""
    monkeypatch.setattr("sweep_trainer.lm_eval.TaskManager", partial(TaskManager, include_defaults=False))
    return quiz


GENERATING = TASK.replace("local_quiz", "local_essay").replace("multiple_choice", "generate_until")
GENERATING = GENERATING.replace("[{metric: acc}, {metric: acc_norm}]", "[{metric: exact_match}]")
PERPLEXITY = TASK.replace("local_quiz", "local_text").replace("multiple_choice", "loglikelihood_rolling")
PERPLEXITY = PERPLEXITY.replace("[{metric: acc}, {metric: acc_norm}]", "[{metric: word_perplexity}]")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("local_quizz", r"lm-eval has no task local_quizz; name one that it has (near ones: local_quiz"),
        ("local_quizzes", "lm-eval has several tasks by the name of local_quizzes"),
        ("local_essay", "task local_essay of lm-eval generates text; name one that scores likelihoods"),
        ("local_text", "task local_text of lm-eval has no accuracy; name one that has"),
    ],
)
def test_a_task_that_lm_eval_cannot_ask_ends_the_run_before_its_first_step_with_status_2(
    name: str, sentence: str, own: Path, training: Training, tmp_path: Path
) -> None:
    for file, content in (("essay", GENERATING), ("text", PERPLEXITY)):
        (own / f"{file}.yaml").write_text(content.replace("FILE", str(own / "quiz.jsonl")))
    (own / "quizzes.yaml").write_text("group: local_quizzes\ntask: [local_quiz]\n")
    tasks = [{"name": name, "kind": "LmEval", "data": str(own)}]
    order = order_of(training.changed(evaluation=Evaluation(tasks=tasks)), 7_000, (10,), tmp_path)
    assert train(str(written(order))) == ExitStatus.BAD_CONFIGURATION
    assert sentence in failure_of(order).message
    assert not (Path(order.storage) / "configuration.json").exists()


def test_a_task_of_lm_eval_whose_data_are_gone_is_named(own: Path, training: Training, tmp_path: Path) -> None:
    (own / "quiz.jsonl").unlink()
    tasks = [{"name": "local_quiz", "kind": "LmEval", "data": str(own)}]
    order = order_of(training.changed(evaluation=Evaluation(tasks=tasks)), 7_000, (10,), tmp_path)
    assert train(str(written(order))) == ExitStatus.FAILED
    failure = failure_of(order)
    assert failure.reason is FailureReason.DATA_UNAVAILABLE
    assert failure.message.startswith("task local_quiz of lm-eval cannot be loaded (")
