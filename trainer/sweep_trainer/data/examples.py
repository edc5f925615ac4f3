"""From documents to what a sequence holds: a stream of text, whole examples packed, answers in pairs.

Owns the layout of tokens for each objective. A token that is not to be predicted stands as ~id (`model.targets`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sweep_analysis.objective import Objective
from sweep_trainer.data.tokenizers import Ids


@dataclass
class Layout:
    """Turns documents of an objective into arrays that shards are made of."""

    objective: Objective
    sequence_length: int
    end: int
    left_out: int = 0
    """Examples that were longer than a sequence."""
    taken: int = 0

    @property
    def fields(self) -> tuple[str, ...]:
        """Keys or columns that make up a document; of plain text, the source's own."""
        o = self.objective
        return {
            "Pretraining": (),
            "FineTuning": (o.prompt, o.completion),
            "RewardModel": (o.prompt, o.chosen, o.rejected),
        }[o.kind]

    @property
    def rows_in_unit(self) -> int:
        """As `batches.Stream` counts them."""
        return {"Pretraining": 0, "FineTuning": 1, "RewardModel": 2}[self.objective.kind]

    @property
    def signed(self) -> bool:
        """Whether some tokens are not to be predicted."""
        return self.rows_in_unit > 0

    def laid(self, documents: Sequence[tuple[Ids, ...]]) -> Iterator[Ids]:
        """The tokens of documents, in order: streams to be laid end to end, or whole units."""
        if self.objective.kind == "Pretraining":
            for (text,) in documents:
                yield np.append(text, self.end)
        elif self.objective.kind == "FineTuning":
            yield from self._packed(documents)
        else:
            for prompt, chosen, rejected in documents:
                rows = [self._answer(prompt, answer) for answer in (chosen, rejected)]
                if any(row is None for row in rows):
                    self.left_out += 1
                    continue
                self.taken += 1
                yield np.concatenate([row for row in rows if row is not None])

    def _packed(self, documents: Sequence[tuple[Ids, ...]]) -> Iterator[Ids]:
        """Rows of T + 1 tokens of whole examples, one after another while they fit; the rest is padding."""
        width = self.sequence_length + 1
        row: list[Ids] = []
        for prompt, completion in documents:
            example = np.concatenate([~prompt.astype(np.int32), completion.astype(np.int32), [self.end]])
            if len(example) > width:
                self.left_out += 1
                continue
            self.taken += 1
            if sum(map(len, row)) + len(example) > width:
                yield self._padded(row)
                row = []
            row.append(example.astype(np.int32))
        if row:
            yield self._padded(row)

    def _answer(self, prompt: Ids, answer: Ids) -> Ids | None:
        """One row: prompt, answer, end, padding; None where the score's token would fall off the sequence."""
        tokens = np.concatenate([prompt.astype(np.int32), answer.astype(np.int32), [self.end]]).astype(np.int32)
        return self._padded([tokens]) if len(tokens) <= self.sequence_length else None

    def _padded(self, row: list[Ids]) -> Ids:
        padding = np.full(self.sequence_length + 1 - sum(map(len, row)), ~self.end, np.int32)
        return np.concatenate([*row, padding])
