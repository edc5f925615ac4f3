"""An OpenTelemetry collector as far as tests need one: it keeps the spans that it is sent, over HTTP on loopback."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Self

from control_plane import free_port


class TraceCollector:
    """`answer` is the status that it gives; what it refuses it does not keep."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.headers: list[tuple[str, dict[str, str]]] = []
        """Path and headers of each request."""
        self.answer = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                collector.headers.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                if collector.answer == 200:
                    for resource in body["resourceSpans"]:
                        collector.spans += [span for scope in resource["scopeSpans"] for span in scope["spans"]]
                self.send_response(collector.answer)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads along."""

        self._port = free_port()
        self._server = HTTPServer(("127.0.0.1", self._port), Handler)

    @property
    def endpoint(self) -> str:
        """What OTEL_EXPORTER_OTLP_ENDPOINT would hold."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """Where traces go."""
        return f"{self.endpoint}/v1/traces"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
