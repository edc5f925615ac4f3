"""The trainer's entry point where nothing may be written but /tmp and the run's own volume."""

import json
import sys
from pathlib import Path

import pytest
from read_only_root import VOLUME, ForbiddenError, ReadOnlyRoot
from tiny_run import losses_of, order_of

from sweep_analysis.recipe import Data, Training
from sweep_analysis.record import ExitStatus
from sweep_analysis.rung import RunOrder

ENTRYPOINT = ["python", "-m", "sweep_trainer"]
"""As in trainer/Dockerfile."""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def sealed(tmp_path: Path) -> ReadOnlyRoot:
    try:
        return ReadOnlyRoot(tmp_path)
    except ForbiddenError as reason:
        pytest.skip(str(reason))


def inside(sealed: ReadOnlyRoot, text: Path, **fields: object) -> RunOrder:
    """A tiny run whose data, storage, report and cache are on the volume, by the paths that they have inside."""
    (sealed.volume / "words.txt").write_bytes(text.read_bytes())
    training = Training(
        data=Data(files=(f"{VOLUME}/words.txt",), validation_tokens=1024),
        sequence_length=16,
        batch_tokens=128,
        checkpoint_seconds=0.5,
        evaluation={"every": 0.5},
    )
    return order_of(training.changed(**fields), 7_000, (10, 20), Path(VOLUME))


def carried_out(sealed: ReadOnlyRoot, order: RunOrder) -> None:
    (sealed.volume / "training.json").write_text(json.dumps(order.training.to_json()))
    (sealed.volume / "order.json").write_text(json.dumps(order.to_json()))
    prepared = sealed.run([*ENTRYPOINT, "prepare", f"{VOLUME}/training.json", "--cache", order.cache])
    assert prepared.returncode == ExitStatus.DONE, prepared.stderr[-2000:]
    trained = sealed.run([*ENTRYPOINT, "train", f"{VOLUME}/order.json"])
    assert trained.returncode == ExitStatus.DONE, trained.stderr[-3000:]
    outside = order.changed(report=str(sealed.volume / "report"))
    assert set(losses_of(outside)) == set(order.run.tokens)


def test_nothing_but_tmp_and_the_volume_can_be_written_there(sealed: ReadOnlyRoot) -> None:
    places = [*map(str, (ROOT, Path(sys.prefix), Path.home(), "/var", "/etc", "/opt")), "/tmp", VOLUME]
    tried = "for at in $PLACES; do touch $at/.written 2>/dev/null && echo $at; done; true"
    done = sealed.run(["sh", "-c", tried], {"PLACES": " ".join(places)})
    assert done.stdout.split() == ["/tmp", VOLUME]


def test_the_trainer_prepares_trains_and_exports(sealed: ReadOnlyRoot, text: Path) -> None:
    carried_out(sealed, inside(sealed, text))
    assert list((sealed.volume / "storage").glob("export-*/model.safetensors"))


@pytest.mark.slow
def test_the_trainer_trains_with_deepspeed_on_two_processes_of_ray(sealed: ReadOnlyRoot, text: Path) -> None:
    pytest.importorskip("deepspeed", reason="the extra `trainer` is not installed")
    order = inside(sealed, text, engine="DeepSpeed", deepspeed={"zero_stage": 1})
    carried_out(sealed, order.changed(workers=2))
