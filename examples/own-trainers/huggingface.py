"""An own trainer around Hugging Face's Trainer: a callback reports progress, the evaluation gives the records.

A GPT-2 of about the size asked for learns made-up text; give it your data set and tokenizer in place of `Text`.
"""

import json
import math
import os
import sys
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

PARAMETERS = int(os.environ["SCALINGSWEEP_PARAMETERS"])
TOKENS = [int(tokens) for tokens in os.environ["SCALINGSWEEP_TOKENS"].split(",")]
SEED = int(os.environ["SCALINGSWEEP_SEED"])
REPORT = Path(os.environ["SCALINGSWEEP_REPORT"])
STORAGE = Path(os.environ["SCALINGSWEEP_STORAGE"])
FACTOR = float(os.environ.get("SCALINGSWEEP_LEARNING_RATE_FACTOR", "1"))

VOCABULARY, LENGTH, BATCH = 64, 32, 8


class Text(torch.utils.data.Dataset):
    """Walks over the vocabulary, (LENGTH,) tokens each; an item is a pure function of its number."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(self.first + item)
        tokens = torch.randint(4, (LENGTH,), generator=generator).cumsum(0) % VOCABULARY
        return {"input_ids": tokens, "labels": tokens}


class Report(TrainerCallback):
    """The one document, written anew whenever there is news."""

    def __init__(self) -> None:
        self.records: list[dict[str, object]] = []
        self.progress: dict[str, object] = {}

    def write(self) -> None:
        beside = REPORT.with_suffix(".new")
        beside.write_text(json.dumps({"records": self.records, "progress": self.progress}))
        beside.replace(REPORT)

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in (logs or {}):
            self.progress = {"step": state.global_step, "steps": state.max_steps, "loss": float(logs["loss"])}
            self.write()


def model() -> GPT2LMHeadModel:
    """Two layers; the width gives about as many parameters as asked for (12 w² a layer and the embedding)."""
    width = 8 * max(1, round(math.sqrt(PARAMETERS / 24) / 8))
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=width, n_layer=2, n_head=2)
    config.bos_token_id = config.eos_token_id = 0
    return GPT2LMHeadModel(config)


def main() -> int:
    torch.manual_seed(SEED)
    told, network, validation = Report(), model(), Text(10**9, 64)
    for tokens in TOKENS:  # a schedule of its own for each token count, as a law of (N, D) wants it
        arguments = TrainingArguments(
            output_dir=str(STORAGE / str(tokens)),
            max_steps=max(1, tokens // (BATCH * LENGTH)),
            per_device_train_batch_size=BATCH,
            learning_rate=1e-3 * FACTOR,
            lr_scheduler_type="cosine",
            logging_steps=10,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=SEED,
        )
        trainer = Trainer(network, arguments, train_dataset=Text(SEED * 10**6, 10**6), eval_dataset=validation)
        trainer.add_callback(told)
        trainer.train()
        loss = trainer.evaluate()["eval_loss"]
        told.records.append({"tokens": tokens, "loss": loss, "validationDigest": "walks-64"})
        told.write()
        network = model() if tokens != TOKENS[-1] else network
    return 0


if __name__ == "__main__":
    sys.exit(main())
