"""The head of an HTTP/1.1 request, parsed strictly, and the head of a response.

Where two readers of RFC 9112 could disagree on where a message ends, the message is refused.
Source: RFC 9112.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Final

MAX_HEADERS: Final = 512
#: A longer Content-Length is over every limit, and ``int`` refuses very long ones.
LENGTH_DIGITS: Final = 18
#: A runtime, and many a caller, sends the same head with each request: parsed once.
_CACHED_BYTES: Final = 1024
_CACHED_HEADS: Final = 256

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
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


class Head:
    """What the head of a request says. It never changes: requests that begin alike share one."""

    __slots__ = (
        "content_length",
        "headers",
        "is_http_1_1",
        "is_last",
        "lacks_host",
        "method",
        "path",
        "query",
        "version",
    )

    def __init__(
        self, method: str, target: str, headers: Mapping[str, str], version: str = "HTTP/1.1"
    ) -> None:
        """Split ``target``; ``headers`` have lower-case names."""
        self.method = method
        self.path, _, self.query = target.partition("?")  #: undecoded
        self.headers = headers
        self.version = version
        self.is_http_1_1 = version == "HTTP/1.1"  #: else it is HTTP/1.0
        self.lacks_host = self.is_http_1_1 and "host" not in headers
        #: Bytes of the body; 0: none is announced, -1: the header is no number of usual length.
        self.content_length = _length(headers.get("content-length", "0"))
        #: Whether the peer wants the connection closed after the answer.
        self.is_last = not self.is_http_1_1
        connection = headers.get("connection")
        if connection is not None:
            options = {option.strip(" \t") for option in connection.lower().split(",")}
            self.is_last = "close" in options or (self.is_last and "keep-alive" not in options)


def encode_head(lines: Sequence[str]) -> bytes:
    """Return the head of a response whose status and header lines are ``lines``.

    Raises ``ValueError`` for a line that would be more than one, or none, at the peer's.
    Source: RFC 9112, 11.1 (response splitting).
    """
    text = "".join(lines)
    if "\r" in text or "\n" in text or "\0" in text:  # quicker than to count those that belong
        raise ValueError("a header of the response holds a line end or a null")
    head = "\r\n".join(lines) + "\r\n\r\n"
    return head.encode("latin-1")  # UnicodeEncodeError is a ValueError


def parse_head(head: bytes) -> Head:
    """Return what ``head`` says, its request line and headers; raises ``BadRequestError``."""
    return _parse_head(head) if len(head) > _CACHED_BYTES else _cached_head(head)


def parse_headers(block: bytes) -> Mapping[str, str]:
    """Return the headers of ``block`` by lower-case name; raises ``BadRequestError``."""
    if _is_unprintable(block):
        raise BadRequestError(400, "control character in the request's headers")
    return _parse_headers(block.decode("latin-1"))


def _length(text: str) -> int:
    is_number = len(text) <= LENGTH_DIGITS and text.isascii() and text.isdigit()
    return int(text) if is_number else -1


def _parse_head(head: bytes) -> Head:
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
    headers = parse_headers(block) if len(block) > _CACHED_BYTES else _cached_headers(block)
    return Head(method, _origin_form(target), headers, version)


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


#: A response's path has a request id, while its headers are those of others.
_cached_headers = functools.lru_cache(_CACHED_HEADS)(parse_headers)
_cached_head = functools.lru_cache(_CACHED_HEADS)(_parse_head)
