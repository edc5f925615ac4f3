"""Which place the options name: a folder of this machine, or a namespace of a cluster.

Owns those options and the choice between the adapters, each of which is imported only where it is chosen.
"""

import argparse
from pathlib import Path

from sweep_operator.cli.errors import InputError
from sweep_operator.cli.place import Place

CLUSTER = ("namespace", "context", "kubeconfig")
"""Options that name a cluster."""


def add_place(parser: argparse.ArgumentParser, *, local: bool = True) -> None:
    """The options that say where the sweep stands; without `local`, those of a cluster alone."""
    where = parser.add_argument_group("where the sweep stands" if local else "a sweep on a cluster")
    where.add_argument("-n", "--namespace", metavar="NAMESPACE", help="on a cluster; default: the context's")
    where.add_argument("--context", metavar="NAME", help="of the kubeconfig; default: its current one")
    where.add_argument("--kubeconfig", metavar="FILE", type=Path, help="default: $KUBECONFIG, or ~/.kube/config")
    if local:
        where.add_argument("--workdir", metavar="DIR", type=Path, help="a local ladder's folder, instead of a cluster")


def is_local(options: argparse.Namespace) -> bool:
    """Whether the options name a folder. Raises InputError where they name a cluster as well."""
    if options.workdir is None:
        return False
    for option in CLUSTER:
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
