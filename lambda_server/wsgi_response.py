"""The bytes of the response that a WSGI application gives."""

from __future__ import annotations

import functools
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from typing import Any, Final

from lambda_protocol.http1 import Request
from lambda_protocol.http_head import BadRequestError, encode_head

logger = logging.getLogger(__name__)

#: A longer body is not copied for one write with its head, bytes.
JOINED_BYTES: Final = 65_536


class Response:
    """What the application answers, as it goes out; the access log reads the public fields."""

    def __init__(
        self,
        write: Callable[[bytes], object],
        request: Request,
        write_part: Callable[[bytes], object] | None = None,
    ) -> None:
        """Give the bytes to ``write``, as the answer to ``request``.

        ``write_part`` takes those of a body that comes in parts, whose reader may pause.
        """
        self._write = write
        self._write_part = write_part or write
        self._request = request
        self.status = "500 Internal Server Error"  # of an application that raised
        self.headers: list[tuple[str, str]] = []
        self.sent = 0  #: bytes of the body
        self._is_started = False

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """Take status and headers; WSGI's ``start_response``."""
        if exc_info is not None and self._is_started:
            raise exc_info[1].with_traceback(exc_info[2])
        self.status, self.headers = status, headers
        return self._refuse_write

    def send(self, chunks: Iterable[bytes]) -> None:
        """Write the response: in one piece when its parts are all there, else chunk by chunk."""
        try:
            if isinstance(chunks, list | tuple) or self._has("content-length"):
                body = b"".join(chunks)
                head = self._head(len(body))
                self.sent = len(body) if self._has_body else 0
                if self.sent > JOINED_BYTES:
                    self._write(head)
                    self._write(body)
                else:
                    self._write(head + body if self._has_body else head)
                return
            self._send_parts(iter(chunks))
        finally:
            if hasattr(chunks, "close"):
                chunks.close()

    def _send_parts(self, parts: Iterator[bytes]) -> None:
        """Write each part as it comes, the first one with the head."""
        first = next(parts, b"")  # starts the response
        is_chunked = self._request.is_http_1_1
        if not is_chunked and self._has_body:
            self._request.is_last = True  # only its end tells the end of the body
        begun = self._head(None)
        if first == b"" and self._has_body:  # the head is known before the body
            self._write(begun)
            begun = b""
        for part in itertools.chain((first,), parts if self._has_body else ()):
            if part and self._has_body:
                self._write_part(
                    begun + (b"%x\r\n%b\r\n" % (len(part), part) if is_chunked else part)
                )
                self.sent += len(part)
                begun = b""
        self._write(begun + (b"0\r\n\r\n" if self._has_body and is_chunked else b""))

    @property
    def _has_body(self) -> bool:
        return self._request.method != "HEAD" and self._may_have_body

    @property
    def _may_have_body(self) -> bool:
        """Whether a response of this status has a body. Source: RFC 9112, 6.3."""
        return self.status[:3] not in ("204", "304")

    def _has(self, name: str) -> bool:
        return any(header.lower() == name for header, _ in self.headers)

    def _head(self, length: int | None) -> bytes:
        self._is_started = True
        lines = [f"HTTP/1.1 {self.status}", "Server: lambda-server", f"Date: {_http_date()}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if length is None:
            if self._request.is_http_1_1 and self._may_have_body:
                lines.append("Transfer-Encoding: chunked")
        elif not self._has("content-length") and self._may_have_body:
            lines.append(f"Content-Length: {length}")
        lines.append("Connection: close" if self._request.is_last else "Connection: keep-alive")
        try:
            return encode_head(lines)
        except ValueError as error:
            logger.error("response not sendable", extra={"error": error})
            raise BadRequestError(502, "the response has a header that cannot be sent") from error

    @staticmethod
    def _refuse_write(_data: bytes) -> None:
        raise NotImplementedError("return the body; Flask never calls write()")


def _http_date() -> str:
    return _date_of(int(time.time()))


@functools.lru_cache(maxsize=2)
def _date_of(second: int) -> str:
    return formatdate(second, usegmt=True)
