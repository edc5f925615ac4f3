"""Python imports this module by itself where this folder is on PYTHONPATH: the trainer's and its Ray workers' steps are
then noted in the file that $STEP_TIMES names, one line each as it ends (`time.monotonic`, which all processes share).

For `benchmarks/engines.py` alone. It waits for `sweep_trainer.meter` to be imported and changes nothing else.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

METER = "sweep_trainer.meter"


class AtTheMeter(MetaPathFinder):
    """Finds the meter's module once, as whoever comes after would have."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != METER:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def executed(module: ModuleType) -> None:
                execute(module)
                module.Meter.stepping = noted(module.Meter.stepping)  # type: ignore[attr-defined]  # a module found by name

            spec.loader.exec_module = executed  # type: ignore[method-assign]  # wraps what imports it
        return spec


def noted(stepping: Any) -> Any:
    """The meter's context of a step, with a line after it."""

    @contextmanager
    def and_noted(self: Any) -> Iterator[None]:
        context: AbstractContextManager[None] = stepping(self)
        with context:
            yield
        with open(os.environ["STEP_TIMES"], "a", encoding="ascii") as file:  # noqa: PTH123  # imports as little as it can
            file.write(f"{time.monotonic():.6f}\n")

    return and_noted


if "STEP_TIMES" in os.environ:
    sys.meta_path.insert(0, AtTheMeter())
