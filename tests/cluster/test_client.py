"""The client: what it repeats, what it never repeats, and what it says when nothing can be done."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kubernetes.client import Configuration

from sweep_operator.clusters.kubernetes.client import Api, ConnectError, Patience
from sweep_operator.clusters.kubernetes.errors import (
    AlreadyExists,
    ApiError,
    ConflictError,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    NotLeading,
    TooMany,
    TransportError,
)
from sweep_operator.clusters.kubernetes.resources import CONFIG_MAPS, JOBS, RUNS, SWEEPS, resource_of

QUICK = Patience(connect_seconds=1.0, read_seconds=1.0, write_seconds=1.0, retry_seconds=3.0)
PATH = CONFIG_MAPS.path("default", "one")


class Scripted(ThreadingHTTPServer):
    """Answers each request with the next status of a script (200 when it is used up); keeps what it was asked."""

    def __init__(self, *script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = list(script)
        self.asked = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        server = self.server
        server.asked.append((self.command, self.path, dict(self.headers), body))
        status, reason, headers = 200, "", {}
        if server.script:
            status, reason, headers = (*server.script.pop(0), {})[:3]
        if status == 0:  # cut off without an answer
            self.connection.close()
            return
        if status == -1:  # no answer until long after the client has given up
            time.sleep(2.0)
            return
        text = json.dumps({"kind": "Status", "reason": reason, "message": f"{reason} here"} if status >= 300 else {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - the base class's names

    def log_message(self, format, *args):
        pass


@pytest.fixture
def talk():
    """A client of a server that answers by script."""
    servers = []

    def begin(*script, patience=QUICK):
        server = Scripted(*script)
        servers.append(server)
        return server, Api(Configuration(host=f"http://127.0.0.1:{server.server_address[1]}"), patience)

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


def writes(api):
    return {
        "create": lambda: api.create(CONFIG_MAPS.path("default"), {}),
        "replace": lambda: api.replace(PATH, {}),
        "patch": lambda: api.patch(PATH, {}),
        "delete": lambda: api.delete(PATH),
    }


@pytest.mark.parametrize("trouble", [(429, "TooManyRequests"), (500, ""), (503, ""), (0, "")])
def test_reading_survives_trouble(talk, trouble):
    server, api = talk(trouble, trouble)
    assert api.get(PATH) == {}
    assert len(server.asked) == 3


@pytest.mark.parametrize("verb", ["replace", "patch", "delete"])
@pytest.mark.parametrize("trouble", [(429, ""), (500, ""), (503, ""), (0, ""), (-1, "")])
def test_a_write_that_may_be_repeated_is_repeated(talk, verb, trouble):
    server, api = talk(trouble)
    writes(api)[verb]()
    assert len(server.asked) == 2


def test_a_creation_is_repeated_only_when_it_was_surely_not_carried_out(talk):
    server, api = talk((429, "TooManyRequests"))
    writes(api)["create"]()
    assert len(server.asked) == 2
    for trouble in ((500, ""), (503, ""), (0, "")):
        server, api = talk(trouble)
        with pytest.raises((ApiError, TransportError)):
            writes(api)["create"]()
        assert len(server.asked) == 1


def test_the_servers_wish_for_a_pause_is_honoured_within_reason(talk):
    server, api = talk((429, "TooManyRequests", {"retry-after": "1"}))
    began = time.monotonic()
    api.get(PATH)
    assert time.monotonic() - began >= 0.5
    server, api = talk((429, "TooManyRequests", {"retry-after": "30"}))
    with pytest.raises(TooMany) as refused:
        api.get(PATH)
    assert refused.value.retry_after == 30.0, "a pause beyond the call's patience is the caller's"
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "BadRequest", Invalid),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (409, "Conflict", ConflictError),
        (409, "AlreadyExists", AlreadyExists),
        (410, "Expired", Gone),
        (422, "Invalid", Invalid),
    ],
)
def test_what_no_repetition_heals_is_raised_at_once_by_its_name(talk, status, reason, kind):
    server, api = talk((status, reason))
    with pytest.raises(kind, match=f"{reason} here"):
        api.patch(PATH, {})
    assert len(server.asked) == 1


def test_trouble_that_lasts_is_raised_when_patience_ends(talk):
    _, api = talk(*[(503, "ServiceUnavailable")] * 100)
    with pytest.raises(ApiError, match="503"):
        api.get(PATH)


@pytest.mark.parametrize("verb", ["create", "replace", "patch", "delete"])
def test_no_write_is_sent_without_the_lease_not_even_a_repetition(talk, verb):
    server, api = talk((429, ""), (429, ""))
    api.may_write = lambda: False
    with pytest.raises(NotLeading):
        writes(api)[verb]()
    assert server.asked == []
    asked = iter([True, False])
    api.may_write = lambda: next(asked)
    with pytest.raises(NotLeading):
        writes(api)[verb]()
    assert len(server.asked) == 1
    assert api.get(PATH) == {}, "reading needs no Lease"


def test_a_write_carries_its_deadline_so_that_the_server_gives_it_up_too(talk):
    server, api = talk()
    api.replace(PATH, {})
    api.get(PATH)
    assert [path.partition("?")[2] for _, path, _, _ in server.asked] == ["timeout=1s", ""]


def test_patches_say_what_kind_they_are_and_who_applies_them(talk):
    server, api = talk()
    api.patch(PATH, {})
    api.patch(PATH, {}, "apply", "trainer-records-1", force=True)
    api.patch(PATH, [], "json")
    types = [{k.lower(): v for k, v in headers.items()}["content-type"] for _, _, headers, _ in server.asked]
    assert types == ["application/merge-patch+json", "application/apply-patch+yaml", "application/json-patch+json"]
    assert "fieldManager=trainer-records-1&force=true" in server.asked[1][1]


def test_calls_are_counted_by_verb_resource_and_code(talk):
    _, api = talk((503, ""), (404, "NotFound"), (0, ""))
    with pytest.raises(NotFound):
        api.get(SWEEPS.path("default", "demo"))
    with pytest.raises(TransportError):
        api.create(RUNS.path("default"), {})
    assert api.calls == {
        ("get", "scalingsweeps", "503"): 1,
        ("get", "scalingsweeps", "404"): 1,
        ("create", "scalingruns", "error"): 1,
    }


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        (SWEEPS.path(), "scalingsweeps"),
        (SWEEPS.path("default", "demo", "status"), "scalingsweeps/status"),
        (JOBS.path("default"), "jobs"),
        (CONFIG_MAPS.path("default", "pods"), "configmaps"),
        ("/api/v1/namespaces/default", "namespaces"),
        ("/version", "api"),
    ],
)
def test_a_path_tells_its_resource(path, resource):
    assert resource_of(path) == resource


def test_an_answer_that_is_no_json_is_trouble_not_a_crash(talk, monkeypatch):
    _, api = talk()
    monkeypatch.setattr(json, "dumps", lambda *a, **k: "<html>")
    with pytest.raises(TransportError, match="not JSON"):
        api.get(PATH)


def test_a_token_that_rotates_is_read_anew(talk):
    server, api = talk()
    tokens = iter(["first", "second"])
    configuration = api._configuration
    configuration.refresh_api_key_hook = lambda c: c.api_key.update(BearerToken=f"bearer {next(tokens)}")
    api.get(PATH)
    api.get(PATH)
    sent = [{k.lower(): v for k, v in headers.items()}["authorization"] for _, _, headers, _ in server.asked]
    assert sent == ["bearer first", "bearer second"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "no API server is known: .*absent does not exist"),
        ("", "no API server is known: .*absent"),
        ("a: [", "no API server is known: .*absent"),
    ],
)
def test_a_kubeconfig_that_is_of_no_use_is_said_in_a_sentence(tmp_path, text, sentence):
    path = tmp_path / "absent"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConnectError, match=sentence):
        Api.connect(path)


def test_an_unknown_context_is_said_and_a_known_one_brings_its_namespace(control_plane):
    path = control_plane.kubeconfig("admin", "kube-system")
    assert Api.connect(path).namespace == "kube-system"
    with pytest.raises(ConnectError, match="elsewhere"):
        Api.connect(path, "elsewhere")
