"""One real node on this machine: containerd and the kubelet, with pods on a bridge that reaches the API server.

Owns both programs' configuration and the pods' network; how pods find services is `services`. Needs root on Linux, and
the Debian packages containerd, runc and containernetworking-plugins.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from control_plane import ControlPlane, program
from control_plane.programs import Running
from services import DNS_ADDRESS, DOMAIN, Services, ip

SERVICE_ADDRESS = "10.0.0.1"
"""The first address of the plane's service range: where a pod finds the API server."""
NODE_ADDRESS = "10.89.0.1"
"""Where the API server asks the kubelet for logs; a kubelet gives no loopback address as its own."""
BRIDGE, SUBNET = "sweep0", "10.88.0.0/16"
CNI_PLUGINS = Path("/usr/lib/cni")
NEEDED = ("containerd", "runc", "ctr", "ip")

_CONTAINERD = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
oom_score = 0
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{folder}/cni"
"""


def missing() -> str | None:
    """What this machine lacks, in a sentence, or None."""
    if os.geteuid() != 0:
        return "a kubelet needs root"
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    if lacking or not (CNI_PLUGINS / "bridge").exists():
        return f"install containerd, runc, iproute2 and containernetworking-plugins ({', '.join(lacking)} not found)"
    return None


class Node:
    """The node; `start` returns when it is Ready, `stop` takes away what it put up."""

    def __init__(self, plane: ControlPlane, folder: Path, pause_image: str) -> None:
        self.plane = plane
        self.folder = folder
        self.name = "this-machine"
        self._pause = pause_image
        self._parts: list[Running] = []
        self._services: Services | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "containerd.sock"

    def start(self, images: list[Path]) -> "Node":
        """Start everything; `images` are archives that pods may name."""
        self._network()
        (self.folder / "containerd.toml").write_text(
            _CONTAINERD.format(folder=self.folder, pause=self._pause, cni=CNI_PLUGINS)
        )
        self._run("containerd", Path(shutil.which("containerd") or ""), "-c", str(self.folder / "containerd.toml"))
        self._until(self.socket.exists, "containerd")
        for image in images:
            self.ctr("images", "import", str(image))
        self._kubelet()
        return self

    def stop(self) -> None:
        """End the node: its containers first, then both programs, then the network."""
        for part in reversed(self._parts):
            if part.log.name == "kubelet.log":
                part.stop()
        for container in self.ctr("containers", "list", "-q", check=False).split():
            self.ctr("tasks", "kill", "-s", "SIGKILL", container, check=False)
        time.sleep(0.5)
        for part in reversed(self._parts):
            part.stop()
        if self._services:
            self._services.close()
        ip("link", "delete", BRIDGE, check=False)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(str(self.folder))), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)

    def publish(self, namespace: str, service: str) -> None:
        """Let pods find a service by its name."""
        assert self._services, "the node was not started"
        self._services.publish(self.plane, namespace, service)

    def ctr(self, *arguments: str, check: bool = True) -> str:
        """Ask containerd."""
        command = ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=check, timeout=600).stdout

    # -- within ----------------------------------------------------------------------------------------------------

    def _network(self) -> None:
        folder = self.folder / "cni"
        folder.mkdir(parents=True, exist_ok=True)
        bridge = {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": BRIDGE,
                    "isGateway": True,
                    "isDefaultGateway": True,
                    "ipam": {"type": "host-local", "subnet": SUBNET, "dataDir": str(self.folder / "addresses")},
                }
            ],
        }
        (folder / "10-pods.conflist").write_text(json.dumps(bridge))
        self._services = Services()
        self._services.take(NODE_ADDRESS)
        self._services.carry(SERVICE_ADDRESS, 443, ("127.0.0.1", int(self.plane.url.rpartition(":")[2])))

    def _kubelet(self) -> None:
        configuration = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "evictionHard": {"memory.available": "100Mi"},
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "readOnlyPort": 0,
            "clusterDomain": DOMAIN,
            "clusterDNS": [DNS_ADDRESS],
            "resolvConf": "",
            "podLogsDir": str(self.folder / "pod-logs"),
            "volumePluginDir": str(self.folder / "volume-plugins"),
            "syncFrequency": "5s",
            "nodeStatusUpdateFrequency": "5s",
            "imageMinimumGCAge": "24h",
        }
        (self.folder / "kubelet.json").write_text(json.dumps(configuration))
        self._run(
            "kubelet",
            program("kubelet"),
            f"--config={self.folder / 'kubelet.json'}",
            f"--kubeconfig={self.plane.kubeconfig()}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--hostname-override={self.name}",
            f"--node-ip={NODE_ADDRESS}",
        )
        self._until(self._ready, "kubelet")

    def _ready(self) -> bool:
        said = self.plane.kubectl(
            "get", "node", self.name, "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].status}', check=False
        )
        return said.stdout == "True"

    def _run(self, name: str, path: Path, *arguments: str) -> None:
        self._parts.append(Running(path, arguments, self.folder / f"{name}.log"))

    def _until(self, ready: "object", name: str, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not ready():  # type: ignore[operator] # a callable
            if not self._parts[-1].alive or time.monotonic() > deadline:
                raise AssertionError(f"{name} is not ready:\n{self._parts[-1].tail(3000)}")
            time.sleep(0.2)
