"""Small HTTP servers for probes and scrapes.

Owns paths and status codes. `/healthz` fails when only a restart can help; `/readyz` while what is known may be old.
Readiness does not ask for the Lease: in a rolling upgrade the new process must count as ready while it waits for it.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6

Finding = Mapping[str, str]
"""What is wrong, by name of the check; empty while all is well."""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    status: int
    content_type: str
    body: bytes


Make = Callable[[str], Page]
"""Makes a page when it is asked for, of one of the kinds in the request's Accept header."""


def verdict(finding: Callable[[], Finding]) -> Make:
    """200 `ok`, or 503 with one line for each thing that is wrong."""

    def page(accept: str) -> Page:
        wrong = finding()
        text = "".join(f"{name}: {why}\n" for name, why in sorted(wrong.items())) or "ok\n"
        return Page(503 if wrong else 200, "text/plain; charset=utf-8", text.encode())

    return page


class PagesTakenError(Exception):
    """The port cannot be had."""


class Server:
    """Pages by path, each made when it is asked for, on a port of all addresses."""

    def __init__(self, port: int, pages: Mapping[str, Make], address: str = "") -> None:
        kind = type("Handler", (_Handler,), {"pages": dict(pages)})
        server = type("PageServer", (_DualStack if not address else ThreadingHTTPServer,), {"daemon_threads": True})
        try:
            self._server: ThreadingHTTPServer = server((address, port), kind)
        except (OSError, OverflowError) as error:
            raise PagesTakenError(f"port {port} cannot be listened on: {error}") from None
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name=f"http-{self.port}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _DualStack(ThreadingHTTPServer):
    """On IPv6 and IPv4 alike where the machine has both."""

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = AF_INET6
        try:
            super().__init__(("::", address[1]), handler)
        except OSError:
            self.address_family = AF_INET
            super().__init__(("0.0.0.0", address[1]), handler)  # noqa: S104 - a pod's probes come from outside


class _Handler(BaseHTTPRequestHandler):
    pages: Mapping[str, Make] = {}
    timeout = 10

    def do_GET(self) -> None:
        """Answer one request."""
        make = self.pages.get(self.path.split("?")[0])
        page = (
            make(self.headers.get("accept", "")) if make else Page(404, "text/plain; charset=utf-8", b"no such page\n")
        )
        self.send_response(page.status)
        self.send_header("content-type", page.content_type)
        self.send_header("content-length", str(len(page.body)))
        self.end_headers()
        self.wfile.write(page.body)

    def log_message(self, format: str, *args: object) -> None:
        """Probes are not worth an entry."""
