"""An own trainer under torchrun: every rank trains, rank 0 alone reports.

    runtime:
      image: registry.example/yours
      command: [torchrun, --standalone, --nproc-per-node=gpu, distributed.py]

A small network learns sums modulo 97 with data parallelism; the loss is measured on the same pairs for every run.
"""

import json
import math
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

PARAMETERS = int(os.environ["SCALINGSWEEP_PARAMETERS"])
TOKENS = [int(tokens) for tokens in os.environ["SCALINGSWEEP_TOKENS"].split(",")]
SEED = int(os.environ["SCALINGSWEEP_SEED"])
REPORT = Path(os.environ["SCALINGSWEEP_REPORT"])
FACTOR = float(os.environ.get("SCALINGSWEEP_LEARNING_RATE_FACTOR", "1"))  # diagnosis and retuned runs differ by this

MODULUS, BATCH = 97, 64


def network() -> torch.nn.Module:
    """Two embeddings into a hidden layer whose width gives about as many parameters as asked for."""
    width = max(4, PARAMETERS // (3 * MODULUS))
    embedding = torch.nn.EmbeddingBag(2 * MODULUS, width, mode="sum")
    return torch.nn.Sequential(embedding, torch.nn.GELU(), torch.nn.Linear(width, MODULUS))


def pairs(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, 2) inputs, the second offset by the modulus, and (count,) sums."""
    numbers = torch.randint(MODULUS, (count, 2), generator=generator)
    return numbers + torch.tensor([0, MODULUS]), numbers.sum(1) % MODULUS


def report(document: dict[str, object]) -> None:
    beside = REPORT.with_suffix(".new")
    beside.write_text(json.dumps(document))
    beside.replace(REPORT)


def main() -> int:
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")
    torch.manual_seed(SEED)  # the same weights everywhere; the data differ by rank
    model = DistributedDataParallel(network().to(device))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2 * FACTOR)
    mine = torch.Generator().manual_seed(SEED * world + rank)
    validation, sums = pairs(1024, torch.Generator().manual_seed(10**6))
    seen, records = 0, []
    for due in TOKENS:
        while seen < due:
            inputs, targets = pairs(BATCH // world, mine)
            loss = torch.nn.functional.cross_entropy(model(inputs.to(device)), targets.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += BATCH
        with torch.no_grad():
            measured = torch.nn.functional.cross_entropy(model.module(validation.to(device)), sums.to(device)).item()
        records.append({"tokens": due, "loss": measured, "validationDigest": "sums-1024"})
        if rank == 0:
            if not math.isfinite(measured):
                report({"records": records[:-1], "failure": {"reason": "Diverged", "message": f"loss {measured}"}})
                return 1
            report({"records": records, "progress": {"step": seen, "steps": TOKENS[-1], "tokens": seen}})
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
