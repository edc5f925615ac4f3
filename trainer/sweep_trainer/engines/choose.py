"""The engine that a recipe asks for.

Owns the choice, and turning what an engine refuses into the sentence that a person reads, before the first step.
"""

import torch

from sweep_analysis.pieces import pieces_of
from sweep_analysis.recipe import Hyperparameters
from sweep_analysis.record import FailureReason
from sweep_analysis.rung import RunOrder
from sweep_trainer.engines.plain import PlainTorch
from sweep_trainer.engines.protocol import Engine
from sweep_trainer.engines.ranks import Ranks
from sweep_trainer.failure import RunError


def engine_for(order: RunOrder, hyper: Hyperparameters, ranks: Ranks) -> Engine:
    """Build the model and the engine around it. Raises RunError when the recipe cannot be carried out like that."""
    training = order.training
    try:
        pieces_of(training, hyper, ranks.world)
        if training.engine == "DeepSpeed":
            from sweep_trainer.engines.zero import Zero

            return Zero(training, hyper, order.run.seed, order.threads, ranks)
        return PlainTorch(hyper, order.run.seed, order.threads, ranks, training)
    except ModuleNotFoundError as error:
        raise RunError(
            FailureReason.BAD_CONFIGURATION, f"training.engine {training.engine} needs {error.name}; install it"
        ) from None
    except torch.OutOfMemoryError:
        raise
    except ValueError as error:
        raise RunError(FailureReason.BAD_CONFIGURATION, str(error)) from None
