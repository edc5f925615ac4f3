"""Fine-tuning's loss is the mean over the counted tokens of the whole batch, however pieces and processes share it."""

import json
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest
import torch
from several_ranks import LENGTH, SEQUENCES, Case, asked, batch, together

from sweep_trainer.counted import against_others, count_of, predicted
from sweep_trainer.engines.micro_batch import MicroBatch
from sweep_trainer.engines.plain import PlainTorch
from sweep_trainer.engines.ranks import ALONE, Ranks
from sweep_trainer.model import targets

TUNING = json.dumps(
    {"objective": {"kind": "FineTuning"}, "data": {"sources": [{"name": "answers", "files": ["/none.jsonl"]}]}}
)
STEPS = 3


def tuning(micro_batch: int | None = None, engine: str = "Torch", stage: int = 0, world: int = 1) -> Case:
    return Case(engine, stage, world, micro_batch=micro_batch, recipe=TUNING)


def gradient_after_one_step(case: Case) -> tuple[float, float, np.ndarray]:
    """Loss, norm, and the first moment, which is a tenth of the clipped gradient."""
    engine = PlainTorch(case.hyper, 0, 1, execution=case.training)
    engine.step(asked(0), 1e-3)
    ((loss, norm),) = engine.measured()
    state = engine.state()
    moments = [state[name].ravel() for name in sorted(state) if name.startswith("mean.")]
    return loss, norm, np.concatenate(moments)


def test_a_step_cut_into_one_two_or_four_pieces_has_the_same_loss_and_gradient() -> None:
    whole = gradient_after_one_step(tuning())
    assert np.abs(whole[2]).max() > 1e-3
    for size in (SEQUENCES // 2, SEQUENCES // 4, 3):
        loss, norm, moment = gradient_after_one_step(tuning(size))
        assert loss == pytest.approx(whole[0], abs=2e-6)
        assert norm == pytest.approx(whole[1], rel=1e-5)
        np.testing.assert_allclose(moment, whole[2], atol=1e-7)


def test_the_loss_is_the_mean_over_the_tokens_that_are_predicted() -> None:
    engine = PlainTorch(tuning(2).hyper, 0, 1, execution=tuning(2).training)
    given, wanted = targets(torch.from_numpy(asked(0)))
    with torch.no_grad():
        chances = engine.model(given).log_softmax(-1)
    kept = wanted >= 0
    by_hand = -chances[kept].gather(1, wanted[kept][:, None]).mean().item()
    engine.step(asked(0), 1e-3)
    assert engine.measured()[0][0] == pytest.approx(by_hand, abs=1e-5)
    assert int(kept.sum()) == predicted(asked(0)) < SEQUENCES * LENGTH


def test_pieces_weigh_as_many_tokens_as_they_predict_and_of_text_as_many_sequences_as_they_hold() -> None:
    tokens = np.array([[5, 5, 5], [~5, ~5, 5], [~5, 5, 5], [5, ~5, 5]])
    weights = [weight for _, weight in MicroBatch(2, count=predicted).pieces(tokens)]
    assert weights == [3 / 6, 3 / 6]
    assert [weight for _, weight in MicroBatch(1, count=predicted).pieces(tokens)] == [2 / 6, 1 / 6, 2 / 6, 1 / 6]
    assert count_of(Case().hyper)(batch(0)) == SEQUENCES
    assert against_others(tokens, predicted, ALONE) == 1.0


def test_a_rank_with_more_predicted_tokens_than_the_others_weighs_more() -> None:
    class OneOfTwo(Ranks):
        """The other rank counts twice as much."""

        def mean(self, values: list[float]) -> list[float]:
            return [1.5 * value for value in values]

    assert against_others(asked(0), predicted, OneOfTwo(0, 2)) == pytest.approx(2 / 3)
    assert against_others(batch(0), len, OneOfTwo(0, 2)) == 1.0


@pytest.mark.slow
def test_engines_and_processes_agree_on_the_loss_of_fine_tuning_to_five_decimals(
    processes: ForkServerContext, tmp_path: Path
) -> None:
    alone = [tuning(), tuning(4), *(tuning(4, "DeepSpeed", stage) for stage in (0, 2, 3))]
    shared = [
        tuning(world=2),
        tuning(2, world=2),
        *(tuning(2, "DeepSpeed", stage, world=2) for stage in (1, 3)),
    ]
    measured = together(processes, [(case, STEPS, None, None) for case in alone], tmp_path)
    measured |= together(processes, [(case, STEPS, None, None) for case in shared], tmp_path)
    for case in (*alone, *shared):
        np.testing.assert_allclose(measured[case.name], measured[tuning().name], atol=1e-5, err_msg=case.name)
