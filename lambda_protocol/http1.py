"""Reading HTTP/1.1 requests from a socket: lean, strict, generous in size.

Both programs serve HTTP, and this is the half they share. It takes what Lambda's clients send and
general servers refuse: 1 MiB headers, chunked bodies with trailers, bodies of unknown length up to
a limit. Where two readers of RFC 9112 could disagree on where a message ends, the message is
refused.
Source: RFC 9112; limits of Lambda developer guide, "Lambda quotas".
"""

from __future__ import annotations

import math
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from lambda_protocol.body_buffer import BodyBuffer
from lambda_protocol.byte_budget import FREE_BYTES, ByteBudget, Share
from lambda_protocol.http_head import (
    LENGTH_DIGITS,
    MAX_HEADERS,
    BadRequestError,
    Head,
    parse_head,
    parse_headers,
)
from lambda_protocol.pace import Pace, Progress, TooSlowError

#: Request line and headers together, bytes: AWS takes 1 MB, X-Ray causes come near it.
MAX_HEAD_BYTES: Final = 2 * 1_048_576
#: How much of a body over its limit is read and thrown away before the connection is closed.
DRAIN_BYTES: Final = 16 * 1_048_576
_READ_SIZE: Final = 16_384
#: The least that is taken of the budget for a chunked body at a time.
_RESERVED_BYTES: Final = 262_144
#: How long a peer may pause that sends more than is read of it, seconds.
_DISCARD_PAUSE_S: Final = 1.0
_PACE: Final = Pace()

#: A chunk's size and extensions, which nobody here reads. Source: RFC 9112, 7.1.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_NO_TRAILERS: Final[Mapping[str, str]] = {}


class PeerGoneError(Exception):
    """The peer closed in the middle of a request."""


class BrokenChunkError(Exception):
    """The body is chunked, and a chunk or a trailer of it is malformed."""


class BodyReceiver(Protocol):
    """Takes a body while it comes. One thread."""

    most_bytes: int  #: of a body; what is over it is not read

    def take(self, data: bytes) -> None:
        """Take the next bytes, as many as have come."""

    def on_wait(self) -> float | None:
        """Pass on what was taken, since no more has come; may block.

        Returns how long more is waited for before :meth:`flush` is called, seconds; None: not.
        """

    def flush(self) -> None:
        """Pass on what :meth:`on_wait` has kept, since no more has come in time."""


class Request:
    """One request: its head as soon as it is read, its body after that."""

    __slots__ = (
        "began_at",
        "body",
        "body_size",
        "headers",
        "is_http_1_1",
        "is_last",
        "is_oversize",
        "is_truncated",
        "method",
        "path",
        "query",
        "read_into",
        "share",
        "trailers",
        "version",
    )

    def __init__(self, head: Head) -> None:
        """Its body is yet to be read."""
        self.method = head.method
        self.path = head.path  #: undecoded
        self.query = head.query
        self.headers = head.headers
        self.version = head.version
        self.is_http_1_1 = head.is_http_1_1
        self.is_last = head.is_last  #: whether the connection is closed after the answer
        self.began_at = time.monotonic()  #: when its head had come, seconds
        self.body = b""
        self.share: Share | None = None  #: of the budget, for a body that is not small
        self.trailers = _NO_TRAILERS  #: what followed a chunked body, lower-case names
        self.body_size = 0  #: bytes the peer sent or announced, kept or not
        self.is_oversize = False  #: the body was over the limit, and is here only if asked for
        self.is_truncated = False  #: the body broke off: the connection ended, or no chunk came
        #: Gives the body, which is still to come, to its receiver; None: it is here.
        self.read_into: Callable[[BodyReceiver], None] | None = None

    def release(self) -> None:
        """Forget the body, and give back what it has of the budget. Idempotent, any thread."""
        self.body = b""
        if self.share is not None:
            self.share.give()


class RequestReader:
    """Reads one connection's requests, one after the other. One thread."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        max_body_bytes: int,
        needs_host: bool = True,
        pace: Pace = _PACE,
        budget: ByteBudget | None = None,
    ) -> None:
        """Read from ``sock``, which blocks, with :meth:`Pace.limit_waits` of ``pace`` called.

        ``needs_host`` refuses HTTP/1.1 without a Host header, as RFC 9112, 3.2 asks. Bodies have
        to fit into ``budget``, together with all others that do.
        """
        self._budget = budget
        self._socket = sock
        self._max_body_bytes = max_body_bytes
        self._needs_host = needs_host
        self._pace = pace
        self._progress: Progress | None = None  # of a body whose least rate counts
        self._buffer = bytearray()

    @property
    def in_hand(self) -> int:
        """How many bytes have been read of requests that are not taken."""
        return len(self._buffer)

    def read_head(self) -> Request | None:
        """Return the next request, its body still unread; None when the peer closed instead.

        A connection that stays silent between requests for too long is taken for closed.
        Raises ``BadRequestError``, ``OSError``.
        """
        buffer = self._buffer
        searched = 0
        ends_at = time.monotonic() + self._pace.idle_s
        has_begun = False
        while True:
            while buffer.startswith(b"\r\n"):  # old clients end a body so; RFC 9112, 2.2
                del buffer[:2]
                searched = 0
            end = buffer.find(b"\r\n\r\n", searched)
            if end >= 0:
                head = bytes(buffer[:end])
                del buffer[: end + 4]
                return Request(self._parse_head(head))
            if len(buffer) > MAX_HEAD_BYTES:
                raise BadRequestError(431, f"request line and headers over {MAX_HEAD_BYTES} bytes")
            searched = max(0, len(buffer) - 3)
            if buffer and not has_begun:
                has_begun = True
                ends_at = time.monotonic() + self._pace.head_s
            try:
                data = self._pace.receive(self._socket, _READ_SIZE, ends_at)
            except TooSlowError:
                if buffer:
                    raise BadRequestError(408, "the request's headers came too slowly") from None
                return None
            if not data:
                return None
            buffer += data

    def _parse_head(self, text: bytes) -> Head:
        head = parse_head(text)
        if self._needs_host and head.lacks_host:
            raise BadRequestError(400, "no Host header")
        return head

    def read_body(self, request: Request, *, keeps_oversize: bool = False) -> None:
        """Read the body of ``request``, decoded; too large or cut off is noted on it.

        ``keeps_oversize`` keeps the beginning of a body over the limit, at most ``DRAIN_BYTES``
        more than that. Raises ``BadRequestError``: 429 for a body that the budget has no room for.
        """
        try:
            self._read_body(request, keeps_oversize)
        except BaseException:
            request.release()
            raise

    def _read_body(self, request: Request, keeps_oversize: bool) -> None:
        headers = request.headers
        length_text = headers.get("content-length")
        coding = headers.get("transfer-encoding")
        if coding is None and (length_text is None or length_text == "0"):
            return
        if coding is not None and not (
            request.is_http_1_1 and coding.lower() == "chunked" and length_text is None
        ):
            raise BadRequestError(400, "Transfer-Encoding is not chunked alone, by HTTP/1.1")
        length = None if coding is not None else _parse_length(length_text)
        if length is not None and length <= self._max_body_bytes:
            self._reserve(request, length)
        expects = headers.get("expect", "").lower() == "100-continue" and request.is_http_1_1
        if expects and not self._buffer:
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._progress = Progress(self._pace) if self._pace.bytes_per_s else None
        try:
            if length is None:
                self._read_chunked(request, keeps_oversize)
            else:
                self._read_sized(request, length, keeps_oversize)
        except (PeerGoneError, BrokenChunkError):
            request.is_truncated = True
            request.is_last = True

    def discard(self) -> None:
        """Read what the peer still sends, within limits, before the connection is closed.

        Closing with bytes unread resets the connection, and the last answer with it.
        """
        self._socket.settimeout(_DISCARD_PAUSE_S)
        ends_at = time.monotonic() + self._pace.grace_s
        try:
            for _ in range(DRAIN_BYTES // _READ_SIZE):
                if time.monotonic() > ends_at or not self._socket.recv(_READ_SIZE):
                    return
        except OSError:
            return

    def _read_sized(self, request: Request, length: int, keeps_oversize: bool) -> None:
        request.body_size = length
        if length > self._max_body_bytes:
            request.is_oversize = True
            if length > self._max_body_bytes + DRAIN_BYTES:
                request.is_last = True  # the rest is not worth reading
                length = self._max_body_bytes + DRAIN_BYTES if keeps_oversize else 0
            if not keeps_oversize:
                self._skip(length)
                return
        body = BodyBuffer(length)
        self._read_into(body, length)
        request.body = body.take()

    def _read_chunked(self, request: Request, keeps_oversize: bool) -> None:
        body = BodyBuffer(self._max_body_bytes)
        reserved = FREE_BYTES
        for count in self._chunks(request):
            if request.body_size > self._max_body_bytes:
                request.is_oversize = True
                if not keeps_oversize:
                    body = BodyBuffer(0)
                    request.release()
                if request.body_size > self._max_body_bytes + DRAIN_BYTES:
                    request.is_last = True
                    request.body = body.take()
                    return
            is_kept = keeps_oversize or not request.is_oversize
            if is_kept and request.body_size > reserved:
                step = max(request.body_size - reserved, _RESERVED_BYTES)
                self._reserve(request, step)
                reserved += step
            if is_kept:
                self._read_into(body, count)
            else:
                self._skip(count)
        request.body = body.take()

    def _chunks(self, request: Request) -> Iterator[int]:
        """Yield the size of each chunk, which the caller reads; then read the trailers."""
        while True:
            line = _CHUNK_LINE.fullmatch(self._read_line())
            if line is None:
                raise BrokenChunkError
            count = int(line[1], 16)
            if count == 0:
                break
            request.body_size += count
            yield count
            if self._read_exactly(2) != b"\r\n":
                raise BrokenChunkError
        request.trailers = self._read_trailers()

    def _reserve(self, request: Request, count: int) -> None:
        """Take ``count`` bytes of the budget before they are read; small ones are free."""
        if self._budget is None or count <= FREE_BYTES:
            return
        if request.share is None:
            request.share = Share(self._budget)
        if not request.share.take(count):
            raise BadRequestError(429, "the budget of bytes in hand is used up")

    def _read_trailers(self) -> Mapping[str, str]:
        lines: list[bytes] = []
        left = MAX_HEAD_BYTES
        while line := self._read_line():
            lines.append(line)
            left -= len(line)
            if len(lines) >= MAX_HEADERS or left < 0:
                raise BadRequestError(431, "too many trailers")
        if not lines:
            return _NO_TRAILERS
        try:
            return parse_headers(b"\r\n".join(lines))
        except BadRequestError as error:
            raise BrokenChunkError from error

    def _read_line(self) -> bytes:
        buffer = self._buffer
        while (end := buffer.find(b"\r\n")) < 0:
            if len(buffer) > MAX_HEAD_BYTES:
                raise BadRequestError(431, "line too long")
            self._fill()
        line = bytes(buffer[:end])
        del buffer[: end + 2]
        return line

    def _read_exactly(self, count: int) -> bytes:
        buffer = self._buffer
        while len(buffer) < count:
            self._fill()
        data = bytes(buffer[:count])
        del buffer[:count]
        return data

    def _read_into(self, body: BodyBuffer, count: int) -> None:
        """Append ``count`` bytes to ``body``: what is here already, and what comes next."""
        buffer = self._buffer
        if buffer:
            here = bytes(buffer[:count])
            del buffer[:count]
            body.add(here)
            count -= len(here)
        if count:
            with body.room(count) as room:
                while count:
                    with room[-count:] as missing:
                        count -= self._receive_into(missing)

    def _skip(self, count: int) -> None:
        """Throw ``count`` bytes of a body away."""
        buffer = self._buffer
        while count > len(buffer):
            count -= len(buffer)
            buffer.clear()
            self._fill()
        del buffer[:count]

    def _fill(self, size: int = _READ_SIZE) -> None:
        data = bytearray(size)
        del data[self._receive_into(data) :]
        self._buffer += data

    def _receive_into(self, room: bytearray | memoryview) -> int:
        progress = self._progress
        ends_at = math.inf if progress is None else progress.ends_at
        try:
            count = self._pace.receive_into(self._socket, room, ends_at)
        except TooSlowError:
            raise BadRequestError(408, "the request's body came too slowly") from None
        except OSError:
            raise PeerGoneError from None
        if not count:
            raise PeerGoneError
        if progress is not None:
            progress.add(count)
        return count


def _parse_length(text: str | None) -> int:
    if text is None or not text.isascii() or not text.isdigit():
        raise BadRequestError(400, f"Content-Length is {text!r:.80}")
    if len(text) > LENGTH_DIGITS:
        raise BadRequestError(413, "body too large")
    return int(text)
