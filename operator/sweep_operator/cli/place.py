"""Where a sweep stands: in a folder of this machine, or on a cluster. The commands ask a `Place` and never which.

Owns the options that name it and the choice. Adapters: `ladder.LocalPlace` and `cluster.ClusterPlace`.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from sweep_operator.api import ScalingRun, ScalingSweep
from sweep_operator.cli.errors import InputError
from sweep_operator.live.summary import Whereabouts

Wish = Callable[[ScalingSweep], dict[str, Any]]
"""From the sweep as it stands to the fields of its spec that are to change."""


class Place(Protocol):
    """One sweep, wherever it stands. Every method raises InputError, in one sentence, when it is not there."""

    watch_seconds: float
    """How often a watching command looks again."""

    @property
    def whereabouts(self) -> Whereabouts:
        """How a person names the sweep in further commands."""

    def sweep(self) -> ScalingSweep:
        """The sweep with its status."""

    def document(self) -> dict[str, Any]:
        """The sweep as it is stored."""

    def runs(self) -> Sequence[ScalingRun]:
        """Its runs, with what their trainers have reported."""

    def log(self, run: ScalingRun, *, follow: bool, tail: int | None) -> Iterator[bytes]:
        """What the trainer of the run's newest attempt printed, its last `tail` lines where that is given.

        With `follow` it goes on until nothing more will be printed.
        """

    def change(self, wish: Wish) -> ScalingSweep:
        """Change fields of the spec; the wish is asked again when somebody else was quicker."""

    def going_on(self) -> str:
        """Whether what was decided happens by itself, or what has to be started."""


def add_place(parser: argparse.ArgumentParser) -> None:
    """The options that say where the sweep stands."""
    where = parser.add_argument_group("where the sweep stands")
    where.add_argument("-n", "--namespace", metavar="NAMESPACE", help="on a cluster; default: the context's")
    where.add_argument("--context", metavar="NAME", help="of the kubeconfig; default: its current one")
    where.add_argument("--kubeconfig", metavar="FILE", type=Path, help="default: $KUBECONFIG, or ~/.kube/config")
    where.add_argument("--workdir", metavar="DIR", type=Path, help="a local ladder's folder, instead of a cluster")


def is_local(options: argparse.Namespace) -> bool:
    """Whether the options name a folder. Raises InputError where they name a cluster as well."""
    if options.workdir is None:
        return False
    for option in ("namespace", "context", "kubeconfig"):
        if getattr(options, option) is not None:
            raise InputError(f"--workdir names a ladder on this machine, --{option} one on a cluster; keep one of them")
    return True


def place_of(options: argparse.Namespace) -> Place:
    """The place of the one sweep that the options name. Raises InputError."""
    if is_local(options):
        from sweep_operator.cli.ladder import LocalPlace

        place = LocalPlace(options.workdir)
        name = place.sweep().metadata.name
        if options.name and options.name != name:
            raise InputError(f"{options.workdir} holds the sweep {name}, not {options.name}")
        return place
    if not options.name:
        raise InputError("name the sweep, or a local ladder's folder with --workdir")
    from sweep_operator.cli.cluster import ClusterPlace, connected

    api = connected(options)
    return ClusterPlace(api, options.namespace or api.namespace, options.name)
