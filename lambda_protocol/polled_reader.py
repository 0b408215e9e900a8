"""Takes short requests from bytes that have come, so that no thread waits for the rest of them.

Most requests of callers and runtimes come whole. What is long, slow, or no request at all is left
to the methods of :class:`RequestReader`, in a thread.
"""

from __future__ import annotations

import functools
import re
import select
from collections.abc import Callable, Iterable
from typing import Any, Final

from lambda_protocol.byte_budget import FREE_BYTES
from lambda_protocol.http1 import BodyReceiver, BrokenChunkError, Request, RequestReader
from lambda_protocol.http_head import BadRequestError

#: The longest body that is taken here, bytes.
SHORT_BYTES: Final = 65_536
#: A chunked body that comes in more pieces than so many, or has more lines, is a thread's.
_MOST_LOOKS: Final = 4
_MOST_LINES: Final = 64
#: How much is read at a time of a body that is passed on as it comes, bytes.
_PART_BYTES: Final = 131_072

#: How runtimes in Go send a response: a chunk, and the end.
_ONE_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,4})\r\n(.+)\r\n0\r\n\r\n", re.DOTALL)


class NotShortError(Exception):
    """A thread has to read the request, or to refuse it."""


class _NotHereError(Exception):
    """The bytes that come next have not come."""


class PolledReader(RequestReader):
    """Reads one connection's requests, which are fed to it or waited for. One thread at a time."""

    _waits = True
    _begun: Request | None = None  # its head is parsed, and still in the buffer
    _needed = 0  # bytes in the buffer before it is worth looking at again
    _looks = 0  # at a chunked body of which not all has come; each begins anew
    _receiver: BodyReceiver | None = None  # of the body that is read, if it takes it as it comes

    def __init__(
        self, *args: Any, streams: Callable[[Request], bool] = lambda _request: False, **kwargs: Any
    ) -> None:
        """``streams`` tells of a request whether its body is wanted while it comes."""
        super().__init__(*args, **kwargs)
        self._streams = streams

    @property
    def has_only_line_ends(self) -> bool:
        """Whether nothing of a request has come: old clients end a body with an empty line."""
        return not self._buffer.strip(b"\r\n")

    def feed(self, data: memoryview) -> None:
        """Add bytes that somebody else has read from the socket."""
        self._buffer += data

    def take_short(self) -> Request | None:
        """Return the next request, whole; None if more of it has to come. Never blocks.

        Raises ``NotShortError`` if a thread has to read it. Nothing of it is taken then.
        """
        if len(self._buffer) < self._needed:
            return None
        request = self._begun
        try:
            if request is None:
                request = self._begin()
                if request is None:
                    return None
                if "transfer-encoding" in request.headers:
                    return self._take_chunked(request)
            return self._take_sized(request)
        except BadRequestError as error:
            self._forget()
            raise NotShortError from error

    def _begin(self) -> Request | None:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0 and len(buffer) <= FREE_BYTES:
            return None
        if end <= 0:  # headers that are long, or an empty line first
            raise NotShortError
        head = self._parse_head(bytes(buffer[:end]))
        length = head.content_length
        if not 0 <= length <= SHORT_BYTES or length > self._max_body_bytes:
            raise NotShortError
        if "expect" in head.headers:
            raise NotShortError
        request = Request(head)
        request.body_size = length
        self._needed = end + 4 + length
        return request

    def _take_sized(self, request: Request) -> Request | None:
        buffer, end, length = self._buffer, self._needed, request.body_size
        if len(buffer) < end:
            # A long one has to be counted before it comes.
            if length > FREE_BYTES or (self._begun is None and self._streams(request)):
                self._forget()
                raise NotShortError
            self._begun = request
            return None
        if length:
            self._reserve(request, length)
            request.body = bytes(buffer[end - length : end])
        del buffer[:end]
        self._forget()
        return request

    def _take_chunked(self, request: Request) -> Request | None:
        """Take a body in chunks: runtimes in Go send every response so."""
        whole, start = self._buffer, self._needed
        self._forget()
        headers = request.headers
        if headers["transfer-encoding"].lower() != "chunked" or "content-length" in headers:
            raise NotShortError
        if not request.is_http_1_1:
            raise NotShortError
        one = _ONE_CHUNK.fullmatch(whole, start)
        if one is not None and self._take_chunk(request, int(one[1], 16), one[2]):
            whole.clear()
            return request
        if whole.count(b"\r\n", start) > _MOST_LINES:
            raise NotShortError
        self._buffer, self._waits = whole[start:], False
        try:
            self._read_chunked(request, keeps_oversize=False)
            if not request.is_oversize:
                self._looks = 0
                return request
            error: Exception = NotShortError()
        except (_NotHereError, BrokenChunkError, BadRequestError) as reason:
            error = reason
        finally:
            self._waits = True
        request.release()
        self._buffer = whole
        self._looks += 1
        if (
            isinstance(error, _NotHereError)
            and len(whole) <= FREE_BYTES
            and self._looks < _MOST_LOOKS
            and not self._streams(request)
        ):
            return None
        raise NotShortError from error

    def _take_chunk(self, request: Request, size: int, body: bytes) -> bool:
        """Take the only chunk of a body; False if it has another size, or has to be counted."""
        if size != len(body) or size > min(FREE_BYTES, self._max_body_bytes):
            return False
        request.body, request.body_size = body, size
        self._looks = 0
        return True

    def _receive_into(self, room: bytearray | memoryview) -> int:
        if not self._waits:
            raise _NotHereError
        receiver = self._receiver
        if receiver is not None:
            patience_s = receiver.on_wait()
            if patience_s is not None and not self._comes_within(patience_s):
                receiver.flush()
        return super()._receive_into(room)

    def read_head(self) -> Request | None:
        """Wait for the next request, also for one that has begun; see :class:`RequestReader`."""
        self._forget()
        self._looks = 0
        return super().read_head()

    def read_long(self, *, keeps_oversize: Callable[[str], bool]) -> Request | None:
        """Wait for the next request and its body; None if the peer has gone before its head.

        The body may be left to be read by ``request.read_into``. Raises ``BadRequestError``.
        """
        try:
            request = self.read_head()
            if request is not None and self._streams(request):
                request.read_into = functools.partial(self._pass_on, request)
            elif request is not None:
                self.read_body(request, keeps_oversize=keeps_oversize(request.path))
        except OSError:
            return None
        return request

    def _pass_on(self, request: Request, receiver: BodyReceiver) -> None:
        """Give the body to ``receiver`` as it comes; raises ``BadRequestError``."""
        self._receiver = receiver
        try:
            self.read_body(request)
        except OSError:  # the peer has gone before its body
            request.is_truncated = request.is_last = True
        finally:
            self._receiver = None
        if not request.is_oversize:
            request.read_into = None

    def _read_sized(self, request: Request, length: int, keeps_oversize: bool) -> None:
        if self._receiver is None:
            super()._read_sized(request, length, keeps_oversize)
            return
        request.body_size = length
        self._pass_parts(request, (length,), self._receiver)

    def _read_chunked(self, request: Request, keeps_oversize: bool) -> None:
        if self._receiver is None:
            super()._read_chunked(request, keeps_oversize)
            return
        self._pass_parts(request, self._chunks(request), self._receiver)

    def _pass_parts(self, request: Request, counts: Iterable[int], receiver: BodyReceiver) -> None:
        buffer, room = self._buffer, receiver.most_bytes
        for count in counts:
            request.is_oversize = count > room
            left = min(count, room)
            room -= left
            while left:
                if not buffer:
                    self._fill(_PART_BYTES)
                data = bytes(buffer[:left])
                del buffer[: len(data)]
                receiver.take(data)
                left -= len(data)
            if request.is_oversize:
                request.is_last = True  # the rest is not read
                return

    def _comes_within(self, limit_s: float) -> bool:
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(limit_s * 1000))

    def _forget(self) -> None:
        self._begun, self._needed = None, 0
