"""A rung says what to train: the runs of one step of the ladder, and the order that a trainer is given.

Owns the vocabulary between planner, operator and trainer. What came out is a record (`record.py`).
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from sweep_analysis.document import Document
from sweep_analysis.recipe import Hyperparameters, Training, at_context, resolve


class Purpose(StrEnum):
    """Why a run exists; decides what its records may be used for."""

    LADDER = "Ladder"
    DIAGNOSIS = "Diagnosis"
    TARGET = "Target"
    IMPORTED = "Imported"
    CONTEXT = "Context"
    """Of another context length than the target's: for the law of context, never for the gate's."""


class Run(Document):
    """One training run: a model of `parameters`, with a record due at each of `tokens`. Its identity is its digest."""

    parameters: int = Field(gt=0)
    """N, all trainable parameters, exactly as they will be counted in the record."""
    tokens: tuple[int, ...] = Field(min_length=1, max_length=16)
    """D, training tokens, ascending; a record is due at each."""
    seed: int = Field(default=0, ge=0)
    """Of initial weights and the order of the data."""
    purpose: Purpose = Purpose.LADDER
    learning_rate_factor: float = Field(default=1.0, gt=0)
    """Multiplies the recipe's learning rate; other than 1 in diagnosis runs and where a rung was retuned."""

    sequence_length: int | None = Field(default=None, ge=8, le=65_536)
    """Context in tokens where it is not the recipe's own, with purpose Context."""

    def recipe(self, training: Training) -> Training:
        """The sweep's recipe as this run follows it."""
        return training if self.sequence_length is None else at_context(training, self.sequence_length)

    def resolved(self, training: Training) -> Hyperparameters:
        """Every hyperparameter of this run under the sweep's recipe. Raises ValueError where `resolve` does."""
        return resolve(self.recipe(training), self.parameters, self.tokens, self.learning_rate_factor)

    @property
    def flops(self) -> float:
        """Upper bound of 6·N·D over the run, its decay branches counted as if each were a run of its own."""
        return 6.0 * self.parameters * sum(self.tokens)


class Rung(Document):
    """One step of the ladder: the runs that are trained together and judged together."""

    name: str
    runs: tuple[Run, ...] = Field(min_length=1, max_length=64)

    @property
    def judged(self) -> tuple[Run, ...]:
        """The runs that are forecast and judged: those of the target's context length."""
        return judged(self.runs)


def judged(runs: Iterable[Run]) -> tuple[Run, ...]:
    """Of runs, those whose records a law of parameters and tokens may be fitted to."""
    return tuple(run for run in runs if run.purpose is not Purpose.CONTEXT)


class RunOrder(Document):
    """All that a trainer is told: which run, by which recipe, where to keep its state and where to report.

    `storage` holds checkpoints and curves and is private to the run; `report` receives progress, records and failures.
    """

    uid: str
    name: str
    attempt: int = Field(ge=1)
    run: Run
    training: Training
    """The run's own recipe: the sweep's, at the run's context length where it has one."""
    config_digest: str
    """Digest of the resolved hyperparameters and the data; a checkpoint of another configuration is refused."""
    storage: str
    report: str
    cache: str
    """Folder for prepared data, shared by all runs."""
    threads: int = Field(default=1, ge=1)
    workers: int = Field(default=1, ge=1, le=65_536)
    """Data-parallel processes, one a device. Several are started by Ray, here or on the cluster that `ray` names,
    unless a launcher has started this process as one of them (torchrun's RANK and WORLD_SIZE)."""
    ray: str | None = Field(default=None, max_length=1024)
    """Address of a Ray cluster to train on, or `local` for one of this process's own; None trains without Ray where one
    worker is enough."""

    @model_validator(mode="after")
    def _one_context(self) -> Self:
        asked, given = self.run.sequence_length, self.training.sequence_length
        if asked is not None and asked != given:
            raise ValueError(f"run.sequenceLength is {asked} and training.sequenceLength is {given}; set both to one")
        return self
