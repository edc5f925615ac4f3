"""Manifests that tests start from."""

from collections.abc import Callable
from typing import Any

import pytest

from sweep_operator.api import ScalingSweep

Manifest = Callable[..., ScalingSweep]


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    """A five-rung laptop ladder with its target; keyword arguments replace parts of the spec."""

    def build(**spec: Any) -> ScalingSweep:
        sizes = {"a": "20K", "b": "27K", "c": "46K", "d": "67K", "e": "96K"}
        rungs = [
            {"name": name, "runs": [{"parameters": size, "tokensPerParameter": [10, 20], "seeds": [0, 1]}]}
            for name, size in sizes.items()
        ]
        body = {
            "target": {"parameters": "163K", "tokens": "3.3M", "maxLoss": 3.0, "launch": "Automatic"},
            "ladder": {"rungs": rungs},
            "gate": {"warmupRungs": 3},
            "training": {"data": {"corpus": "Classics"}, "model": {"layers": 3}, "batchTokens": 2048},
        }
        return ScalingSweep.model_validate({"metadata": {"name": "demo", "uid": "u-1"}, "spec": {**body, **spec}})

    return build
