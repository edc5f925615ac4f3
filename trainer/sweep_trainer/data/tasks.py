"""Questions from local files, as rows of tokens whose likelihood is the answer.

Owns reading and refusing them, before the first step, and the scores. A question is one row for each choice: what is
given is not predicted (~id), the choice is. Computes no likelihood: an engine does.
"""

import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep_analysis.measure import Task, TaskResult
from sweep_analysis.recipe import Training
from sweep_trainer.corpus import BadDataError, unreadable
from sweep_trainer.data.tokenizers import Tokenizer, tokenizer_of

Likelihood = Callable[[npt.NDArray[np.integer]], list[tuple[float, bool]]]
"""Nats of each row's predicted tokens, and whether each was the most likely one."""
_ROWS, _TOKENS = 32, 4_096
"""At most so many are computed together, for the logits of a whole vocabulary stand behind each token."""


@dataclass(frozen=True)
class Question:
    """Its choices as rows of tokens, and which is right."""

    rows: tuple[npt.NDArray[np.int64], ...]
    bytes: tuple[int, ...]
    """Length of each choice's text."""
    right: int = 0


@dataclass(frozen=True)
class Questions:
    """One task, ready to be asked."""

    task: Task
    questions: tuple[Question, ...]
    data_digest: str

    def ask(self, likelihood: Likelihood, end: int) -> TaskResult:
        """Score every choice of every question."""
        rows = [row for question in self.questions for row in question.rows]
        scored: list[tuple[float, bool]] = []
        for batch in in_batches(rows, end):
            scored += likelihood(batch)
        right = best = normal = 0
        nats, tokens, place = 0.0, 0, 0
        for question in self.questions:
            mine = scored[place : place + len(question.rows)]
            place += len(question.rows)
            costs = np.array([cost for cost, _ in mine])
            nats += costs[question.right]
            tokens += int((question.rows[question.right] >= 0).sum())
            best += int(costs.argmin()) == question.right
            normal += int((costs / question.bytes).argmin()) == question.right
            right += mine[question.right][1]
        choice = self.task.kind == "MultipleChoice"
        count = len(self.questions)
        return TaskResult(
            name=self.task.name,
            kind=self.task.kind,
            questions=count,
            accuracy=(best if choice else right) / count,
            normalized_accuracy=normal / count if choice else None,
            loss=nats / tokens,
            data_digest=self.data_digest,
        )


def questions_of(training: Training) -> tuple[Questions, ...]:
    """The recipe's tasks that come from files. Raises DataError for the first that cannot be asked."""
    tasks = training.evaluation.tasks if training.evaluation else ()
    if any(task.kind == "LmEval" for task in tasks) and importlib.util.find_spec("lm_eval") is None:
        raise BadDataError("a task of kind LmEval needs the package lm-eval; install it, or leave the task out")
    local = [task for task in tasks if task.kind != "LmEval"]
    tokenizer = tokenizer_of(training) if local else None
    return tuple(_read(task, tokenizer, training.sequence_length) for task in local if tokenizer)


def in_batches(rows: Iterable[npt.NDArray[np.int64]], end: int) -> Iterator[npt.NDArray[np.int64]]:
    """Rows in order, as many of one length together as one device surely holds; one at least."""
    taken: list[npt.NDArray[np.int64]] = []
    width = 0
    for row in rows:
        width = max(width, len(row))
        if taken and (len(taken) == _ROWS or (len(taken) + 1) * width > _TOKENS):
            yield padded(taken, end)
            taken, width = [], len(row)
        taken.append(row)
    if taken:
        yield padded(taken, end)


def padded(rows: Sequence[npt.NDArray[np.int64]], end: int) -> npt.NDArray[np.int64]:
    """Rows of one length; what is added is not predicted."""
    width = max(map(len, rows))
    return np.stack([np.concatenate([row, np.full(width - len(row), ~end)]) for row in rows])


def row_of(context: npt.NDArray[np.integer], answer: npt.NDArray[np.integer], length: int) -> npt.NDArray[np.int64]:
    """Context, not predicted, and answer; at most length + 1 tokens, the context's first ones going first."""
    kept = context.astype(np.int64)[max(0, len(context) + len(answer) - length - 1) :]
    return np.concatenate([~kept, answer.astype(np.int64)])


def _read(task: Task, tokenizer: Tokenizer, length: int) -> Questions:
    if task.data is None:
        raise BadDataError(f"task {task.name} names no data; a {task.kind} task reads a JSON lines file")
    try:
        content = Path(task.data).read_bytes()
    except OSError as error:
        raise unreadable(f"task {task.name}: {task.data}", error) from None
    lines = [line for line in content.splitlines() if line.strip()][: task.limit]
    if not lines:
        raise BadDataError(f"task {task.name}: {task.data} holds no questions")
    questions = tuple(_question(task, i + 1, line, tokenizer, length) for i, line in enumerate(lines))
    digest = "sha256:" + hashlib.sha256(b"\n".join(lines)).hexdigest()
    return Questions(task, questions, digest)


def _question(task: Task, number: int, line: bytes, tokenizer: Tokenizer, length: int) -> Question:
    where = f"task {task.name}: {task.data}, question {number}"
    try:
        document: dict[str, Any] = json.loads(line)
        if task.kind == "MultipleChoice":
            given, choices, right = document["query"], document["choices"], document["answer"]
        else:
            given, choices, right = document["prompt"], [document["completion"]], 0
        if not (isinstance(given, str) and choices and all(isinstance(c, str) and c for c in choices)):
            raise TypeError
        if not (isinstance(right, int) and 0 <= right < len(choices)):
            raise TypeError
        "".join([given, *choices]).encode()  # half a surrogate pair is no text
    except (ValueError, KeyError, TypeError, RecursionError):
        form = (
            '{"query": text, "choices": [text, …], "answer": number of the right one from 0}'
            if task.kind == "MultipleChoice"
            else '{"prompt": text, "completion": text}'
        )
        raise BadDataError(f"{where} is not {form}") from None
    context, *answers = tokenizer.ids([given, *choices])
    longest = max(map(len, answers))
    if longest > length:
        raise BadDataError(f"{where} has an answer of {longest:,} tokens, more than a sequence of {length:,}")
    if not len(context):
        context = np.array([tokenizer.end])
    rows = tuple(row_of(context, answer, length) for answer in answers)
    return Question(rows, tuple(len(c.encode()) for c in choices), right)
