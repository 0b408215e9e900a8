"""An HTTP server of the test's own that keeps what it is sent."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from devtools.ports import LOOPBACK
from lambda_protocol.address import Address
from tests.support import LIMIT_S


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request of ours."""

    method: str
    path: str
    headers: dict[str, str]  #: by lower-case name
    body: bytes


class HttpListener:
    """Keeps each POST and PUT that it takes. As a context manager it ends."""

    def __init__(self, port: int = 0, *, host: str = LOOPBACK) -> None:
        """Listen; take everything until :attr:`status` says otherwise."""
        self.status = 200
        self.page = b""  #: what a GET shows
        self.deliveries: list[Delivery] = []
        self.connections = 0
        self._open: list[socket.socket] = []
        self._may_answer = threading.Event()
        self._may_answer.set()

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            daemon_threads = True

        self._server = Server((host, port), self._handler())
        self.port = int(self._server.server_port)
        self.address = Address(host, self.port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

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
                body = self.rfile.read(int(self.headers["Content-Length"]))
                listener._may_answer.wait(LIMIT_S)
                status = listener.status
                if status < 400:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    listener.deliveries.append(Delivery(self.command, self.path, headers, body))
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(listener.page)))
                self.end_headers()
                self.wfile.write(listener.page)

            do_PUT = do_POST  # noqa: N815 - http.server's name

            def log_message(self, format: str, *arguments: Any) -> None:
                """Say nothing."""

        return Handler

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
