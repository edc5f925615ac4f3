"""`scalingsweep logs` on a cluster: through the real API server, with the caller's rights, from a played kubelet."""

import json
import ssl
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from run_on_cluster import Ground, installed

from sweep_operator.cli import main
from sweep_operator.clusters.kubernetes.ownership import job_labels, run_labels

LINES = ["step 1 loss 9.1", "step 2 loss 8.7", "step 3 loss 8.2"]


class Kubelet:
    """Answers the API server's request for a container's log, as the kubelet of a node does."""

    def __init__(self, certificates):
        self.asked = []
        self.more = threading.Event()
        kubelet = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path, _, query = self.path.partition("?")
                asked = urllib.parse.parse_qs(query)
                kubelet.asked.append((path, asked))
                lines = LINES[len(LINES) - int(asked.get("tailLines", [len(LINES)])[0]) :]
                self.send_response(200)
                self.end_headers()
                self.wfile.write("".join(f"{line}\n" for line in lines).encode())
                if "follow" in asked:
                    kubelet.more.wait(30)
                    self.wfile.write(b"the end\n")

            def log_message(self, *_):
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "apiserver.crt", certificates / "apiserver.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    @property
    def port(self):
        return self._server.server_address[1]

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def plane(control_plane):
    with installed(control_plane):
        yield control_plane


@pytest.fixture
def ground(plane, namespace):
    ground = Ground(plane, namespace)
    for run in ground.runs:
        labels = [f"{name}={value}" for name, value in run_labels(run).items()]
        plane.kubectl("label", "scalingrun", run.metadata.name, "-n", namespace, *labels)
    return ground


@pytest.fixture
def kubelet(plane, namespace):
    """A node whose kubelet this test plays."""
    played = Kubelet(plane.folder / "certificates")
    plane.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": namespace}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": played.port}},
    }
    patch = json.dumps({"status": status})
    plane.kubectl("patch", "node", namespace, "--subresource=status", "--type=merge", "-p", patch)
    yield played
    played.close()
    plane.kubectl("delete", "node", namespace)


@pytest.fixture
def pods(ground, kubelet):
    """Of each run a pod on that node."""
    for run in ground.runs:
        metadata = {"name": f"{run.metadata.name}-1", "labels": job_labels(run, 1)}
        spec = {"nodeName": ground.namespace, "containers": [{"name": "trainer", "image": "any"}]}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        ground.plane.apply(account, "-n", ground.namespace)
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        ground.plane.apply(document, "-n", ground.namespace)


@pytest.fixture
def called(ground, capfdbinary):
    def call(*arguments, user="admin"):
        kubeconfig = ground.plane.kubeconfig(user, ground.namespace)
        status = main(["logs", *arguments, "--kubeconfig", str(kubeconfig)])
        done = capfdbinary.readouterr()
        return status, done.out.decode(), done.err.decode()

    return call


def test_a_runs_log_is_what_its_trainers_container_printed(ground, kubelet, pods, called):
    name = ground.runs[0].metadata.name
    assert called("web", name) == (0, "".join(f"{line}\n" for line in LINES), "")
    path, _ = kubelet.asked[-1]
    assert path == f"/containerLogs/{ground.namespace}/{name}-1/trainer"


def test_tail_shows_the_last_lines_and_a_part_of_the_name_is_enough(pods, called):
    assert called("web", "0000000b", "--tail", "1") == (0, LINES[-1] + "\n", "")


def test_follow_goes_on_until_the_container_ends(kubelet, pods, called):
    threading.Timer(0.5, kubelet.more.set).start()
    status, out, _ = called("web", "0000000a", "-f", "--tail", "0")
    assert (status, out) == (0, "the end\n")
    assert kubelet.asked[-1][1]["follow"] == ["true"]


def test_which_run_is_asked_where_several_may_be_meant(ground, called):
    status, _, errors = called("web")
    assert status == 2
    for run in ground.runs:
        assert run.metadata.name in errors
    assert "there is no run 70b" in called("web", "70b")[2]
    assert "web-30k may be any of these runs: " in called("web", "web-30k")[2]


def test_a_run_without_a_pod_says_where_its_log_went(called):
    status, out, errors = called("web", "0000000a")
    assert (status, out) == (2, "")
    assert "has no pod whose log could be read; pods go with their Jobs" in errors


def test_a_negative_tail_is_refused(called):
    assert called("web", "--tail", "-3") == (
        2,
        "",
        "scalingsweep logs: --tail is -3; it counts lines, from 0 upwards\n",
    )


def test_a_caller_who_may_not_read_logs_is_told_so_by_the_api_server(ground, pods, called):
    binding = ("create", "rolebinding", "looks", "--clusterrole=scalingsweep-view", "--user=viewer")
    ground.plane.kubectl(*binding, "-n", ground.namespace)
    status, out, errors = called("web", "0000000a", user="viewer")
    assert (status, out) == (1, "")
    assert 'User "viewer" cannot list resource "pods"' in errors
