"""The adapter to lm-eval, asked with a task that is defined in a local folder."""

import json
from pathlib import Path

import numpy as np
import pytest

from sweep_analysis.measure import Task
from sweep_analysis.recipe import Training

pytest.importorskip("lm_eval", reason="lm-eval is not installed")

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


def test_a_task_of_lm_eval_is_answered_by_the_models_likelihoods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweep_trainer.lm_eval import measured

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    questions = [{"q": "aaaa", "c": ["bbb", "aaa"], "a": right} for right in (1, 1, 1, 0)]
    (tmp_path / "quiz.jsonl").write_text("\n".join(map(json.dumps, questions)) + "\n")
    (tmp_path / "quiz.yaml").write_text(TASK.replace("FILE", str(tmp_path / "quiz.jsonl")))
    training = Training.model_validate(
        {"data": {"sources": [{"name": "a", "files": ["a.jsonl"]}]}, "sequence_length": 32}
    )

    def likes_a(rows: np.ndarray) -> list[tuple[float, bool]]:
        return [(1.0 + float((row[row >= 0] != ord("a")).sum()), False) for row in rows]

    (result,) = measured([Task(name="local_quiz", kind="LmEval", data=str(tmp_path))], training, likes_a)
    assert (result.questions, result.accuracy, result.normalized_accuracy) == (4, 0.75, 0.75)
