"""The nursery: a process that has imported the trainer once and forks a warm trainer for every order.

Run as a script by `processes.Nursery`, with the number of an open socket as its argument; speaks JSON lines on it:

    driver → nursery   {"do": "start", "id": …, "order": path, "log": path} | {"do": "signal", "id": …, "signal": n}
    nursery → driver   {"ready": true} | {"broken": sentence}, and then {"started": id, "pid": n} |
                       {"ended": id, "status": n, "seconds": s, "peakBytes": b, "message": why no process came to be}

A negative status is the signal that ended the process.

It stands in a session of its own, so a Ctrl-C on the terminal never reaches a trainer, and it stays single-threaded,
so forking after `import torch` is safe. When the driver goes, however it goes, the socket closes: the nursery asks its
trainers to checkpoint and leaves. It imports nothing of the operator and decides nothing.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

GRACE_SECONDS = 5.0
"""How long trainers may take to checkpoint once the driver is gone."""


class Nursery:
    """The children, and the conversation about them."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.children: dict[int, tuple[str, float]] = {}  # pid → (id, when it was forked)
        self.waker, wake = os.pipe()
        for end in (self.waker, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.leaving = False
        signal.signal(signal.SIGTERM, self._leave)

    def _leave(self, *_: object) -> None:
        self.leaving = True

    def say(self, **message: object) -> None:
        """Tell the driver; a driver that is gone is noticed where we listen."""
        with contextlib.suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def serve(self) -> None:
        """Answer until the driver goes."""
        received = b""
        while not self.leaving:
            listened: list[socket.socket | int] = [self.connection, self.waker]
            readable, _, _ = select.select(listened, [], [])
            if self.waker in readable:
                os.read(self.waker, 4096)
                self.reap()
            if self.connection in readable:
                try:
                    data = self.connection.recv(65536)
                except OSError:
                    data = b""
                if not data:
                    break
                *lines, received = (received + data).split(b"\n")
                for line in lines:
                    self.obey(json.loads(line))
        self.disband()

    def obey(self, request: dict[str, object]) -> None:
        """Carry out one request of the driver."""
        if request["do"] == "start":
            self.fork(str(request["id"]), str(request["order"]), str(request["log"]))
        else:  # a signal; only to a child that is not reaped yet, so never to a stranger with its number
            for pid, (name, _) in self.children.items():
                if name == request["id"]:
                    os.kill(pid, int(str(request["signal"])))

    def fork(self, name: str, order: str, log: str) -> None:
        """One more trainer."""
        sys.stdout.flush()
        sys.stderr.flush()
        born = time.monotonic()
        # A SIGTERM for the newborn must not run our handler in it and be lost: it waits until the child has its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            pid = os.fork()
            if pid == 0:
                os._exit(self.become_trainer(order, log))
        except OSError as error:
            self.say(
                ended=name,
                status=1,
                seconds=0.0,
                peakBytes=0,
                message=f"no new process: {os.strerror(error.errno or 0)}",
            )
            return
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        self.children[pid] = (name, born)
        self.say(started=name, pid=pid)

    def become_trainer(self, order: str, log: str) -> int:
        """In the child: train, with everything that is printed going to the log. Returns the exit status."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            self.connection.close()
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
            with contextlib.suppress(OSError):  # should memory run out, the kernel takes a trainer before the driver
                Path("/proc/self/oom_score_adj").write_text("500")
            from sweep_trainer.__main__ import train

            status = train(order)
        except BaseException:  # noqa: BLE001 - nothing may escape into the nursery's own code
            with contextlib.suppress(OSError):
                traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
        return status

    def reap(self) -> None:
        """Collect the children that ended, and say how."""
        while self.children:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            name, born = self.children.pop(pid, ("", 0.0))
            if name:
                unit = 1 if sys.platform == "darwin" else 1024
                self.say(
                    ended=name,
                    status=os.waitstatus_to_exitcode(status),
                    seconds=time.monotonic() - born,
                    peakBytes=usage.ru_maxrss * unit,
                )

    def disband(self) -> None:
        """The driver is gone: let the trainers checkpoint, then leave."""
        for pid in self.children:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while self.children and time.monotonic() < deadline:
            select.select([self.waker], [], [], 0.1)
            self.reap()
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Import the trainer, say so, and serve."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    nursery = Nursery(connection)
    try:
        import sweep_trainer.__main__
        import sweep_trainer.train  # noqa: F401 - this is the costly import (torch) that the children inherit
    except ImportError as error:
        nursery.say(broken=f"the trainer cannot be loaded: {error}; install scalingsweep[trainer]")
        return
    gc.collect()
    gc.freeze()  # the children's collector leaves these pages alone, so that they stay shared
    nursery.say(ready=True)
    nursery.serve()


if __name__ == "__main__":
    main()
