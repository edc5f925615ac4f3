"""A TCP proxy between one client and the API server: it forwards, hangs (bytes wait), or drops, as the test says."""

import contextlib
import socket
import threading


class Partition:
    """`url` is where the client connects; `hang`, `drop` and `heal` say what becomes of its bytes."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("https://").rpartition(":")
        self._target = (host, int(port))
        self._flowing = threading.Event()
        self._flowing.set()
        self._refusing = False
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def hang(self) -> None:
        """Connections stay, new ones are taken, and no byte passes in either direction: a half-open network."""
        self._flowing.clear()

    def drop(self) -> None:
        """Connections break and new ones are closed at once."""
        self._refusing = True
        self._break()

    def heal(self) -> None:
        """Everything passes again; what waited in a hang is delivered late."""
        self._refusing = False
        self._flowing.set()

    def close(self) -> None:
        self._listener.close()
        self._flowing.set()
        self._break()

    def _break(self) -> None:
        for one in list(self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                client.close()
                continue
            self.accepted += 1
            server = socket.create_connection(self._target)
            self._sockets |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._sockets.discard(source)
        source.close()
