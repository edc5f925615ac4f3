"""`scalingsweep operator`: the controller, as one process of a Deployment or on a desk against any cluster.

Owns the options and what a signal does. Everything that can be wrong with them is said before the API server is asked.
"""

import argparse
import gc
import os
import signal
import threading
from pathlib import Path

from sweep_operator.cli.errors import Exit, InputError
from sweep_operator.manifest import ManifestError, read_policy

COLLECTED_AFTER = 50_000, 20, 20
"""Thresholds of the collector of cycles. What is read from the API server is trees of dicts by the thousand, freed as
soon as they were looked at; looking for cycles among them every 700 objects took a seventh of the operator's CPU."""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The command's arguments."""
    parser.add_argument(
        "-n",
        "--namespace",
        metavar="NAMESPACE",
        action="append",
        default=[],
        help="watch this namespace only; may be repeated (default: every namespace)",
    )
    parser.add_argument("--policy", metavar="FILE", type=Path, help="the platform's policy (YAML)")
    parser.add_argument("--trainer-image", metavar="IMAGE", help="image of the project's own trainer")
    parser.add_argument("--reporter-image", metavar="IMAGE", help="image of the reporter beside other trainers")
    parser.add_argument("--workers", metavar="N", type=int, default=16, help="passes at once (default: 16)")
    parser.add_argument(
        "--lease-name", metavar="NAME", default="scalingsweep-operator", help="default: scalingsweep-operator"
    )
    parser.add_argument(
        "--lease-namespace", metavar="NAMESPACE", help="default: the pod's namespace, or the kubeconfig's"
    )
    parser.add_argument(
        "--lease-seconds",
        metavar="SECONDS",
        type=float,
        default=15.0,
        help="how long a Lease lasts that is not renewed; a leader gives it up after two thirds of it (default: 15)",
    )
    parser.add_argument("--health-port", metavar="PORT", type=int, help="serve /healthz and /readyz (default: nowhere)")
    parser.add_argument("--metrics-port", metavar="PORT", type=int, help="serve /metrics (default: nowhere)")
    parser.add_argument("--run-metrics", action="store_true", help="series of every unfinished run, too")
    parser.add_argument("--log-format", choices=("json", "text"), default="json", help="default: json")
    parser.add_argument("--kubeconfig", metavar="FILE", type=Path, help="default: the pod's account, or $KUBECONFIG")
    parser.add_argument("--context", metavar="NAME", help="of the kubeconfig")
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> Exit:
    """Check the options, then work until SIGTERM or SIGINT."""
    _check(options)
    try:
        policy = read_policy(options.policy)
    except ManifestError as error:
        raise InputError(str(error)) from None
    from sweep_operator.clusters.kubernetes.client import Api, ConnectError, Patience
    from sweep_operator.clusters.kubernetes.cluster import KubernetesCluster
    from sweep_operator.clusters.kubernetes.jobs import Images
    from sweep_operator.controller import logs, tracing
    from sweep_operator.controller.health import PagesTakenError
    from sweep_operator.controller.lease import LONGEST_TRY_SECONDS, LeaseTimes
    from sweep_operator.controller.operator import Operator, Settings

    times = LeaseTimes.lasting(options.lease_seconds)
    try:
        api = Api.connect(options.kubeconfig, options.context, Patience.within(times.margin_seconds))
        lease_api = Api.connect(
            options.kubeconfig, options.context, Patience.of_one_try(min(LONGEST_TRY_SECONDS, times.margin_seconds / 2))
        )
    except ConnectError as error:
        raise InputError(str(error)) from None
    logs.configure(options.log_format)
    named = {"trainer": options.trainer_image, "reporter": options.reporter_image}
    images = Images(**{name: image for name, image in named.items() if image})
    settings = Settings(
        namespaces=tuple(dict.fromkeys(options.namespace)),
        workers=options.workers,
        lease_namespace=options.lease_namespace or os.environ.get("POD_NAMESPACE") or api.namespace,
        lease_name=options.lease_name,
        lease=times,
        health_port=options.health_port,
        metrics_port=options.metrics_port,
        run_metrics=options.run_metrics,
        traces_url=tracing.endpoint(),
    )
    operator = Operator(
        api,
        lease_api,
        policy,
        settings,
        lambda api, caches, events: KubernetesCluster(api, caches, events, images),
    )
    stop = threading.Event()
    set_on_signal(stop)
    gc.set_threshold(*COLLECTED_AFTER)
    try:
        operator.run(stop)
    except PagesTakenError as error:
        raise InputError(str(error)) from None
    return Exit.DONE


def set_on_signal(stop: threading.Event) -> None:
    """Set the event on SIGTERM and SIGINT, from a thread of its own.

    A handler runs between two instructions of the main thread, which may hold the very lock that `stop.set()` takes: it
    would wait for itself for ever. So the handlers do nothing, and the interpreter's own note of the signal is read.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)

    def listen() -> None:
        os.read(read, 1)
        stop.set()

    threading.Thread(target=listen, name="signals", daemon=True).start()


def _check(options: argparse.Namespace) -> None:
    if options.workers < 1:
        raise InputError(f"--workers is {options.workers}; at least one is needed")
    if not 1 <= options.lease_seconds <= 3600:
        raise InputError(f"--lease-seconds is {options.lease_seconds:g}; choose between 1 and 3600")
