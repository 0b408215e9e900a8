"""Where telemetry is delivered to, in tests: listeners, and what they received."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import Any, Self

from devtools.ports import LOOPBACK
from tests.http_listener import HttpListener
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


class _Records:
    """What both listeners tell of their records."""

    records: list[Any]

    def of_type(self, *types: str) -> list[Any]:
        """Return the records of these types."""
        return [each for each in self.records if each["type"] in types]

    def wait_for(self, kind: str, count: int = 1) -> list[Any]:
        """Return all records once ``count`` of one type are there."""

        def find() -> list[Any] | None:
            records = self.records
            return records if types_of(records).count(kind) >= count else None

        return wait_for(find, f"{count} {kind}")


class Listener(HttpListener, _Records):
    """An HTTP server that keeps the records it is sent."""

    @property
    def records(self) -> list[Any]:  # type: ignore[override] # computed here
        """Every record that was taken, in the order it came."""
        return [record for each in list(self.deliveries) for record in json.loads(each.body)]


class TcpListener(_Records):
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
    def records(self) -> list[Any]:  # type: ignore[override] # computed here
        """Every record of a whole line."""
        return [json.loads(line) for line in self.data.split(b"\n")[:-1]]

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
