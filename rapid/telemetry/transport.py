"""The ways to a subscriber of telemetry: HTTP and TCP.

Imported with the first subscription: the HTTP client is a tenth of the start time.
"""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Sequence
from typing import Final, Protocol

from lambda_protocol.address import Address
from lambda_protocol.http_client import BoundedConnection
from lambda_protocol.http_peer import has_ended
from rapid.telemetry.subscription import Endpoint

#: Records are delivered here, whatever name the destination has.
HOST: Final = "127.0.0.1"
#: What sending has when connecting took all the time: a socket's timeout of 0 is none at all.
_LEAST_S: Final = 0.001


class Transport(Protocol):
    """A way to a destination. One thread: the subscriber's."""

    def send(self, records: Sequence[bytes], limit_s: float) -> None:
        """Deliver a batch; raises ``OSError`` when it was not taken."""

    def close(self) -> None:
        """Hang up. Idempotent."""


def open_transport(endpoint: Endpoint) -> Transport:
    """Return the way to ``destination``; it connects on use."""
    return TcpTransport(endpoint) if endpoint.path is None else HttpTransport(endpoint)


class HttpTransport:
    """Posts JSON arrays over one keep-alive connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Connect on use."""
        self._endpoint = endpoint
        self._connection = BoundedConnection(Address(HOST, endpoint.port))

    def send(self, records: Sequence[bytes], limit_s: float) -> None:
        """Post one batch; a status of 400 or more has not taken it."""
        try:
            status = self._post(records, limit_s)
        except http.client.HTTPException as error:
            raise ConnectionError(repr(error)) from error
        if status >= 400:
            raise ConnectionError(f"status {status}")

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _post(self, records: Sequence[bytes], limit_s: float) -> int:
        connection, endpoint = self._connection, self._endpoint
        if connection.sock is not None and has_ended(connection.sock):
            connection.close()
        connection.begin(limit_s)
        body = b"[" + b",".join(records) + b"]"
        connection.putrequest(endpoint.method, endpoint.path or "/", skip_host=True)
        for name, value in (
            ("Host", endpoint.host),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
        ):
            connection.putheader(name, value)
        connection.endheaders(body)
        return connection.read_status()


class TcpTransport:
    """Writes one record a line to one connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Connect on use."""
        self._port = endpoint.port
        self._socket: socket.socket | None = None

    def send(self, records: Sequence[bytes], limit_s: float) -> None:
        """Write one batch."""
        if self._socket is not None and has_ended(self._socket, may_send=True):
            self.close()
        ends_at = time.monotonic() + limit_s
        if self._socket is None:
            self._socket = socket.create_connection((HOST, self._port), limit_s)
        self._socket.settimeout(max(_LEAST_S, ends_at - time.monotonic()))
        self._socket.sendall(b"".join(body + b"\n" for body in records))

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
