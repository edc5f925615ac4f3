"""The images: linted always; built and started where buildah and a base are at hand.

To build, as root on Linux with buildah: SCALINGSWEEP_IMAGE_BASE=<image with apt or Python 3.11> pytest with this file.
SCALINGSWEEP_IMAGE_ARGUMENTS is handed to `buildah build` (volumes with certificates, for one).
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
IMAGES = ("operator", "trainer")
BASE = os.environ.get("SCALINGSWEEP_IMAGE_BASE")
TARGET = {"operator": (), "trainer": ("--target", "runtime")}  # older builders build every stage before the last
BUILDAH = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}


def dockerfile(image: str) -> str:
    return (ROOT / image / "Dockerfile").read_text()


def pinned(which: str) -> set[str]:
    """`name==version` of each package; on which systems it is installed may differ, with what else is."""
    lines = (ROOT / "requirements" / f"{which}.txt").read_text().splitlines()
    return {line.partition(";")[0].strip() for line in lines if line[:1].isalnum()}


@pytest.mark.parametrize("image", IMAGES)
def test_hadolint_has_no_objection(image: str) -> None:
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed")
    linted = subprocess.run([program, f"{image}/Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")


@pytest.mark.parametrize("image", IMAGES)
def test_what_runs_is_built_in_another_stage_on_a_base_of_choice_and_is_nobody(image: str) -> None:
    text = dockerfile(image)
    assert re.search(r"^ARG BASE=\S+$", text, re.M)
    assert len(re.findall(r"^FROM ", text, re.M)) >= 2
    assert "COPY --from=build" in text
    users = re.findall(r"^USER (\S+)$", text, re.M)
    assert users[-1] == "65532:65532"


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_installs_pinned_packages_and_no_others(image: str) -> None:
    assert f"--no-deps -r requirements/{image}.txt" in dockerfile(image)
    pins = pinned(image)
    assert pins
    assert all("==" in pin for pin in pins)
    assert pins <= pinned("dev"), "an image runs with the versions that were tested"


def test_the_operators_image_holds_no_torch_and_the_trainers_no_kubernetes() -> None:
    pins = {image: (ROOT / "requirements" / f"{image}.txt").read_text() for image in IMAGES}
    assert not re.search(r"^(torch|ray|deepspeed)==", pins["operator"], re.M)
    assert not re.search(r"^kubernetes==", pins["trainer"], re.M)


def versions(which: str) -> dict[str, Version]:
    """The pinned packages on this system."""
    lines = (ROOT / "requirements" / f"{which}.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line[:1].isalnum()]
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    return {canonicalize_name(pin.name): Version(str(pin.specifier).removeprefix("==")) for pin in here}


OVERRIDDEN = {"python-dateutil"}
"""As pyproject.toml says and why."""


@pytest.mark.parametrize("image", IMAGES)
def test_each_package_of_an_image_declares_the_others_versions_compatible(image: str) -> None:
    pins = versions(image)
    declared = 0
    for name in pins:
        try:
            requirements = metadata.requires(name) or ()
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, requirements):
            wanted = canonicalize_name(requirement.name)
            if wanted in OVERRIDDEN or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
                continue
            assert wanted in pins, f"{name} needs {requirement}, which {image}.txt has not"
            assert requirement.specifier.contains(pins[wanted], prereleases=True), f"{name} needs {requirement}"
            declared += 1
    assert declared > len(pins) / 2


def test_the_gpu_image_compiles_flash_attention_with_what_it_and_pytorch_ask_for() -> None:
    text, pins = dockerfile("trainer"), versions("trainer")
    toolkit = next(Requirement(line) for line in metadata.requires("torch") or () if line.startswith("cuda-toolkit"))
    (major, minor) = Version(str(toolkit.specifier).removeprefix("==")).release[:2]
    assert re.search(rf"^ARG CUDA_BASE=nvidia/cuda:{major}\.{minor}\.\d+-devel-", text, re.M)
    flash = Version(re.findall(r"^ARG FLASH_ATTN=(\S+)$", text, re.M)[0])
    extra = next(Requirement(line) for line in metadata.requires("scalingsweep") or () if line.startswith("flash-attn"))
    assert extra.specifier.contains(flash)
    assert {"torch", "einops", "packaging", "psutil", "ninja", "setuptools"} <= set(pins), "what its setup.py imports"
    header = (Path(str(metadata.distribution("torch").locate_file("torch"))) / "include/ATen/ATen.h").read_text()
    asked = re.findall(r"#error C\+\+(\d+) or later", header)
    assert asked == ["20"]
    assert f"s/-std=c++17/-std=c++{asked[0]}/g" in text
    assert "Not built with nvcc and not run on a GPU yet" in text


def buildah(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["buildah", *arguments], cwd=ROOT, env=os.environ | BUILDAH, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(BASE is None or shutil.which("buildah") is None, reason="no SCALINGSWEEP_IMAGE_BASE, or no buildah")
@pytest.mark.parametrize(
    ("image", "command", "says"),
    [
        ("operator", ["scalingsweep", "--help"], "run"),
        ("trainer", ["python", "-m", "sweep_trainer", "--help"], "train"),
    ],
)
def test_an_image_builds_starts_as_nobody_and_can_write_to_tmp_alone(image: str, command: list[str], says: str) -> None:
    extra = shlex.split(os.environ.get("SCALINGSWEEP_IMAGE_ARGUMENTS", ""))
    file, tag = f"{image}/Dockerfile", f"test/{image}"
    built = buildah("build", "--build-arg", f"BASE={BASE}", "-f", file, "-t", tag, *TARGET[image], *extra, ".")
    assert built.returncode == 0, built.stderr[-2000:]
    container = buildah("from", tag).stdout.strip()
    try:
        started = buildah("run", container, "--", *command)
        assert started.returncode == 0, started.stderr
        assert says in started.stdout
        assert buildah("run", container, "--", "id", "-u").stdout.strip() == "65532"
        found = "find / -xdev -type d -writable -not -path '/proc/*' -not -path '/dev/*' 2>/dev/null"
        writable = buildah("run", container, "--", "sh", "-c", found).stdout.split()
        assert set(writable) <= {"/tmp", "/var/tmp", "/run/lock", "/dev", "/proc"}
    finally:
        buildah("rm", container)
