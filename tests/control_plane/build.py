"""The programs of the control plane, and the S3 server beside it: found where they are, built once where they are not.

Owns the pinned versions (the go.mod files beside this one) and the cache outside the repository, keyed by them.
`KUBEBUILDER_ASSETS`, a folder with etcd, kube-apiserver and kubectl, is honoured first. Where Go fetches modules from
is the environment's business (GOPROXY). `python -m control_plane` builds all that is missing.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


class UnavailableError(Exception):
    """A program is not here and cannot be built here; the message says what would help."""


@dataclass(frozen=True)
class Program:
    """One program, the module beside this file that pins it, and about how long it took to build on two cores."""

    name: str
    module: str
    package: str
    minutes: float
    versioned_by: str = ""
    """The dependency whose version its file is named by, where the folder's name does not say it: so a new one builds
    this program anew and not Kubernetes with it."""

    @property
    def file(self) -> str:
        """Its file in the cache."""
        return f"{self.name}-{pinned(self.module, self.versioned_by)}" if self.versioned_by else self.name


_GATEWAY = "github.com/versity/versitygw"
PROGRAMS = {
    p.name: p
    for p in (
        Program("etcd", "kubernetes", "go.etcd.io/etcd/server/v3", 1.0),
        Program("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver", 4.5),
        Program("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl", 0.5),
        Program("kube-controller-manager", "kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager", 1.5),
        Program("kube-scheduler", "kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler", 1.0),
        Program("kubelet", "kubernetes", "k8s.io/kubernetes/cmd/kubelet", 0.5),
        Program("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok", 1.2),
        Program("helm", "helm", "helm.sh/helm/v4/cmd/helm", 1.8),
        Program("versitygw", "versitygw", "github.com/versity/versitygw/cmd/versitygw", 1.3, _GATEWAY),
    )
}

EVERYDAY = tuple(name for name in PROGRAMS if name != "kubelet")
"""What `make test` needs; the kubelet is `make e2e`'s alone."""


def pinned(module: str, dependency: str) -> str:
    """The version of a dependency in one of our go.mod files, without its v."""
    found = re.search(rf"^\s*(?:require )?{re.escape(dependency)} v(\S+)", (HERE / module / "go.mod").read_text(), re.M)
    assert found, f"{module}/go.mod pins no {dependency}"
    return found[1]


KUBERNETES = pinned("kubernetes", "k8s.io/kubernetes")
_VERSIONS = (
    f"kubernetes-{KUBERNETES}_kwok-{pinned('kwok', 'sigs.k8s.io/kwok')}_helm-{pinned('helm', 'helm.sh/helm/v4')}"
)


def folder() -> Path:
    """Where built programs are kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "scalingsweep" / "control-plane" / _VERSIONS / "bin"


def program(name: str) -> Path:
    """Path of a program, built first where need be. Raises UnavailableError."""
    return _present(name) or _build(PROGRAMS[name])


def can_build() -> bool:
    """Whether there is a Go."""
    return shutil.which("go") is not None


def missing(names: Iterable[str]) -> list[Program]:
    """Those that would have to be built."""
    return [PROGRAMS[name] for name in names if _present(name) is None]


def _present(name: str) -> Path | None:
    given = os.environ.get("KUBEBUILDER_ASSETS")
    candidates = [Path(given) / name] if given else []
    kept = folder() / PROGRAMS[name].file
    return next((path for path in [*candidates, kept] if os.access(path, os.X_OK)), None)


def _build(wanted: Program) -> Path:
    if not can_build():
        remedy = "install Go 1.26 or newer"
        if wanted.module == "kubernetes":
            remedy += ", or name a folder with etcd, kube-apiserver and kubectl in KUBEBUILDER_ASSETS"
        raise UnavailableError(f"{wanted.name} is not built and there is no Go to build it with; {remedy}")
    folder().mkdir(parents=True, exist_ok=True)
    with (folder() / ".lock").open("w") as lock:  # of several test processes one builds
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _present(wanted.name) or _compile(wanted)


def _compile(wanted: Program) -> Path:
    print(f"building {wanted.name}, once: about {wanted.minutes:g} min on two cores", file=sys.stderr, flush=True)
    began = time.monotonic()
    finished, partial = folder() / wanted.file, folder() / f".{wanted.file}.partial"
    command = ["go", "build", "-trimpath", "-ldflags", _linker_flags(wanted), "-o", str(partial), wanted.package]
    done = subprocess.run(
        command,
        cwd=HERE / wanted.module,
        env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise UnavailableError(f"{wanted.name} could not be built: {done.stderr.strip()[-600:]}")
    partial.rename(finished)
    print(f"built {wanted.name} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return finished


def _linker_flags(wanted: Program) -> str:
    """Kubernetes' programs must be told their version, or the server says v0.0.0 and clients misbehave."""
    flags = "-s -w"
    if wanted.module == "kubernetes":
        major, minor, _ = KUBERNETES.split(".")
        base = "-X k8s.io/component-base/version.git"
        flags += f" {base}Version=v{KUBERNETES} {base}Major={major} {base}Minor={minor}"
    return flags
