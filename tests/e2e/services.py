"""Services of the cluster, as its pods find them: a name server, and each service's address carried to its pods.

Stands for CoreDNS and kube-proxy, which this node has not; knows one pod to a service, IPv4 and no search of its own.
"""

import contextlib
import socket
import struct
import subprocess
import threading
from collections.abc import Mapping

from control_plane import ControlPlane

DOMAIN = "cluster.local"
DNS_ADDRESS = "10.0.0.10"
"""In the part of the plane's service range that is given out by hand."""
_ADDRESS, _INTERNET = 1, 1
_ANSWERED, _NO_SUCH_NAME = 0x8580, 0x8583
"""Of a reply's flags: authoritative, recursion asked for and had; and with NXDOMAIN."""


class Forwarder:
    """Connections to one address carried to another, a thread for each direction."""

    def __init__(self, listen: tuple[str, int], target: tuple[str, int]) -> None:
        self._target = target
        self._server = socket.create_server(listen, reuse_port=False)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no new connection."""
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(self._target)
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=_carry, args=(source, sink), daemon=True).start()


class Services:
    """Addresses on this machine's loopback device, with what listens on them; `close` takes all away."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._addresses: list[str] = []
        self._forwarders: list[Forwarder] = []
        self.take(DNS_ADDRESS)
        self._server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._server.bind((DNS_ADDRESS, 53))
        threading.Thread(target=self._answer, daemon=True).start()

    def carry(self, address: str, port: int, target: tuple[str, int]) -> None:
        """Let an address lead to a target."""
        if address not in self._addresses:
            self.take(address)
        self._forwarders.append(Forwarder((address, port), target))

    def publish(self, plane: ControlPlane, namespace: str, name: str) -> None:
        """Let pods find a service by its name; its one pod must be ready."""
        service = plane.get("service", name, "-n", namespace)["spec"]
        slices = plane.get("endpointslices", "-n", namespace, "-l", f"kubernetes.io/service-name={name}")["items"]
        (pod,) = [endpoint["addresses"][0] for one in slices for endpoint in one["endpoints"]]
        ports = {port["name"]: port["port"] for one in slices for port in one["ports"]}
        for port in service["ports"]:
            self.carry(service["clusterIP"], port["port"], (pod, ports[port["name"]]))
        self._names[f"{name}.{namespace}.svc.{DOMAIN}"] = service["clusterIP"]

    def take(self, address: str) -> None:
        """Let this machine have an address."""
        ip("address", "replace", f"{address}/32", "dev", "lo")
        self._addresses.append(address)

    def close(self) -> None:
        """Take everything away."""
        for forwarder in self._forwarders:
            forwarder.close()
        self._server.close()
        for address in self._addresses:
            ip("address", "delete", f"{address}/32", "dev", "lo", check=False)

    def _answer(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                asked, sender = self._server.recvfrom(512)
                self._server.sendto(reply(asked, self._names), sender)


def reply(asked: bytes, names: Mapping[str, str]) -> bytes:
    """The answer to one DNS query (RFC 1035) from addresses by name."""
    labels, at = [], 12
    while length := asked[at]:
        labels.append(asked[at + 1 : at + 1 + length].decode())
        at += 1 + length
    question = asked[12 : at + 5]
    kind = int.from_bytes(asked[at + 1 : at + 3], "big")
    address = names.get(".".join(labels).lower())
    found = address is not None and kind == _ADDRESS
    flags = _ANSWERED if address else _NO_SUCH_NAME
    head = struct.pack(">HHHHHH", int.from_bytes(asked[:2], "big"), flags, 1, int(found), 0, 0)
    if not found or address is None:
        return head + question
    return head + question + struct.pack(">HHHIH", 0xC00C, _ADDRESS, _INTERNET, 5, 4) + socket.inet_aton(address)


def ip(*arguments: str, check: bool = True) -> None:
    """iproute2."""
    subprocess.run(["ip", *arguments], check=check, capture_output=True, timeout=20)


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            sink.sendall(chunk)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
