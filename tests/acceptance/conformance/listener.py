"""Where telemetry is delivered to, in tests: listeners, and what they received."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from devtools.ports import LOOPBACK
from tests.support import LIMIT_S, wait_for

#: What one cold call is told as, in this order; lines of the function are among them.
COLD_CALL = [
    "platform.initStart",
    "platform.telemetrySubscription",
    "platform.initRuntimeDone",
    "platform.extension",
    "platform.initReport",
    "platform.start",
    "platform.runtimeDone",
    "platform.report",
]


def types_of(records: list[Any]) -> list[str]:
    """Return the type of each record, in order."""
    return [record["type"] for record in records]


def platform_types(records: list[Any]) -> list[str]:
    """Return the platform's types in order, the subscription before the end of the init.

    The runtime starts once the extensions are registered. An extension that subscribes later than
    the runtime is ready is told in the other order, as AWS does it.
    """
    types = [kind for kind in types_of(records) if kind != "function"]
    pair = ["platform.initRuntimeDone", "platform.telemetrySubscription"]
    if types[1:3] == pair:
        types[1:3] = reversed(pair)
    return types


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request of ours."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Listener:
    """An HTTP server that keeps what it is sent. As a context manager it ends."""

    def __init__(self, port: int = 0) -> None:
        """Listen on ``port``; take everything until :attr:`status` says otherwise."""
        self.status = 200
        self.deliveries: list[Delivery] = []
        self.connections = 0
        self._open: list[socket.socket] = []
        self._may_answer = threading.Event()
        self._may_answer.set()
        self._server = ThreadingHTTPServer((LOOPBACK, port), self._handler())
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def records(self) -> list[Any]:
        """Every record that was taken, in the order it came."""
        return [record for each in list(self.deliveries) for record in json.loads(each.body)]

    def of_type(self, *types: str) -> list[Any]:
        """Return the records of these types."""
        return [each for each in self.records if each["type"] in types]

    def wait_for(self, kind: str, count: int = 1) -> list[Any]:
        """Return all records once ``count`` of one type are there."""

        def find() -> list[Any] | None:
            records = self.records
            return records if [r["type"] for r in records].count(kind) >= count else None

        return wait_for(find, f"{count} {kind}")

    def hang(self) -> None:
        """Answer nothing from now on."""
        self._may_answer.clear()

    def go_on(self) -> None:
        """Answer again."""
        self._may_answer.set()

    def close(self) -> None:
        """End. Idempotent."""
        self._may_answer.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(LIMIT_S)
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        listener = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = LIMIT_S

            def setup(self) -> None:
                super().setup()
                listener.connections += 1
                listener._open.append(self.connection)

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                listener._may_answer.wait(LIMIT_S)
                status = listener.status
                if status < 400:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    listener.deliveries.append(Delivery(self.command, self.path, headers, body))
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def do_PUT(self) -> None:
                self.do_POST()

            def log_message(self, format: str, *arguments: Any) -> None:
                """Say nothing."""

        return Handler

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class TcpListener:
    """A TCP server that keeps the bytes it is sent over all connections, one after another."""

    def __init__(self) -> None:
        self.data = b""
        self.connections = 0
        self._socket = socket.create_server((LOOPBACK, 0))
        self.port = int(self._socket.getsockname()[1])
        self._peer: socket.socket | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def records(self) -> list[Any]:
        """Every record of a whole line."""
        return [json.loads(line) for line in self.data.split(b"\n")[:-1]]

    def wait_for(self, kind: str, count: int = 1) -> list[Any]:
        """Return all records once ``count`` of one type are there."""

        def find() -> list[Any] | None:
            records = self.records
            return records if [r["type"] for r in records].count(kind) >= count else None

        return wait_for(find, f"{count} {kind}")

    def hang_up(self) -> None:
        """Close the connection there is."""
        peer = self._peer
        assert peer is not None
        peer.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End."""
        self._socket.shutdown(socket.SHUT_RDWR)
        if self._peer is not None:
            with contextlib.suppress(OSError):
                self._peer.shutdown(socket.SHUT_RDWR)
        self._thread.join(LIMIT_S)
        self._socket.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._peer, _ = self._socket.accept()
                self.connections += 1
                with self._peer as peer, contextlib.suppress(OSError):
                    while data := peer.recv(65_536):
                        self.data += data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
