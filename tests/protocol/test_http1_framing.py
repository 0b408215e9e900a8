"""Where a message ends: every framing of a table, with llhttp as the second opinion.

Two readers that disagree on that are how requests are smuggled past a proxy, so the rule is one
way: what is read here, llhttp reads as the same requests. Source: RFC 9112; RFC 9110.
"""

from __future__ import annotations

import contextlib
import socket
from typing import cast

import httptools  # llhttp, Node.js's parser
import pytest

from lambda_protocol.http1 import BadRequestError, RequestReader

LIMIT = 1000
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"

#: What was read: target and body of each request, then the status of a refusal, or "truncated".
Read = list[object]

READ_AS: dict[str, tuple[bytes, Read]] = {
    # Lengths
    "no-body": (POST + b"\r\n" + NEXT, [("/", b""), ("/next", b"")]),
    "length": (POST + b"Content-Length: 2\r\n\r\nab" + NEXT, [("/", b"ab"), ("/next", b"")]),
    "length-0": (POST + b"Content-Length: 0\r\n\r\n" + NEXT, [("/", b""), ("/next", b"")]),
    "length-with-zeros": (POST + b"Content-Length: 02\r\n\r\nab", [("/", b"ab")]),
    "length-in-spaces": (POST + b"Content-Length: \t 2 \t\r\n\r\nab", [("/", b"ab")]),
    "length-of-get": (GET + b"Content-Length: 2\r\n\r\nab" + NEXT, [("/", b"ab"), ("/next", b"")]),
    "length-in-any-case": (POST + b"cOnTeNt-LeNgTh: 2\r\n\r\nab", [("/", b"ab")]),
    "length-empty": (POST + b"Content-Length:\r\n\r\n", [400]),
    "length-negative": (POST + b"Content-Length: -1\r\n\r\na", [400]),
    "length-plus": (POST + b"Content-Length: +1\r\n\r\na", [400]),
    "length-hex": (POST + b"Content-Length: 0x1\r\n\r\na", [400]),
    "length-python": (POST + b"Content-Length: 1_0\r\n\r\na", [400]),
    "length-superscript": (POST + b"Content-Length: \xb2\r\n\r\na", [400]),
    "length-fraction": (POST + b"Content-Length: 1.0\r\n\r\na", [400]),
    "length-two-words": (POST + b"Content-Length: 1 1\r\n\r\na", [400]),
    "length-list": (POST + b"Content-Length: 1, 1\r\n\r\na", [400]),
    "length-endless": (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", [413]),
    "length-twice": (POST + b"Content-Length: 1\r\n" * 2 + b"\r\na", [400]),
    "length-differs": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na", [400]),
    "length-underscore": (POST + b"Content_Length: 2\r\n\r\n" + NEXT, [("/", b""), ("/next", b"")]),
    # Codings
    "chunked": (CHUNKED + b"2\r\nab\r\n0\r\n\r\n" + NEXT, [("/", b"ab"), ("/next", b"")]),
    "chunked-in-any-case": (
        POST + b"TRANSFER-ENCODING: Chunked\r\n\r\n0\r\n\r\n",
        [("/", b"")],
    ),
    "chunked-and-length": (
        POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        [400],
    ),
    "chunked-and-length-0": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
        [400],
    ),
    "chunked-twice": (POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n", [400]),
    "chunked-in-a-list-twice": (
        POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        [400],
    ),
    "gzip": (POST + b"Transfer-Encoding: gzip\r\n\r\n", [400]),
    "gzip-then-chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", [400]),
    "chunked-then-identity": (
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        [400],
    ),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", [400]),
    "xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", [400]),
    "coding-empty": (POST + b"Transfer-Encoding:\r\n\r\n", [400]),
    "chunked-quoted": (POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', [400]),
    "chunked-after-vertical-tab": (
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        [400],
    ),
    "chunked-of-http-1.0": (
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n",
        [400],
    ),
    # Chunks
    "chunk-extension": (CHUNKED + b"2;x=y\r\nab\r\n0\r\n\r\n", [("/", b"ab")]),
    "chunk-upper-case": (CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n", [("/", b"0123456789")]),
    "chunk-with-zeros": (CHUNKED + b"002\r\nab\r\n000\r\n\r\n", [("/", b"ab")]),
    "chunk-without-size": (CHUNKED + b"\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-negative": (CHUNKED + b"-2\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-plus": (CHUNKED + b"+2\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-0x": (CHUNKED + b"0x2\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-python": (CHUNKED + b"0_2\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-17-digits": (CHUNKED + b"0" * 16 + b"2\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-after-space": (CHUNKED + b" 2\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-before-space": (CHUNKED + b"2 \r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-vertical-tab": (CHUNKED + b"2\x0b\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-null": (CHUNKED + b"2\x00\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-line-feed": (CHUNKED + b"2\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-line-feed-in-extension": (CHUNKED + b"2;\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-carriage-return-in-extension": (CHUNKED + b"2;\rxx\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-control-in-extension": (CHUNKED + b"2;\x01\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-ended-by-line-feed": (CHUNKED + b"2\r\nab\n0\r\n\r\n", ["truncated"]),
    "chunk-longer-than-its-size": (CHUNKED + b"2\r\nabcd\r\n0\r\n\r\n", ["truncated"]),
    # Trailers
    "trailer": (CHUNKED + b"0\r\nA: b\r\n\r\n" + NEXT, [("/", b""), ("/next", b"")]),
    "trailer-without-colon": (CHUNKED + b"0\r\nno colon\r\n\r\n", ["truncated"]),
    "trailer-folded": (CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n", ["truncated"]),
    "trailer-line-feed": (CHUNKED + b"0\r\nA: b\nC: d\r\n\r\n", ["truncated"]),
    "trailer-null": (CHUNKED + b"0\r\nA: \x00\r\n\r\n", ["truncated"]),
    "trailer-space-before-colon": (CHUNKED + b"0\r\nA : b\r\n\r\n", ["truncated"]),
    # Hosts
    "host-missing": (b"GET / HTTP/1.1\r\n\r\n", [400]),
    "host-missing-in-http-1.0": (b"GET / HTTP/1.0\r\n\r\n", [("/", b"")]),
    "host-empty": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", [("/", b"")]),
    "host-v6": (b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", [("/", b"")]),
    "host-twice": (GET + b"Host: x\r\n\r\n", [400]),
    "host-two-words": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", [400]),
    "host-with-path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", [400]),
    "host-with-user": (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", [400]),
    # Heads
    "empty-lines-first": (b"\r\n\r\n" + NEXT, [("/next", b"")]),
    "line-feed-first": (b"\n" + NEXT, [400]),
    "two-spaces": (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "tab-in-request-line": (b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "space-after-version": (b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", [400]),
    "no-version": (b"GET /\r\n\r\n", [400]),
    "lower-case-version": (b"GET / http/1.1\r\nHost: x\r\n\r\n", [400]),
    "http-2": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", [505]),
    "malformed-method": (b"GE(T / HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "unknown-method": (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", [501]),
    "lower-case-method": (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", [501]),
    "target-without-slash": (b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "target-with-authority": (b"GET http://y/a?b HTTP/1.1\r\nHost: x\r\n\r\n", [("/a?b", b"")]),
    "target-of-authority": (b"GET http://y HTTP/1.1\r\nHost: x\r\n\r\n", [("/", b"")]),
    "no-colon": (GET + b"no colon\r\n\r\n", [400]),
    "no-name": (GET + b": x\r\n\r\n", [400]),
    "space-before-colon": (GET + b"X : y\r\n\r\n", [400]),
    "folded": (GET + b"X: y\r\n folded\r\n\r\n", [400]),
    "line-feed": (GET + b"X: a\nY: b\r\n\r\n", [400]),
    "carriage-return": (GET + b"X: a\rb\r\n\r\n", [400]),
    "null": (GET + b"X: a\x00b\r\n\r\n", [400]),
    "delete-character": (GET + b"X: a\x7fb\r\n\r\n", [400]),
}  # fmt: skip

#: llhttp reads these as it stands in RFC 9110 and 9112, and we do; it only says it otherwise.
SAID_OTHERWISE = {
    "target-with-authority": [("http://y/a?b", b"")],
    "target-of-authority": [("http://y", b"")],
}


@pytest.mark.parametrize("framing", READ_AS)
def test_a_message_ends_where_rfc_9112_says_or_is_refused(framing: str) -> None:
    data, expected = READ_AS[framing]

    assert read(data) == expected


@pytest.mark.parametrize(
    "framing", [name for name, (_, found) in READ_AS.items() if isinstance(found[-1], tuple)]
)
def test_llhttp_reads_what_is_read_here_as_the_same_requests(framing: str) -> None:
    data, expected = READ_AS[framing]

    assert llhttp(data) == SAID_OTHERWISE.get(framing, expected)


class _Whole:
    """Stands in for a socket whose peer sent ``data`` and closed."""

    def __init__(self, data: bytes) -> None:
        self._left = data

    def recv(self, size: int) -> bytes:
        data, self._left = self._left[:size], self._left[size:]
        return data


def read(data: bytes) -> Read:
    reader = RequestReader(cast("socket.socket", _Whole(data)), max_body_bytes=LIMIT)
    found: Read = []
    try:
        while (request := reader.read_head()) is not None:
            reader.read_body(request)
            if request.is_truncated:
                return [*found, "truncated"]
            target = f"{request.path}?{request.query}" if request.query else request.path
            found.append((target, request.body))
    except BadRequestError as error:
        found.append(error.status)
    return found


def llhttp(data: bytes) -> Read:
    found: Read = []

    class Messages:
        def on_message_begin(self) -> None:
            self.target = self.body = b""

        def on_url(self, url: bytes) -> None:
            self.target += url

        def on_body(self, body: bytes) -> None:
            self.body += body

        def on_message_complete(self) -> None:
            found.append((self.target.decode(), self.body))

    with contextlib.suppress(httptools.HttpParserError):  # it goes as far as it can
        httptools.HttpRequestParser(Messages()).feed_data(data)
    return found
