"""Where a message ends: every framing of a table, with llhttp as the second opinion.

Two readers that disagree on that are how requests are smuggled past a proxy, so the rule is one
way: what is read here, llhttp reads as the same requests. Source: RFC 9112; RFC 9110.
"""

from __future__ import annotations

import contextlib
import socket
from typing import cast

import pytest

from lambda_protocol.http1 import RequestReader
from lambda_protocol.http_head import BadRequestError
from tests.framings import READ_AS, Read

LIMIT = 1000

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

    def recv_into(self, room: bytearray | memoryview) -> int:
        data = self.recv(len(room))
        room[: len(data)] = data
        return len(data)


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
    # It is compiled for this machine's C library, not for that of the static file.
    httptools = pytest.importorskip("httptools", exc_type=ImportError)
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
