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
from rapid.streamed_answer import StreamedAnswer

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

    def send_part(self, data: bytes, on_sent: Callable[[], None]) -> bool | None:
        """Send a part of an answer; see :class:`rapid.streamed_answer.PartSender`."""

    def end_parts(self, data: bytes, is_last: bool) -> None:
        """Send the last bytes of an answer in parts."""


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
        "streamed",
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
        self.streamed: StreamedAnswer | None = None  #: the answer, if it is sent while it is made
        self._connection = connection
        self._lock = connection.lock
        self._answered = False

    def answer(self, status: int, headers: Headers = (), body: bytes = b"") -> bool:
        """Send the response. False: the peer is gone, or another thread has answered.

        Never blocks: the listener's sender writes the bytes that the peer does not take at once.
        """
        if not self._begin():
            return False
        if self.request.read_into is not None:
            self.request.is_last = True  # what is left of its body is no request
        try:
            head = self._encode(status, headers, len(body))
        except ValueError as error:
            logger.error("response not sendable", extra={"error": error})
            headers, body = self._connection.render_error(502, "Bad Gateway")
            head = self._encode(502, headers, len(body))
        request = self.request
        if request.method == "HEAD":  # a body would be taken for the next answer
            body = b""
        if len(body) <= FREE_BYTES:
            head, body = head + body, b""
        return self._connection.send_answer(head, body, request.is_last)

    def stream(self, status: int, headers: Headers = ()) -> StreamedAnswer | None:
        """Begin a response whose body follows in parts; None if another thread has answered.

        Raises ``ValueError`` for headers that cannot be sent; the response may be another then.
        """
        request = self.request
        is_chunked = request.is_http_1_1
        if not is_chunked:
            request.is_last = True  # only its end tells the end of the body
        framing = [("Transfer-Encoding", "chunked")] if is_chunked else []
        head = self._encode(status, [*headers, *framing], None)
        if not self._begin():
            return None
        self.streamed = StreamedAnswer(
            self._connection, head, is_chunked=is_chunked, is_last=request.is_last
        )
        return self.streamed

    def _begin(self) -> bool:
        """Take the one answer; False if it is given already."""
        with self._lock:
            if self._answered:
                return False
            self._answered = True
        self.on_disconnect = None
        self.is_unstarted = None  # both know the payload
        self.request.release()
        return True

    def _encode(self, status: int, headers: Headers, size: int | None) -> bytes:
        """Return the head of an answer; raises ``ValueError``.

        ``size`` is how many bytes the body has; None: the headers tell where it ends.
        """
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


def _encode(status: int, headers: Headers, size: int | None, connection: str) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if status not in _BODILESS and size is not None:
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

    def send_part(self, data: bytes, _on_sent: Callable[[], None]) -> bool:
        """Keep a part."""
        self.data += data
        return True

    def end_parts(self, data: bytes, _is_last: bool) -> None:
        """Keep the last part."""
        self.data += data
