"""Ports of this machine that lead to ports of the node, as Docker publishes a container's."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Mapping
from typing import Final

from devtools.ports import LOOPBACK

_CHUNK: Final = 65536


class Relays:
    """Relays TCP connections; each has two threads, one for each way."""

    def __init__(self, address: str, ports: Mapping[int, int]) -> None:
        """Relay from each loopback port (a key) to a port of ``address``."""
        self._servers = [_Server((LOOPBACK, port), _handler((address, to)))
                         for port, to in ports.items()]  # fmt: skip
        for server in self._servers:
            threading.Thread(target=server.serve_forever, name="relay", daemon=True).start()

    def stop(self) -> None:
        """Take no more connections; those that are open end with one of their ends."""
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


def _handler(to: tuple[str, int]) -> type[socketserver.BaseRequestHandler]:
    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), socket.create_connection(to) as other:
                back = threading.Thread(target=_copy, args=(other, self.request), daemon=True)
                back.start()
                _copy(self.request, other)
                back.join()

    return Relay


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes, and in the end the end."""
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
