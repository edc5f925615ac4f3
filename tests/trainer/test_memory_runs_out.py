"""Memory that runs out in the middle of a step: fewer sequences at a time from then on, and the same steps."""

from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest
from several_ranks import SEQUENCES, Case, together

from sweep_analysis.execution import DeepSpeed
from sweep_analysis.pieces import pieces_of
from sweep_analysis.recipe import Training, resolve, shape_of
from sweep_trainer import fewer
from sweep_trainer.engines.deepspeed_config import fewer as fewer_sequences
from sweep_trainer.engines.ranks import ALONE
from sweep_trainer.failure import BeginAgain, explain, out_of_memory
from sweep_trainer.storage import Folder

STEPS = 4
OUT = (4, 8)
"""Of steps in two pieces: in the second piece of the second step, whose first piece has left its gradient; then, in
four pieces, on the way back from the fourth of that step."""


@pytest.mark.slow
def test_on_every_engine_the_same_steps_are_taken_with_half_as_many_sequences_at_a_time(
    processes: ForkServerContext, tmp_path: Path
) -> None:
    starved = [
        Case(micro_batch=SEQUENCES // 2, runs_out=OUT),
        *(Case("DeepSpeed", stage, micro_batch=SEQUENCES // 2, runs_out=OUT) for stage in (0, 1, 2, 3)),
        Case("DeepSpeed", 2, precision="bf16", micro_batch=SEQUENCES // 2, runs_out=OUT),
    ]
    undisturbed = [Case(), Case("DeepSpeed", 2, precision="bf16", micro_batch=SEQUENCES // 2)]
    measured = together(processes, [(case, STEPS, None, None) for case in (*undisturbed, *starved)], tmp_path)
    for case in starved:
        like, within = (undisturbed[1], 0.01) if case.precision == "bf16" else (undisturbed[0], 1e-5)
        np.testing.assert_allclose(measured[case.name], measured[like.name], atol=within, err_msg=case.name)
        assert measured[case.name + " at a time"] == SEQUENCES // 8, case.name


def test_a_note_is_heeded_by_the_next_start_in_the_same_circumstances_alone(tmp_path: Path) -> None:
    storage, training = Folder(tmp_path), Case("DeepSpeed", 2, micro_batch=8).training
    assert fewer.heeded(storage, training, ALONE) is training
    fewer.note(storage, 4, training, ALONE)
    assert fewer.heeded(storage, training, ALONE).micro_batch == 4
    assert fewer.heeded(storage, training.changed(micro_batch=2), ALONE).micro_batch == 2
    roomier = training.changed(deepspeed=DeepSpeed(zero_stage=3))
    assert fewer.heeded(storage, roomier, ALONE) is roomier
    storage.put(fewer.NAME, b"half a n")
    assert fewer.heeded(storage, training, ALONE) is training


def test_a_rank_whose_memory_runs_out_while_others_wait_says_what_the_next_start_does() -> None:
    reason, sentence = explain(BeginAgain(4, 8))
    assert reason == "Crashed"
    assert sentence == (
        "the device's memory ran out at 8 sequences at a time; started again, the run takes 4 and goes on from the last"
        " checkpoint"
    )


def test_half_as_many_sequences_still_divide_a_ranks_share_and_keep_answers_in_pairs() -> None:
    case = Case("DeepSpeed", 1, micro_batch=16)
    assert [fewer_sequences(case.training.changed(micro_batch=n), case.hyper, 1) for n in (16, 8, 2, 1)] == [
        8,
        4,
        1,
        None,
    ]
    rewards = Training.model_validate(
        {
            "data": {"sources": [{"name": "answers", "files": ["/none.jsonl"]}]},
            "objective": {"kind": "RewardModel"},
            "sequence_length": 16,
            "batch_tokens": 16 * 12,
            "model": {"layers": 1},
        }
    )
    hyper = resolve(rewards, shape_of(rewards, 9_000).parameters, (16 * 12 * 50,))
    assert pieces_of(rewards, hyper, 2) == (6, 1)
    assert pieces_of(rewards.changed(micro_batch=4), hyper, 2) == (2, 3)  # four would not divide six, three is no pair
    assert [fewer_sequences(rewards.changed(micro_batch=n), hyper, 2) for n in (6, 2)] == [2, None]
    with pytest.raises(ValueError, match="6 pairs of answers do not divide among 4 processes"):
        pieces_of(rewards, hyper, 4)


def test_memory_of_the_machine_counts_like_that_of_a_device() -> None:
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
