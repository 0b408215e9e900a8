"""Reading HTTP/1.1 requests from a socket, and heads of responses: lean, strict, generous in size.

Both programs serve HTTP, and this is the half they share. It takes what Lambda's clients send and
general servers refuse: 1 MiB headers, chunked bodies with trailers, bodies of unknown length up to
a limit. Where two readers of RFC 9112 could disagree on where a message ends, the message is
refused.
Source: RFC 9112; limits of Lambda developer guide, "Lambda quotas".
"""

from __future__ import annotations

import functools
import math
import re
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Final

from lambda_protocol.body_buffer import BodyBuffer
from lambda_protocol.byte_budget import FREE_BYTES, ByteBudget, Share
from lambda_protocol.pace import Pace, Progress, TooSlowError

#: Request line and headers together, bytes: AWS takes 1 MB, X-Ray causes come near it.
MAX_HEAD_BYTES: Final = 2 * 1_048_576
#: How much of a body over its limit is read and thrown away before the connection is closed.
DRAIN_BYTES: Final = 16 * 1_048_576
MAX_HEADERS: Final = 512
_READ_SIZE: Final = 16_384
#: The least that is taken of the budget for a chunked body at a time.
_RESERVED_BYTES: Final = 262_144
#: How long a peer may pause that sends more than is read of it, seconds.
_DISCARD_PAUSE_S: Final = 1.0
_PACE: Final = Pace()

#: A longer Content-Length is over every limit, and ``int`` refuses very long ones.
_LENGTH_DIGITS: Final = 18

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: A chunk's size and extensions, which nobody here reads. Source: RFC 9112, 7.1.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
#: Host and port, empty where the target has none. Source: RFC 9110, 7.2; RFC 3986, 3.2.2.
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[!$&'()*+,;=\-._~%0-9A-Za-z]*)(?::[0-9]*)?")
#: A target with scheme and authority, as sent to a proxy; the group is its path and query.
_ABSOLUTE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.\-]*://[^/?#]+(/.*|\?.*|)")
#: Bytes that a head may have: no control characters but tab and line ends.
_ALLOWED: Final = bytes({*range(0x20, 0x100), *b"\t\r\n"} - {0x7F})
#: Headers that tell where a message ends and for whom it is: a second one makes it ambiguous.
_SINGLE: Final = frozenset({"content-length", "transfer-encoding", "host"})
#: What joins the values of a header that comes twice, if no comma does. Source: RFC 9113, 8.2.3.
_JOINED_BY: Final = {"cookie": "; "}
#: Source: RFC 9110, 9.3; RFC 5789 (PATCH). Others are refused before anything counts them.
METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
)


class BadRequestError(Exception):
    """The bytes are no request that can be answered; the connection ends with ``status``."""

    def __init__(self, status: int, message: str) -> None:
        """``message`` is for the peer."""
        super().__init__(message)
        self.status = status


class PeerGoneError(Exception):
    """The peer closed in the middle of a request."""


class BrokenChunkError(Exception):
    """The body is chunked, and a chunk or a trailer of it is malformed."""


class Request:
    """One request: its head as soon as it is read, its body after that."""

    __slots__ = (
        "began_at",
        "body",
        "body_size",
        "headers",
        "is_last",
        "is_oversize",
        "is_truncated",
        "method",
        "path",
        "query",
        "share",
        "trailers",
        "version",
    )

    def __init__(
        self, method: str, target: str, headers: Mapping[str, str], version: str = "HTTP/1.1"
    ) -> None:
        """Split ``target``; ``headers`` have lower-case names and are not to be changed."""
        self.method = method
        self.path, _, self.query = target.partition("?")  #: undecoded
        self.headers = headers
        self.version = version
        self.began_at = time.monotonic()  #: when its head had come, seconds
        self.body = b""
        self.share: Share | None = None  #: of the budget, for a body that is not small
        self.trailers: Mapping[str, str] = {}  #: what followed a chunked body, lower-case names
        self.body_size = 0  #: bytes the peer sent or announced, kept or not
        self.is_oversize = False  #: the body was over the limit, and is here only if asked for
        self.is_truncated = False  #: the body broke off: the connection ended, or no chunk came
        #: Whether the peer wants the connection closed after the answer.
        self.is_last = not self.is_http_1_1
        connection = headers.get("connection")
        if connection is not None:
            options = {option.strip(" \t") for option in connection.lower().split(",")}
            self.is_last = "close" in options or (self.is_last and "keep-alive" not in options)

    @property
    def is_http_1_1(self) -> bool:
        """Whether the peer speaks HTTP/1.1, not HTTP/1.0."""
        return self.version == "HTTP/1.1"

    def release(self) -> None:
        """Forget the body, and give back what it has of the budget. Idempotent, any thread."""
        self.body = b""
        if self.share is not None:
            self.share.give()


def encode_head(lines: Sequence[str]) -> bytes:
    """Return the head of a response whose status and header lines are ``lines``.

    Raises ``ValueError`` for a line that would be more than one, or none, at the peer's.
    Source: RFC 9112, 11.1 (response splitting).
    """
    head = "\r\n".join((*lines, "", ""))
    line_ends = len(lines) + 1
    if not head.count("\r") == head.count("\n") == line_ends or "\0" in head:
        raise ValueError("a header of the response holds a line end or a null")
    return head.encode("latin-1")  # UnicodeEncodeError is a ValueError


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
                return self._parse_head(head)
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

    def _parse_head(self, head: bytes) -> Request:
        request = _parse_head(head)
        if self._needs_host and "host" not in request.headers and request.is_http_1_1:
            raise BadRequestError(400, "no Host header")
        return request

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
        while True:
            line = _CHUNK_LINE.fullmatch(self._read_line())
            if line is None:
                raise BrokenChunkError
            count = int(line[1], 16)
            if count == 0:
                break
            request.body_size += count
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
            if self._read_exactly(2) != b"\r\n":
                raise BrokenChunkError
        request.trailers = self._read_trailers()
        request.body = body.take()

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
        block = b"\r\n".join(lines)
        try:
            if _is_unprintable(block):
                raise BrokenChunkError
            return _parse_headers(block.decode("latin-1"))
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

    def _fill(self) -> None:
        data = bytearray(_READ_SIZE)
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
    if len(text) > _LENGTH_DIGITS:
        raise BadRequestError(413, "body too large")
    return int(text)


def _parse_head(head: bytes) -> Request:
    line, _, block = head.partition(b"\r\n")
    if _is_unprintable(line):
        raise BadRequestError(400, "control character in the request's line")
    parts = line.decode("latin-1").split(" ")
    if len(parts) != 3:
        raise BadRequestError(400, "malformed request line")
    method, target, version = parts
    if method not in METHODS and not _TOKEN.fullmatch(method):
        raise BadRequestError(400, "malformed request line")
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequestError(505 if version.startswith("HTTP/") else 400, "not HTTP/1.1")
    if method not in METHODS:
        raise BadRequestError(501, "unknown method")
    headers = _parse_block(block) if len(block) > _CACHED_BYTES else _cached_block(block)
    return Request(method, _origin_form(target), headers, version)


def _parse_block(block: bytes) -> Mapping[str, str]:
    if _is_unprintable(block):
        raise BadRequestError(400, "control character in the request's headers")
    return _parse_headers(block.decode("latin-1"))


def _is_unprintable(block: bytes) -> bool:
    """Whether header lines hold a control character, or a line end that is half of one."""
    line_ends = block.count(b"\r\n")
    return bool(block.translate(None, _ALLOWED)) or not (
        block.count(b"\r") == block.count(b"\n") == line_ends
    )


def _origin_form(target: str) -> str:
    """Return the path and query of ``target``; nothing here is a tunnel. Source: RFC 9112, 3.2."""
    if target.startswith("/") or target == "*":
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise BadRequestError(400, "malformed request target")
    return absolute[1] if absolute[1].startswith("/") else f"/{absolute[1]}"


def _parse_headers(block: str) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    lines = block.split("\r\n") if block else ()
    if len(lines) > MAX_HEADERS:
        raise BadRequestError(431, f"more than {MAX_HEADERS} headers")
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise BadRequestError(400, "malformed header")
        if "_" in name:  # CGI, and so WSGI, takes X_Y for X-Y: gunicorn and nginx drop it too
            continue
        name = name.lower()
        value = value.strip(" \t")
        if name in headers:
            if name in _SINGLE:
                raise BadRequestError(400, f"more than one {name} header")
            value = f"{headers[name]}{_JOINED_BY.get(name, ',')}{value}"
        headers[name] = value
    if not _HOST.fullmatch(headers.get("host", "")):
        raise BadRequestError(400, "malformed Host header")
    return headers


#: A runtime, and many a caller, sends the same headers with each request: parsed once.
_CACHED_BYTES: Final = 1024
_cached_block = functools.lru_cache(maxsize=256)(_parse_block)
