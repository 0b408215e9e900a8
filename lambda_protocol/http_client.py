"""An HTTP client whose every exchange is bounded: one deadline for all of it, and so many bytes.

``http.client`` bounds each read alone: a peer that sends a byte a second, or that never ends, keeps
its caller for ever. Imported late by rapid: ``http.client`` is a tenth of the start time.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from lambda_protocol.address import Address

if TYPE_CHECKING:
    import ssl

    from _typeshed import WriteableBuffer

#: How much is read of an answer whose status is all that counts, bytes with its head.
STATUS_ANSWER_BYTES: Final = 65_536
#: What a head, and the frames of a chunked body of ``n`` bytes, add to it: this and ``n``.
_OVERHEAD_BYTES: Final = 65_536


class AnswerTooLargeError(http.client.HTTPException):
    """The peer sends more than an answer may have; the connection is of no more use."""


class BoundedConnection(http.client.HTTPConnection):
    """A connection whose exchanges begin with :meth:`begin`. One thread.

    Everything raises ``TimeoutError`` once the exchange is over its time, else ``OSError`` or
    ``HTTPException``; the caller then closes the connection.
    """

    def __init__(self, address: Address, *, tls: ssl.SSLContext | None = None) -> None:
        """Connect on use; ``tls`` makes it HTTPS."""
        super().__init__(*address)
        self._tls = tls
        self._ends_at = 0.0
        self._left_bytes = 0
        #: Waits for bytes of the answer, if a read itself is not to wait; may raise.
        self.before_read: Callable[[socket.socket], None] | None = None

    def begin(self, limit_s: float) -> None:
        """Give what follows ``limit_s``: connecting, the request and the whole answer."""
        self._ends_at = time.monotonic() + limit_s

    def connect(self) -> None:
        """Connect to the first address of the host that takes it."""
        error: OSError = ConnectionError(f"{self.host} has no address")
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, name in found:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(self._left_s())
                sock.connect(name)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None:
                    sock.settimeout(self._left_s())
                    sock = self._tls.wrap_socket(sock, server_hostname=self.host)
            except OSError as failed:
                sock.close()
                error = failed
            else:
                self.sock = sock
                return
        raise error

    def send(self, data: Any) -> None:
        """Send bytes; connects before the first ones."""
        if self.sock is None:
            self.connect()
        view = memoryview(data)
        while view:
            self.sock.settimeout(self._left_s())
            view = view[self.sock.send(view) :]

    def read_answer(self, max_body_bytes: int) -> tuple[http.client.HTTPResponse, bytes]:
        """Return the answer and its body; raises ``AnswerTooLargeError`` beyond the limit."""
        with self.begin_answer(max_body_bytes) as response:
            return response, self.read_body(response, max_body_bytes)

    def begin_answer(self, max_body_bytes: int) -> http.client.HTTPResponse:
        """Return the answer, whose body has yet to be read; of more bytes a read raises."""
        self._left_bytes = 2 * max_body_bytes + _OVERHEAD_BYTES
        return self.getresponse()

    def read_body(self, response: http.client.HTTPResponse, max_body_bytes: int) -> bytes:
        """Return the body of an answer; raises ``AnswerTooLargeError`` beyond the limit."""
        if response.length is None:  # chunked, or until the peer closes
            body = response.read(max_body_bytes + 1)
        else:
            body = response.read() if response.length <= max_body_bytes else b""
        if len(body) > max_body_bytes or response.length:
            raise AnswerTooLargeError(f"the answer's body is over {max_body_bytes} bytes")
        return body

    def read_status(self) -> int:
        """Return the answer's status; a body that does not end in time or space is not waited for.

        The connection is closed then.
        """
        self._left_bytes = STATUS_ANSWER_BYTES
        with self.getresponse() as response:
            with contextlib.suppress(OSError, http.client.HTTPException):
                response.read(STATUS_ANSWER_BYTES)
            if not response.isclosed():
                self.close()
            return response.status

    def response_class(  # type: ignore[override]  # a class, but it is only called
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None
    ) -> http.client.HTTPResponse:
        """Return the response that ``http.client`` reads from ``sock``, within the bounds."""
        source: Any = _Source(self, sock)
        return http.client.HTTPResponse(source, debuglevel, method=method)

    def read_into(self, sock: socket.socket, raw: io.RawIOBase, buffer: memoryview) -> int:
        """Read from ``sock`` by ``raw`` what time and space are left for."""
        if not self._left_bytes:
            raise AnswerTooLargeError("the answer does not end")
        if self.before_read is not None:
            self.before_read(sock)
        sock.settimeout(self._left_s())
        count = raw.readinto(buffer[: self._left_bytes]) or 0
        self._left_bytes -= count
        return count

    def _left_s(self) -> float:
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the exchange is over its time")
        return left_s


class _Source:
    """What ``HTTPResponse`` asks of a socket."""

    def __init__(self, connection: BoundedConnection, sock: socket.socket) -> None:
        self._connection = connection
        self._socket = sock

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._connection, self._socket))


class _Reader(io.RawIOBase):
    """The reading side of a socket, which stays open as long as this."""

    def __init__(self, connection: BoundedConnection, sock: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self._socket = sock
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        return self._connection.read_into(self._socket, self._raw, memoryview(buffer))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._raw.close()
        super().close()
