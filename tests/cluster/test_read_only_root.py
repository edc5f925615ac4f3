"""The operator's entry point where nothing may be written but /tmp: it leads, starts runs, and ends in order."""

import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from control_plane import ControlPlane, free_port
from live_operator import Place, install_resources, manifest, until
from read_only_root import VOLUME, ForbiddenError, ReadOnlyRoot

ENTRYPOINT = ["scalingsweep", "operator"]
"""As in operator/Dockerfile, with its CMD."""


def answers(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_the_operator_works_on_a_read_only_root(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    try:
        sealed = ReadOnlyRoot(tmp_path)
    except ForbiddenError as reason:
        pytest.skip(str(reason))
    install_resources(control_plane)
    place, port = Place(control_plane, namespace), free_port()
    shutil.copy(control_plane.authority, sealed.volume / "authority.pem")
    kubeconfig = control_plane.kubeconfig("admin", namespace).read_text()
    assert str(control_plane.authority) in kubeconfig
    kubeconfig = kubeconfig.replace(str(control_plane.authority), f"{VOLUME}/authority.pem")
    (sealed.volume / "kubeconfig").write_text(kubeconfig)
    options = ["--kubeconfig", f"{VOLUME}/kubeconfig", "--namespace", namespace, "--lease-namespace", namespace]
    options += ["--health-port", str(port), "--metrics-port", str(port), "--lease-seconds", "3"]
    said = tmp_path / "operator.log"
    environment = sealed.environment(KUBERNETES_SERVICE_HOST="")
    with said.open("wb") as log:
        process = subprocess.Popen(sealed.command([*ENTRYPOINT, *options]), env=environment, stdout=log, stderr=log)
    try:
        until(lambda: answers(port, "/readyz") == 200, saying=lambda: said.read_text()[-2000:])
        place.apply(manifest())
        until(lambda: place.runs(), saying=lambda: said.read_text()[-2000:])
        assert answers(port, "/metrics") == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0, said.read_text()[-2000:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(5)
    assert "Read-only file system" not in said.read_text()
