"""What is measured of a model while it trains: validation loss of each source and of all, and tasks.

Owns the batches of an evaluation, always the same over the same tokens, and their sum. Says nothing to anybody: the
loop notes and reports.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sweep_analysis.measure import DomainLoss, Task, TaskResult
from sweep_analysis.recipe import Hyperparameters, Training, document_end_of
from sweep_trainer.counted import count_of
from sweep_trainer.data import Prepared
from sweep_trainer.data.batches import Read
from sweep_trainer.data.tasks import Questions, questions_of
from sweep_trainer.engines.protocol import Batch, Engine
from sweep_trainer.engines.ranks import Ranks

_TOKENS = 4_096
"""At most so many tokens are evaluated on one device between two looks at what else is due."""


@dataclass(frozen=True)
class Losses:
    """Validation cross-entropy, nats per token."""

    total: float
    by_domain: dict[str, float]


@dataclass(frozen=True)
class Evaluator:
    """The measurements of one run."""

    training: Training
    hyper: Hyperparameters
    data: Prepared
    engine: Engine
    ranks: Ranks
    tasks: tuple[Questions, ...]

    @classmethod
    def of(
        cls, training: Training, hyper: Hyperparameters, data: Prepared, engine: Engine, ranks: Ranks
    ) -> "Evaluator":
        """Reads the tasks' files; raises DataError for one that cannot be asked."""
        evaluator = cls(training, hyper, data, engine, ranks, questions_of(training))
        if evaluator._others:
            from sweep_trainer.lm_eval import check  # imports lm-eval, for these tasks alone

            check(evaluator._others)
        return evaluator

    @property
    def _others(self) -> list[Task]:
        """The tasks that lm-eval has."""
        named = self.training.evaluation.tasks if self.training.evaluation else ()
        return [task for task in named if task.kind == "LmEval"]

    def losses(self, look: Callable[[], None]) -> Losses:
        """Over all validation tokens; `look` is called between batches and may raise. All ranks call."""
        count = count_of(self.hyper)
        nats = {domain.name: 0.0 for domain in self.data.domains}
        at_once = max(1, _TOKENS // self.hyper.sequence_length)
        whole = self.ranks.world
        if self.hyper.shape.scalar_head:  # answers in pairs
            at_once, whole = max(2, at_once - at_once % 2), 2 * whole
        for domain in self.data.domains:
            windows = self.data.validation[domain.first : domain.stop]
            start = 0
            while left := len(windows) - start:
                shared = left >= whole  # a rest that does not divide is every rank's, and their mean is the same
                together = min(left, at_once * self.ranks.world) // whole * whole if shared else min(left, at_once)
                batch = windows[start : start + together]
                look()
                mine = batch[self.ranks.share(len(batch))] if shared else batch
                times = self.ranks.world if shared else 1
                nats[domain.name] += self.engine.evaluate(mine) * (count(mine) * times)
                start += together
        sums = self.ranks.mean(list(nats.values()))
        sizes = [count(self.data.validation[domain.first : domain.stop]) for domain in self.data.domains]
        by_domain = {name: nats / size for name, nats, size in zip(nats, sums, sizes, strict=True)}
        return Losses(sum(sums) / sum(sizes), by_domain)

    def domains(self, losses: Losses, read: Sequence[Read]) -> tuple[DomainLoss, ...]:
        """Loss and reading of each source, where there are several."""
        if len(self.data.domains) == 1:
            return ()
        return tuple(
            DomainLoss(name=one.name, loss=losses.by_domain[one.name], tokens=one.tokens, epochs=one.epochs)
            for one in read
        )

    def answers(self, look: Callable[[], None]) -> tuple[TaskResult, ...]:
        """Every task; all ranks call, and each asks every question."""
        end = document_end_of(self.training)

        def likelihood(rows: Batch) -> list[tuple[float, bool]]:
            look()
            return self.engine.likelihood(rows)

        results = [questions.ask(likelihood, end) for questions in self.tasks]
        if self._others:
            from sweep_trainer.lm_eval import measured

            results += measured(self._others, self.training, likelihood)
        return tuple(results)

    @property
    def interval(self) -> int | None:
        """Steps between two measurements of the validation loss during training; None where none was asked for."""
        watched = self.training.evaluation
        return max(1, round(watched.every * self.hyper.trained_steps)) if watched else None
