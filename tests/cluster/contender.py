"""A process that wants the Lease and, while it leads, writes as fast as it can; every write goes to a file.

Arguments: kubeconfig, namespace, identity, log file, seconds that a Lease lasts, seconds the wall clock is off. Each
line of the file is the time (of the machine's one monotonic clock) at which a write was begun and ended, and its fate.
"""

import os
import signal
import sys
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

from sweep_operator.clusters.kubernetes.client import Api, Patience
from sweep_operator.clusters.kubernetes.errors import ApiError, NotLeading
from sweep_operator.clusters.kubernetes.resources import CONFIG_MAPS
from sweep_operator.controller import lease, logs
from sweep_operator.controller.operator import end_at_once


def skew(seconds: float) -> None:
    """Let this process believe another time of day."""

    class Skewed(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(seconds=seconds)

    lease.datetime = Skewed


def main() -> None:
    kubeconfig, namespace, identity, log, duration, off = sys.argv[1:]
    logs.configure("json")
    seconds = float(duration)
    skew(float(off))
    times = lease.LeaseTimes(seconds, seconds * 2 / 3, seconds / 8)
    api = Api.connect(Path(kubeconfig), patience=Patience(1.0, seconds / 4, seconds / 4, 0.0))
    keeper = Api.connect(Path(kubeconfig), patience=Patience(1.0, seconds / 4, seconds / 4, 0.0))
    leading, ending = threading.Event(), threading.Event()
    election = lease.Election(keeper, namespace, "contended", identity, leading.set, end_at_once, times)
    api.may_write = lambda: election.leading
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    election.start()
    with Path(log).open("a", buffering=1) as lines:
        number = 0
        while not ending.is_set():
            if not leading.wait(0.05):
                continue
            number += 1
            began = time.monotonic()
            name = f"{identity}-{os.getpid()}-{number}"
            try:
                api.create(CONFIG_MAPS.path(namespace), {"metadata": {"name": name, "labels": {"writer": identity}}})
                fate = "written"
            except NotLeading:
                fate = "refused"
            except (ApiError, OSError) as error:
                fate = type(error).__name__
            print(f"{began:.6f} {time.monotonic():.6f} {fate}", file=lines)
            time.sleep(0.01)
    election.stop_renewing()
    election.resign()
    election.release()


main()
