"""The operator hears SIGTERM at any moment, also while its main thread holds the lock that being told takes."""

import signal
import subprocess
import sys

import pytest

WAITING = """
import threading
from sweep_operator.cli.operator import set_on_signal
stop = threading.Event()
set_on_signal(stop)
print("up", flush=True)
while not stop.wait(0):  # nearly always within the lock
    pass
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_whatever_the_main_thread_is_doing(number: signal.Signals) -> None:
    waiting = []
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        process.send_signal(number)
        waiting.append(process)
    assert [process.wait(30) for process in waiting] == [0] * 5
