"""The bytes of what a WSGI application answers. Source: PEP 3333, RFC 9112."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lambda_protocol.http1 import Request
from lambda_protocol.http_head import BadRequestError, Head
from lambda_server.wsgi_response import JOINED_BYTES, Response


class Chunks:
    """What an application returns: it is closed in the end."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks
        self.is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.chunks)

    def close(self) -> None:
        """Be closed."""
        self.is_closed = True


def answer(
    chunks: object,
    *headers: tuple[str, str],
    method: str = "GET",
    status: str = "200 OK",
    version: str = "HTTP/1.1",
) -> list[bytes]:
    """Return what is written, piece by piece."""
    written: list[bytes] = []
    response = Response(written.append, Request(Head(method, "/", {}, version)))
    response.start(status, list(headers))
    response.send(chunks)  # type: ignore[arg-type]
    return written


def test_a_body_whose_parts_are_there_is_written_with_its_head() -> None:
    (written,) = answer([b"ab", b"c"], ("X-A", "b"))

    head, _, body = written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nX-A: b\r\nContent-Length: 3" in head
    assert body == b"abc"


def test_a_large_body_is_not_copied() -> None:
    body = b"x" * (JOINED_BYTES + 1)

    assert answer((body,))[1] is body


def test_a_body_that_comes_bit_by_bit_is_chunked_and_closed() -> None:
    chunks = Chunks(b"ab", b"", b"c" * 20)

    first, *others = answer(chunks)

    head, _, body = first.partition(b"\r\n\r\n")
    assert b"\r\nTransfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    assert [body, *others] == [b"2\r\nab\r\n", b"14\r\n%b\r\n" % (20 * b"c"), b"0\r\n\r\n"]
    assert chunks.is_closed


def test_a_client_of_http_1_0_gets_the_parts_as_they_are_until_the_end() -> None:
    first, *others = answer(Chunks(b"ab", b"c"), version="HTTP/1.0")

    head, _, body = first.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert b"\r\nConnection: close" in head
    assert [body, *others] == [b"ab", b"c", b""]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_a_status_without_a_body_has_no_framing(status: str) -> None:
    (written,) = answer(Chunks(b""), status=status)

    head, _, body = written.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert body == b""


def test_a_body_with_a_length_is_not_chunked() -> None:
    (written,) = answer(Chunks(b"a", b"b"), ("Content-Length", "2"))

    assert written.endswith(b"Content-Length: 2\r\nConnection: keep-alive\r\n\r\nab")


@pytest.mark.parametrize("chunks", [[b"ab"], Chunks(b"ab")], ids=["whole", "in chunks"])
def test_head_has_no_body(chunks: object) -> None:
    assert b"".join(answer(chunks, method="HEAD")).endswith(b"\r\n\r\n")


def test_a_204_has_neither_body_nor_length() -> None:
    (written,) = answer([], status="204 No Content")

    assert b"Content-Length" not in written
    assert written.endswith(b"\r\n\r\n")


def test_the_last_answer_says_close() -> None:
    (written,) = answer([b""], version="HTTP/1.0")

    assert b"\r\nConnection: close\r\n" in written


def test_a_header_that_would_be_two_is_a_bad_gateway() -> None:
    with pytest.raises(BadRequestError) as caught:
        answer([b""], ("X-A", "b\r\nX-B: c"))

    assert caught.value.status == 502


def test_an_error_after_the_beginning_is_raised() -> None:
    response = Response(lambda _data: None, Request(Head("GET", "/", {})))
    response.start("200 OK", [])
    response.send(Chunks(b"a"))
    error = ValueError("too late")

    with pytest.raises(ValueError, match="too late"):
        response.start("500 Internal Server Error", [], (ValueError, error, None))


def test_what_flask_never_calls_is_refused() -> None:
    response = Response(lambda _data: None, Request(Head("GET", "/", {})))

    with pytest.raises(NotImplementedError):
        response.start("200 OK", [])(b"data")
