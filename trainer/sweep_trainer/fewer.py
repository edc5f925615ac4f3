"""How many sequences at a time a run may compute, learnt from an earlier start of it whose memory ran out.

Owns the note beside the checkpoints. A process whose memory runs out while others wait for it in a collective can tell
nobody but the storage; the next start of them all reads it there, whoever starts them. It holds for as long as the run
is carried out alike: on the same kind of device, by as many processes, with the same engine and its options.
"""

import json
import logging

import torch

from sweep_analysis.document import digest_of
from sweep_analysis.execution import Execution
from sweep_analysis.recipe import Training
from sweep_trainer.engines.ranks import Ranks
from sweep_trainer.storage import Storage, patiently

NAME = "fewer.json"

log = logging.getLogger(__name__)


def note(storage: Storage, sequences: int, training: Training, ranks: Ranks) -> None:
    """Leave word for the next start; called by the rank that knows, before it ends. Raises OSError."""
    content = json.dumps({"of": _circumstances(training, ranks), "sequences": sequences}).encode()
    patiently(lambda: storage.put(NAME, content), storage)


def heeded(storage: Storage, training: Training, ranks: Ranks) -> Training:
    """The recipe with as many sequences at a time as the note says, if there is one for these circumstances.

    All ranks call, and get the same.
    """
    (noted,) = ranks.most(_noted(storage, _circumstances(training, ranks)) if ranks.first else 0)
    if not noted or (training.micro_batch is not None and training.micro_batch <= noted):
        return training
    log.info("%d sequences at a time, for this run's memory ran out at more", noted)
    return training.changed(micro_batch=noted)


def _noted(storage: Storage, circumstances: str) -> int:
    """The note's number; 0 where there is none, or none for these circumstances."""
    if NAME not in patiently(storage.names, storage):
        return 0
    try:
        found = json.loads(patiently(lambda: storage.get(NAME), storage))
        return max(0, int(found["sequences"])) if found["of"] == circumstances else 0
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read (%s) and is not heeded", storage.address(NAME), error)
        return 0


def _circumstances(training: Training, ranks: Ranks) -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    how = training.model_dump(mode="json", include=set(Execution.model_fields))
    return digest_of({"device": device, "world": ranks.world, "how": how})
