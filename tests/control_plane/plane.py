"""etcd and kube-apiserver, and on request controller-manager, scheduler and simulated nodes, of one test session.

Owns their flags, ports, logs and order. A plane lives in one folder; every part of it ends with the test process.
"""

import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from control_plane import identities
from control_plane.build import program
from control_plane.programs import Running, free_port
from control_plane.simulated import STAGES, node

_RAISED_LIMITS = ("--kube-api-qps=500", "--kube-api-burst=1000")


class NotReadyError(Exception):
    """A part of the control plane did not become ready; the message ends with its log's last lines."""


class ControlPlane:
    """A running control plane; `url`, `authority` and `kubeconfig(user)` are how to reach it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: dict[str, Running] = {}
        self._etcd_port = self._peer_port = self._port = 0
        folder.mkdir(parents=True, exist_ok=True)
        identities.write_tokens(folder / "tokens.csv")
        identities.write_signing_key(folder / "service-accounts.key")

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    @property
    def authority(self) -> Path:
        """Certificates by which the API server's own is trusted."""
        return self.folder / "certificates" / "apiserver.crt"

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> "ControlPlane":
        """Start etcd and the API server and wait until it is ready. A port taken in between is tried anew."""
        for attempt in range(3):
            self._etcd_port, self._peer_port, self._port = free_port(), free_port(), free_port()
            try:
                self.start_etcd()
                self.start_apiserver()
                return self
            except NotReadyError:
                slow = all(part.alive for part in self.parts.values())
                self.stop()
                if slow or attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def start_etcd(self) -> None:
        """Start etcd, again on the same port and data if it ran before."""
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}"
        self._start(
            "etcd",
            "--unsafe-no-fsync",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--log-level=warn",
        )
        self._until(lambda: _answers(f"{client}/health", None), "etcd")

    def start_apiserver(self, *extra: str) -> None:
        """Start the API server, again on the same port if it ran before; `extra` flags come last."""
        key = self.folder / "service-accounts.key"
        self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            f"--cert-dir={self.folder / 'certificates'}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._port}",
            "--endpoint-reconciler-type=none",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--max-requests-inflight=2000",
            "--max-mutating-requests-inflight=1000",
            *extra,
        )
        self._until(lambda: _answers(f"{self.url}/readyz", self.authority), "kube-apiserver")

    def run_workloads(self, *controller_manager: str) -> None:
        """Start controller-manager, scheduler and kwok, unless they run: Jobs then have pods, and pods a life.

        `controller_manager`: further flags of its own.
        """
        access = f"--kubeconfig={self.kubeconfig()}"
        if "kube-controller-manager" not in self.parts:
            self._start(
                "kube-controller-manager",
                access,
                f"--service-account-private-key-file={self.folder / 'service-accounts.key'}",
                f"--root-ca-file={self.authority}",
                "--leader-elect=false",
                "--secure-port=0",
                "--controllers=*,-kube-apiserver-serving-clustertrustbundle-publisher-controller",
                "--concurrent-job-syncs=20",
                "--concurrent-gc-syncs=40",
                *_RAISED_LIMITS,
                *controller_manager,
            )
        if "kube-scheduler" not in self.parts:
            self._start("kube-scheduler", access, "--leader-elect=false", "--secure-port=0", *_RAISED_LIMITS)
        if "kwok" not in self.parts:
            stages = self.folder / "stages.yaml"
            stages.write_text(STAGES)
            self._start(
                "kwok",
                access,
                f"--config={stages}",
                "--manage-all-nodes=false",
                "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
                "--node-lease-duration-seconds=40",
            )

    def add_nodes(self, count: int = 1, gpus: int = 8, prefix: str = "gpu") -> list[str]:
        """Simulated nodes with that many GPUs each; waits until they are Ready. Returns their names."""
        names = [f"{prefix}-{i}" for i in range(count)]
        documents = [node(name, gpus) for name in names]
        self.apply({"apiVersion": "v1", "kind": "List", "items": documents})
        self.kubectl("wait", "--for=condition=Ready", "--timeout=60s", *(f"node/{name}" for name in names))
        return names

    def stop(self) -> None:
        """End every part, the youngest first."""
        for name in reversed(list(self.parts)):
            self.stop_part(name)

    def stop_part(self, name: str) -> None:
        """End one part (`etcd`, `kube-apiserver`, …); its data stay."""
        self.parts.pop(name).stop()

    # -- use -------------------------------------------------------------------------------------------------------

    def kubeconfig(self, user: str = "admin", namespace: str = "default", server: str | None = None) -> Path:
        """A kubeconfig file for a user of `identities.USERS`; `server` where it is reached through a proxy."""
        return self.kubeconfig_for(identities.token(user), user, namespace, server)

    def kubeconfig_for(self, bearer: str, name: str, namespace: str = "default", server: str | None = None) -> Path:
        """A kubeconfig file for any bearer token, such as a service account's."""
        through = "" if server is None else "-" + server.rpartition(":")[2]
        path = self.folder / f"{name}-{namespace}{through}.kubeconfig"
        identities.write_kubeconfig(path, server or self.url, self.authority, name, bearer, namespace)
        return path

    def service_account_token(self, namespace: str, account: str) -> str:
        """A token of a service account, valid for an hour."""
        return self.kubectl("create", "token", account, "-n", namespace).stdout.strip()

    def kubectl(
        self, *arguments: str, user: str = "admin", stdin: str | None = None, check: bool = True, timeout: float = 90
    ) -> subprocess.CompletedProcess[str]:
        """Run the real kubectl as a user."""
        done = subprocess.run(
            [str(program("kubectl")), f"--kubeconfig={self.kubeconfig(user)}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={"KUBECACHEDIR": str(self.folder / "discovery"), "HOME": str(self.folder), "PATH": "/usr/bin:/bin"},
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done

    def apply(self, document: dict[str, Any], *arguments: str, user: str = "admin") -> None:
        """Apply a document or a List, server-side."""
        self.kubectl("apply", "--server-side", "-f", "-", *arguments, user=user, stdin=json.dumps(document))

    def install(self, definitions: Path) -> None:
        """Apply a folder of CustomResourceDefinitions and wait until they are served."""
        self.kubectl("apply", "--server-side", "-f", str(definitions))
        self.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(definitions))

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get … -o json`, read."""
        document: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)
        return document

    # -- within ----------------------------------------------------------------------------------------------------

    def _start(self, name: str, *arguments: str) -> None:
        self.parts[name] = Running(program(name), arguments, self.folder / f"{name}.log")

    def _until(self, ready: Callable[[], bool], name: str, seconds: float = 90.0) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.parts[name].alive:
                raise NotReadyError(f"{name} ended while it started:\n{self.parts[name].tail()}")
            if time.monotonic() > deadline:
                raise NotReadyError(f"{name} was not ready after {seconds:.0f} s:\n{self.parts[name].tail()}")
            time.sleep(0.05)


def _answers(url: str, authority: Path | None) -> bool:
    if authority is not None and not authority.exists():
        return False
    try:
        context = ssl.create_default_context(cafile=str(authority)) if authority else None
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {identities.token('admin')}"})
        with urllib.request.urlopen(request, timeout=2, context=context) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
