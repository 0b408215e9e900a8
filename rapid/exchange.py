"""An HTTP request and its one answer. Any thread may give it."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, Protocol

from lambda_protocol.byte_budget import FREE_BYTES
from lambda_protocol.http1 import Request
from lambda_protocol.http_head import encode_head

logger = logging.getLogger(__name__)

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
#: Heads of answers that are always the same, such as that to a response.
_CACHED_HEADS: Final = 64

#: Statuses whose answer has no body, and whose Content-Length would be that of another answer.
_BODILESS: Final = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)

#: A tuple has fixed values, and a list those of one answer.
Headers = tuple[tuple[str, str], ...] | list[tuple[str, str]]
#: Every answer of the Runtime API has a Content-Type: awslambdaric crashes on one without.
JSON: Final[Headers] = (("Content-Type", "application/json"),)
TEXT: Final[Headers] = (("Content-Type", "text/plain; charset=utf-8"),)
#: Makes the answer to a request that is no HTTP, or whose handler failed.
RenderError = Callable[[int, str], tuple[Headers, bytes]]


class Answerable(Protocol):
    """Where an answer goes: a connection, or what stands in for one."""

    @property
    def lock(self) -> threading.Lock:
        """Held for a moment by an exchange that answers: the connection has one at a time."""

    def render_error(self, status: int, message: str) -> tuple[Headers, bytes]:
        """Return the answer in the place of one that cannot be sent."""

    def send_answer(self, head: bytes, body: bytes, is_last: bool) -> bool:
        """Send both, the last of the connection if ``is_last``; False: the peer is gone."""

    def send_interim(self) -> None:
        """Send an interim response; raises ``OSError``."""

    @property
    def peer_address(self) -> str:
        """The IP address of the peer, empty if it is gone."""


class Exchange:
    """A request and its one answer. Thread-safe: the first answer counts, of any thread."""

    __slots__ = (
        "_answered",
        "_connection",
        "_lock",
        "extra_headers",
        "is_unstarted",
        "on_disconnect",
        "request",
    )

    def __init__(self, connection: Answerable, request: Request) -> None:
        """Belongs to ``connection``, which reads the next request only after the answer."""
        self.request = request
        self.extra_headers: Headers = ()  #: added to the answer
        #: Called by the connection's thread if the peer goes away unanswered.
        self.on_disconnect: Callable[[], object] | None = None
        #: Set for a peer that may send a FIN and still read. While it is true, such a peer is sent
        #: interim responses. If it is None, a FIN means that the peer is gone.
        self.is_unstarted: Callable[[], bool] | None = None
        self._connection = connection
        self._lock = connection.lock
        self._answered = False

    def answer(self, status: int, headers: Headers = (), body: bytes = b"") -> bool:
        """Send the response. False: the peer is gone, or another thread has answered.

        Never blocks: the listener's sender writes the bytes that the peer does not take at once.
        """
        with self._lock:
            if self._answered:
                return False
            self._answered = True
        self.on_disconnect = None
        self.is_unstarted = None  # both know the payload
        request = self.request
        request.release()
        try:
            head = self._encode(status, headers, len(body))
        except ValueError as error:
            logger.error("response not sendable", extra={"error": error})
            headers, body = self._connection.render_error(502, "Bad Gateway")
            head = self._encode(502, headers, len(body))
        if request.method == "HEAD":  # a body would be taken for the next answer
            body = b""
        if len(body) <= FREE_BYTES:
            head, body = head + body, b""
        return self._connection.send_answer(head, body, request.is_last)

    def _encode(self, status: int, headers: Headers, size: int) -> bytes:
        """Return the head of an answer whose body has ``size`` bytes; raises ``ValueError``."""
        connection = ""
        if self.request.is_last:
            connection = "close"
        elif not self.request.is_http_1_1:
            connection = "keep-alive"
        if self.extra_headers:
            headers = [*headers, *self.extra_headers]
        if isinstance(headers, tuple):
            return _encode_fixed(status, headers, size, connection)
        return _encode(status, headers, size, connection)

    def send_interim(self) -> None:
        """Send an interim response, unless the answer is sent or on its way; raises ``OSError``."""
        with self._lock:
            if not self._answered:
                self._connection.send_interim()

    @property
    def peer_address(self) -> str:
        """The IP address of the peer, empty if it is gone."""
        return self._connection.peer_address

    @property
    def is_answered(self) -> bool:
        """Whether the response is sent or on its way."""
        return self._answered


def _encode(status: int, headers: Headers, size: int, connection: str) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if status not in _BODILESS:
        lines.append(f"Content-Length: {size}")
    if connection:
        lines.append(f"Connection: {connection}")
    return encode_head(lines)


_encode_fixed = functools.lru_cache(_CACHED_HEADS)(_encode)


class KeptAnswer:
    """Stands in for a connection: keeps the answer, which is all there by then."""

    def __init__(self, render_error: RenderError) -> None:
        """Answer with ``render_error`` where an answer cannot be sent."""
        self.render_error = render_error
        self.lock = threading.Lock()
        self.data = b""

    def send_answer(self, head: bytes, body: bytes, _is_last: bool) -> bool:
        """Keep both."""
        self.data = head + body
        return True

    def send_interim(self) -> None:
        """Send nothing: no client is connected."""

    peer_address = ""
