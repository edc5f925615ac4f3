"""Every variant of the model takes the same steps in every engine."""

import json
from pathlib import Path

import numpy as np
import pytest
from several_ranks import Case, together, warm

STEPS = 3
SOURCES = {"sources": [{"name": "a", "files": ["a.jsonl"]}]}
RECIPES = {
    "experts": {"model": {"experts": {"count": 4, "shared": 1}, "qkNorm": True}},
    "grouped queries, documents, muP": {
        "model": {"heads": 4, "kvHeads": 2, "headSize": 8},
        "data": SOURCES,
        "documentMask": True,
        "tokenizer": "Tiktoken",
        "tokenizerFile": {"path": "unread", "vocabulary": 256, "endOfDocument": 101},
        "learningRate": {"rule": "MuTransfer", "peak": 0.01, "baseWidth": 16},
    },
    "Hugging Face": {"model": {"family": "HuggingFace", "architecture": "qwen3"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_each_engine_takes_the_same_steps_with_every_variant_to_four_decimals(name: str, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed", reason="the extra `trainer` is not installed")
    if name == "Hugging Face":
        pytest.importorskip("transformers")
    processes = warm("sweep_trainer.engines.choose", "sweep_trainer.engines.zero")
    recipe = json.dumps(RECIPES[name])
    plain, *others = (
        Case(recipe=recipe),
        Case(recompute=True, recipe=recipe),
        Case("DeepSpeed", 1, recipe=recipe),
        Case("DeepSpeed", 3, micro_batch=16, recompute=True, recipe=recipe),
    )
    measured = together(processes, [(case, STEPS, None, None) for case in (plain, *others)], tmp_path)
    for case in others:
        np.testing.assert_allclose(measured[case.name], measured[plain.name], atol=1e-4, err_msg=case.name)
