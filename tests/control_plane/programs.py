"""One running program of the control plane: started, waited for, stopped, and gone with the process that started it."""

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def free_port() -> int:
    """A TCP port on loopback that nobody listens on, below the range from which outgoing connections take theirs."""
    choice = random.Random(os.urandom(8))
    for _ in range(200):
        port = choice.randrange(18_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port on loopback between 18000 and 32000")


class Running:
    """A child process with its log in a file."""

    def __init__(self, path: Path, arguments: Sequence[str], log: Path, environment: dict[str, str] | None = None):
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(path), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def tail(self, characters: int = 1500) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-characters:]

    def stop(self, grace: float = 10.0) -> None:
        """Terminate, and kill what does not end within the grace."""
        if not self.alive:
            return
        self.process.send_signal(signal.SIGCONT)  # a paused process could not hear the next signal
        self.process.terminate()
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


def _die_with_parent() -> None:
    """In the child, before it becomes the program: the kernel kills it when the test process ends in whatever way."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
