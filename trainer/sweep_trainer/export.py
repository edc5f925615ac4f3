"""The final model as others read it: safetensors and a `config.json` that `transformers` loads, and a model card.

Owns what stands in the folder; writes nothing. The layout is `llama`'s; where no class of theirs computes
what a shape does, the folder holds our own layout and says so.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from sweep_analysis.recipe import Hyperparameters, Training
from sweep_analysis.record import Record
from sweep_trainer.llama import Weights, architecture_of, config, to_llama
from sweep_trainer.model import attention_scale


def files_of_export(
    weights: Weights, training: Training, hyper: Hyperparameters, record: Record, end: int | None
) -> dict[str, bytes]:
    """The folder's files by name. `end`: id of the token behind each document; None where there is none."""
    shape = hyper.shape
    architecture = architecture_of(shape)
    document: dict[str, Any]
    if shape.architecture:
        from sweep_trainer.huggingface import document_of  # imports transformers, for these models alone

        document = document_of(shape, hyper.sequence_length)
        weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
        (loads,) = document["architectures"]
        how = f"`transformers` loads it as {document['model_type']}: `{loads}.from_pretrained(folder)`."
    elif architecture:
        document = config(shape, hyper.sequence_length, hyper.width_ratio, end)
        weights = to_llama(weights, shape, hyper.width_ratio, _query_factor(hyper))
        how = f"`transformers` loads it as {architecture}: `AutoModelForCausalLM.from_pretrained(folder)`."
    else:
        document = shape.to_json()
        how = "No class of `transformers` computes this shape; names and layout are those of `sweep_trainer.model`."
    files = {
        "model.safetensors": save(weights, {"format": "pt"}),
        "config.json": json.dumps(document, indent=1).encode(),
    }
    if training.tokenizer == "HuggingFace" and training.tokenizer_file:
        files["tokenizer.json"] = Path(training.tokenizer_file.path).read_bytes()
    return files | {"README.md": card(hyper, record, how).encode()}


def _query_factor(hyper: Hyperparameters) -> float:
    """What the queries are multiplied by so that attention by 1/√d is the model's own."""
    d = hyper.shape.head_size
    return attention_scale(d, mu_transfer=hyper.transfer_width is not None) / attention_scale(d, mu_transfer=False)


def card(hyper: Hyperparameters, record: Record, how: str) -> str:
    """The model card: what it is, how it was trained, what it reached, and the record itself."""
    shape = hyper.shape
    rows = [
        ("parameters", f"{record.parameters.total:,}"),
        ("without embeddings", f"{record.parameters.non_embedding:,}"),
        ("a token passes through", f"{record.parameters.active:,}"),
        *([("beside them, as they began", f"{record.parameters.untrained:,}")] if record.parameters.untrained else []),
        ("training tokens", f"{record.tokens:,} ({record.epochs:.3g} epochs)"),
        ("FLOPs, 6·N·D", f"{record.flops.six_nd:.4g}"),
        ("validation loss", f"{record.loss:.4f} nats per {_unit(hyper)}"),
        ("layers × width", f"{shape.layers} × {shape.width}"),
        ("heads", f"{shape.heads} of {shape.head_size}, {shape.key_heads} for keys"),
        ("context", f"{hyper.sequence_length:,} tokens"),
        ("batch", f"{hyper.batch_tokens:,} tokens"),
        ("peak learning rate", f"{hyper.learning_rate:.4g}"),
        ("precision", hyper.precision),
        ("seed", str(record.seed)),
        ("configuration", f"`{record.run.config_digest}`"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    name = f"{shape.architecture or 'decoder'}, {record.parameters.total:,} parameters"
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [scalingsweep]
---
# {name}

Trained by {record.trainer_version}, finished {record.finished_at}. {how}

| | |
|---|---|
{table}

## Record

```json
{json.dumps(record.to_json(), indent=1)}
```
"""


def _unit(hyper: Hyperparameters) -> str:
    return "pair" if hyper.shape.scalar_head else "token"
