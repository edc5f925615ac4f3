"""What a model learns: to continue text, to complete prompts, or to score answers.

Owns the vocabulary of `training.objective`. Trains nothing.
"""

import math
from typing import Literal

from pydantic import Field, model_validator

from sweep_analysis.document import Document
from sweep_analysis.sources import File

ObjectiveKind = Literal["Pretraining", "FineTuning", "RewardModel"]


class Objective(Document):
    """The loss, and the weights that training starts from."""

    kind: ObjectiveKind = "Pretraining"
    """Pretraining: every token of the text. FineTuning: the tokens of `completion`, given `prompt`. RewardModel: which
    of `chosen` and `rejected` answers `prompt` better, -ln σ of the difference of their scores (Ouyang et al. 2022,
    arXiv:2203.02155, equation 1)."""
    start_from: File | None = None
    """Weights of an earlier run: its `model-<tokens>.safetensors`, or the `export-<tokens>` folder. Random weights when
    left out. Its shape must be the one that this recipe builds."""
    prompt: str = Field(default="prompt", min_length=1, max_length=256)
    """Key or column of the data; so are the next three."""
    completion: str = Field(default="completion", min_length=1, max_length=256)
    chosen: str = Field(default="chosen", min_length=1, max_length=256)
    rejected: str = Field(default="rejected", min_length=1, max_length=256)

    @model_validator(mode="after")
    def _columns_of_its_kind(self) -> "Objective":
        used = {
            "Pretraining": set(),
            "FineTuning": {"prompt", "completion"},
            "RewardModel": {"prompt", "chosen", "rejected"},
        }[self.kind]
        fields = type(self).model_fields
        columns = {"prompt", "completion", "chosen", "rejected"} - used
        extra = sorted(name for name in columns if getattr(self, name) != fields[name].default)
        if extra:
            raise ValueError(f"objective.kind {self.kind} reads no {', '.join(extra)}; leave it out")
        return self

    def guessing(self, vocabulary: int) -> float:
        """Nats that a model loses which knows nothing: of the tokens, or of the two answers."""
        return math.log(2 if self.kind == "RewardModel" else vocabulary)
