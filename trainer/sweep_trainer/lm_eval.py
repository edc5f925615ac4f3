"""Tasks of EleutherAI's lm-eval, asked of a model in training.

Owns the adapter between its requests and an engine's likelihoods. Tasks that generate text are refused: they measure
little at the sizes of a ladder, and cost much.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from sweep_analysis.document import digest_of
from sweep_analysis.measure import Task, TaskResult
from sweep_analysis.recipe import Training
from sweep_trainer.corpus import BadDataError, DataError
from sweep_trainer.data.tasks import Likelihood, in_batches, padded, row_of
from sweep_trainer.data.tokenizers import tokenizer_of


class Adapter(LM):  # type: ignore[misc]  # lm-eval ships no types
    """What lm-eval calls a model."""

    def __init__(self, training: Training, likelihood: Likelihood) -> None:
        super().__init__()
        self._tokenizer = tokenizer_of(training)
        self._length = training.sequence_length
        self._likelihood = likelihood

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """ln p of each continuation given its context, and whether it is the greedy one."""
        rows = []
        for request in requests:
            context, answer = self._tokenizer.ids(request.args)
            rows.append(row_of(context if len(context) else self._end, answer[-self._length :], self._length))
        scored: list[tuple[float, bool]] = []
        for batch in in_batches(rows, self._tokenizer.end):
            scored += self._likelihood(batch)
        return [(-nats, right) for nats, right in scored]

    @property
    def _end(self) -> Any:
        import numpy as np

        return np.array([self._tokenizer.end])

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """ln p of whole texts, in stretches of a sequence."""
        totals = []
        for request in requests:
            (ids,) = self._tokenizer.ids(request.args[:1])
            stretches = [ids[at : at + self._length] for at in range(0, len(ids), self._length)]
            rows = [row_of(self._end, stretch, self._length) for stretch in stretches]
            totals.append(-sum(self._likelihood(padded([row], self._tokenizer.end))[0][0] for row in rows))
        return totals

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Refused."""
        raise BadDataError("a task of kind LmEval generates text; name one that scores likelihoods")


@cache
def _manager(folder: str | None) -> Any:
    """What finds tasks, lm-eval's own and those that a folder defines; it reads thousands of files."""
    return TaskManager(include_path=folder)


def check(tasks: Sequence[Task]) -> None:
    """Load each task with its data, before anything is trained.

    Raises BadDataError for a name that is no single task and for a task that measures no accuracy by likelihoods,
    DataError where its data cannot be had.
    """
    for task in tasks:
        manager = _manager(task.data)
        if task.name not in manager.all_subtasks:
            near = ", ".join(get_close_matches(task.name, manager.all_subtasks)) or "none"
            what = "has several tasks by the name of" if task.name in manager.all_tasks else "has no task"
            raise BadDataError(f"lm-eval {what} {task.name}; name one that it has (near ones: {near})")
        try:
            loaded = manager.load(task.name)["tasks"][task.name]
        except Exception as error:  # it raises what `datasets` and its own files raise
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise DataError(f"task {task.name} of lm-eval cannot be loaded ({said})") from error
        if loaded.OUTPUT_TYPE == "generate_until":
            raise BadDataError(f"task {task.name} of lm-eval generates text; name one that scores likelihoods")
        if "acc" not in loaded.aggregation():
            raise BadDataError(f"task {task.name} of lm-eval has no accuracy; name one that has")


def measured(tasks: Sequence[Task], training: Training, likelihood: Likelihood) -> list[TaskResult]:
    """Each task's accuracy; `data` is a folder of task definitions besides lm-eval's own."""
    adapter = Adapter(training, likelihood)
    results = []
    for task in tasks:
        manager = _manager(task.data)
        found = simple_evaluate(adapter, tasks=[task.name], limit=task.limit, task_manager=manager, bootstrap_iters=0)
        scores = found["results"][task.name]
        if "acc,none" not in scores:
            raise BadDataError(f"task {task.name} of lm-eval has no accuracy; name one that has")
        results.append(
            TaskResult(
                name=task.name,
                kind=task.kind,
                questions=found["n-samples"][task.name]["effective"],
                accuracy=scores["acc,none"],
                normalized_accuracy=scores.get("acc_norm,none"),
                data_digest=digest_of({"task": task.name, "version": found["versions"][task.name]}),
            )
        )
    return results
