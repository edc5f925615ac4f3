"""An HTTP proxy in front of a real API server that misbehaves, request by request, as a test says.

It speaks plain HTTP to the client and TLS to the server, so that it sees whole requests: it can refuse one with any
status, lose it before or after it took effect, delay it, carry it out twice, let it hang, or cut a watch in the middle.
Between the events of a watch others can be put in (`WatchStream`).
"""

import http.client
import json
import random
import socket
import ssl
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WATCH_READ_SECONDS = 600.0


@dataclass(frozen=True)
class Request:
    """What the proxy knows of a request when it decides."""

    method: str
    path: str
    query: dict[str, list[str]]

    @property
    def watches(self) -> bool:
        return "watch" in self.query

    @property
    def writes(self) -> bool:
        return self.method != "GET"

    @property
    def elects(self) -> bool:
        """Whether it is about a Lease."""
        return "/leases" in self.path


@dataclass(frozen=True)
class Fault:
    """What becomes of a request. In this order: it waits, it is carried out so many times, it is answered."""

    name: str
    wait_seconds: float = 0.0
    times: int = 1
    """How often it reaches the server."""
    status: int | None = None
    """Answered with this instead of the server's answer."""
    silent: bool = False
    """The connection is closed without an answer."""
    cut_after: int | None = None
    """A watch is cut after so many bytes, most likely within an event."""


LOST = Fault("dropped before it arrives", times=0, silent=True)
UNANSWERED = Fault("carried out, answer lost", silent=True)
TWICE = Fault("carried out twice", times=2)
SLOW = Fault("delayed by a second", wait_seconds=1.0)
HANGS = Fault("hangs for a quarter of a minute", wait_seconds=15.0, times=0, silent=True)
CUTS = tuple(Fault("watch cut within an event", cut_after=after) for after in (2_000, 12_000, 40_000))
"""An event is about ten thousand bytes: of three watches one is cut before it has told anything."""


def refused(status: int) -> Fault:
    """Answered with an error, and not carried out."""
    return Fault(f"answered {status}", times=0, status=status)


def failed_late(status: int) -> Fault:
    """Carried out, and answered with an error nevertheless."""
    return Fault(f"carried out, answered {status}", status=status)


REASONS = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}

Decide = Callable[[Request], Fault | None]


def storm(*faults: Fault, share: float, seed: int, of: Callable[[Request], bool] = lambda request: True) -> Decide:
    """One of the faults for a share of those requests, by a seeded choice."""
    chance = random.Random(seed)
    guard = threading.Lock()

    def decide(request: Request) -> Fault | None:
        with guard:
            hit = of(request) and chance.random() < share
            return chance.choice(faults) if hit else None

    return decide


class WatchStream:
    """A watch that is being relayed: whole events, so that others fit between them."""

    def __init__(self, request: Request, send: Callable[[bytes], None]) -> None:
        parts = request.path.split("/")
        self.resource = parts[-1]
        """Plural, as in the path."""
        self.version = request.query.get("resourceVersion", ["0"])[0]
        """The newest that the server has named on this watch."""
        self._send = send
        self._rest = b""
        self._sending = threading.Lock()
        self._open = True

    def relay(self, chunk: bytes, limit: int | None = None) -> int:
        """Pass on what is whole of it and of what came before, at most `limit` bytes; returns how many."""
        events, newline, self._rest = (self._rest + chunk).rpartition(b"\n")
        if not newline:
            return 0
        newest = json.loads(events.rpartition(b"\n")[2])
        with self._sending:
            self._send((events + newline)[:limit])
            self.version = newest["object"].get("metadata", {}).get("resourceVersion", self.version)
        return len(events + newline)

    def put_in(self, events: bytes) -> bool:
        """Send these as well; False where the watch has ended."""
        with self._sending:
            if not self._open or not events:
                return False
            try:
                self._send(events)
            except OSError:
                self._open = False
            return self._open

    def close(self) -> None:
        """Nothing more is put in."""
        with self._sending:
            self._open = False


@dataclass
class FaultyProxy:
    """`url` is where the client connects; `decide` may be replaced at any time."""

    target: str
    authority: str
    decide: Decide = lambda request: None
    faults: Counter[str] = field(default_factory=Counter)
    """How often each was done."""
    requests: int = 0
    written: int = 0
    """Writes that the server has carried out for the client, those of Leases aside."""
    _streams: list[WatchStream] = field(default_factory=list)
    _open: set[socket.socket] = field(default_factory=set)

    def __post_init__(self) -> None:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._tls = ssl.create_default_context(cafile=self.authority)
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def connect(self, seconds: float = 30.0) -> http.client.HTTPSConnection:
        """A connection to the real server."""
        host, _, port = self.target.removeprefix("https://").rpartition(":")
        return http.client.HTTPSConnection(host, int(port), timeout=seconds, context=self._tls)

    def streams(self) -> list[WatchStream]:
        """The watches that are relayed now."""
        return list(self._streams)

    def cut_everything(self) -> None:
        """Close every connection that is open now, watches among them."""
        for one in list(self._open):
            _close(one)

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self.cut_everything()


class _Handler(BaseHTTPRequestHandler):
    owner: FaultyProxy
    protocol_version = "HTTP/1.1"
    timeout = 120

    def setup(self) -> None:
        super().setup()
        self._upstream: http.client.HTTPSConnection | None = None
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.owner._open.add(self.connection)

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            return  # the client was killed, or has given up

    def finish(self) -> None:
        self.owner._open.discard(self.connection)
        if self._upstream:
            self._upstream.close()
        try:
            super().finish()
        except OSError:
            return  # the client has gone

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        try:
            self._answer()
        except (OSError, http.client.HTTPException):
            self.close_connection = True

    def _answer(self) -> None:
        owner = self.owner
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length) if length else None
        path, _, query = self.path.partition("?")
        request = Request(self.command, path, urllib.parse.parse_qs(query))
        fault = owner.decide(request) or Fault("")
        owner.requests += 1
        if fault.name:
            owner.faults[fault.name] += 1
        if fault.wait_seconds:
            time.sleep(fault.wait_seconds)
        if request.watches and fault.status is None and not fault.silent:
            self._relay_watch(request, body, fault.cut_after)
            return
        status, headers, content = 0, {}, b""
        for _ in range(fault.times):
            status, headers, content = self._forward(body)
            owner.written += request.writes and not request.elects and status < 300
        if fault.silent:
            self.close_connection = True
            _close(self.connection)
            return
        if fault.status is not None:
            status, headers, content = fault.status, {"content-type": "application/json"}, _status(fault.status)
        self.send_response(status)
        for name in ("content-type", "retry-after"):
            if name in headers:
                self.send_header(name, headers[name])
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _forward(self, body: bytes | None) -> tuple[int, dict[str, str], bytes]:
        for fresh in (False, True):
            if self._upstream is None or fresh:
                self._upstream = self.owner.connect()
            try:
                self._upstream.request(self.command, self.path, body, self._passed_on())
                response = self._upstream.getresponse()
                content = response.read()
            except (http.client.HTTPException, OSError):
                if fresh:
                    raise
                continue
            return response.status, {k.lower(): v for k, v in response.headers.items()}, content
        raise AssertionError("the second try returns or raises")

    def _relay_watch(self, request: Request, body: bytes | None, cut_after: int | None) -> None:
        upstream = self.owner.connect(WATCH_READ_SECONDS)
        stream = WatchStream(request, self._send_chunk)
        try:
            upstream.request(self.command, self.path, body, self._passed_on())
            response = upstream.getresponse()
            self.send_response(response.status)
            self.send_header("content-type", response.headers.get("content-type", "application/json"))
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            if response.status != http.client.OK:
                self._send_chunk(response.read())
                self.wfile.write(b"0\r\n\r\n")
                return
            self.owner._streams.append(stream)
            sent = 0
            while chunk := response.read1(65536):
                sent += stream.relay(chunk, None if cut_after is None else cut_after - sent)
                if cut_after is not None and sent >= cut_after:
                    self.close_connection = True
                    _close(self.connection)
                    return
            stream.close()
            self.wfile.write(b"0\r\n\r\n")
        finally:
            stream.close()
            if stream in self.owner._streams:
                self.owner._streams.remove(stream)
            upstream.close()

    def _send_chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _passed_on(self) -> dict[str, str]:
        kept = ("authorization", "content-type", "accept", "user-agent")
        return {name: self.headers[name] for name in kept if name in self.headers}

    def log_message(self, format: str, *arguments: Any) -> None:
        return


def _status(code: int) -> bytes:
    reason = REASONS.get(code, "InternalError")
    text = f'"message":"made up by the proxy","reason":"{reason}","code":{code}'
    return b'{"kind":"Status","apiVersion":"v1","status":"Failure",' + text.encode() + b"}"


def _close(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it was closed already
