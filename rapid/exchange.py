"""An HTTP request and its one answer. Any thread may give it."""

from __future__ import annotations

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

#: Statuses whose answer has no body, and whose Content-Length would be that of another answer.
_BODILESS: Final = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)

Headers = tuple[tuple[str, str], ...] | list[tuple[str, str]]
#: Every answer of the Runtime API has a Content-Type: awslambdaric crashes on one without.
JSON: Final[Headers] = (("Content-Type", "application/json"),)
TEXT: Final[Headers] = (("Content-Type", "text/plain; charset=utf-8"),)
#: Makes the answer to a request that is no HTTP, or whose handler failed.
RenderError = Callable[[int, str], tuple[Headers, bytes]]


class Answerable(Protocol):
    """Where an answer goes: a connection, or what stands in for one."""

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
        self._lock = threading.Lock()
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
        self.request.release()
        try:
            head, body = self._encode(status, headers, body)
        except ValueError as error:
            logger.error("response not sendable", extra={"error": error})
            headers, body = self._connection.render_error(502, "Bad Gateway")
            head, body = self._encode(502, headers, body)
        return self._connection.send_answer(head, body, self.request.is_last)

    def _encode(self, status: int, headers: Headers, body: bytes) -> tuple[bytes, bytes]:
        """Return what is sent: the head, with a body that is short, and any other body."""
        head = [f"HTTP/1.1 {status} {_REASONS.get(status, '')}"]
        head += [f"{name}: {value}" for name, value in (*headers, *self.extra_headers)]
        if status not in _BODILESS:
            head.append(f"Content-Length: {len(body)}")
        if self.request.is_last:
            head.append("Connection: close")
        elif not self.request.is_http_1_1:
            head.append("Connection: keep-alive")
        if self.request.method == "HEAD":  # a body would be taken for the next answer
            body = b""
        encoded = encode_head(head)
        return (encoded + body, b"") if len(body) <= FREE_BYTES else (encoded, body)

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


class KeptAnswer:
    """Stands in for a connection: keeps the answer, which is all there by then."""

    def __init__(self, render_error: RenderError) -> None:
        """Answer with ``render_error`` where an answer cannot be sent."""
        self.render_error = render_error
        self.data = b""

    def send_answer(self, head: bytes, body: bytes, _is_last: bool) -> bool:
        """Keep both."""
        self.data = head + body
        return True

    def send_interim(self) -> None:
        """Send nothing: no client is connected."""

    peer_address = ""
