"""What is measured while a model trains: validation on a schedule, and tasks from local files.

Owns the vocabulary of `training.evaluation` and of a record's evaluations. Measures nothing.
"""

from typing import Literal

from pydantic import Field

from sweep_analysis.document import Document
from sweep_analysis.sources import File

TaskKind = Literal["MultipleChoice", "Cloze", "LmEval"]


class Task(Document):
    """One downstream measurement, taken at every record."""

    name: str = Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9_]*[a-z0-9])?$")
    """Under which results are told."""
    kind: TaskKind
    """MultipleChoice: the choice with the largest likelihood is the answer; lines of {query, choices, answer}.
    Cloze: the completion's likelihood, and whether it is the most likely text; lines of {prompt, completion}.
    LmEval: a task of EleutherAI's lm-eval, where that is installed and finds its data."""
    data: File | None = None
    """JSON lines; for LmEval left out, `name` is the task then."""
    limit: int | None = Field(default=None, ge=1, le=1_000_000)
    """At most so many of the questions, from the first."""


class Evaluation(Document):
    """What is watched beside the training loss."""

    every: float = Field(default=0.1, gt=0, le=1)
    """Validation loss is measured after each such share of the run's steps, and goes into the learning curve."""
    tasks: tuple[Task, ...] = Field(default=(), max_length=64)
    """Downstream measurements."""


class TaskResult(Document):
    """One task at one record."""

    name: str = Field(max_length=63)
    """Of the task."""
    kind: TaskKind
    """Of the task."""
    questions: int = Field(ge=1)
    """How many were asked."""
    accuracy: float = Field(ge=0, le=1)
    """MultipleChoice: by total likelihood. Cloze: the completion is at each token the most likely one."""
    normalized_accuracy: float | None = Field(default=None, ge=0, le=1)
    """MultipleChoice: by likelihood per byte of the choice."""
    loss: float | None = Field(default=None, ge=0)
    """Nats per token of the right answer or completion."""
    data_digest: str = Field(max_length=80)
    """Of the questions."""


class DomainLoss(Document):
    """Validation loss and reading of one source of the mixture."""

    name: str = Field(max_length=63)
    """Of the source."""
    loss: float = Field(gt=0)
    """Validation cross-entropy, nats per token."""
    tokens: int = Field(ge=0)
    """Training tokens read of it so far."""
    epochs: float = Field(ge=0)
    """Those divided by what it holds."""
