"""Any bytes for the request reader: a status, or requests that llhttp reads as the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.protocol.test_http1_framing import llhttp, read

#: Pieces that make requests, and what has smuggled them elsewhere.
PIECES = st.sampled_from(
    [
        *(b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\n", b"POST / HTTP/1.0\r\n"),
        *(b"Host: x\r\n", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n"),
        *(b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"X: y\r\n"),
        *(b"\r\n", b"\n", b"\r", b"\x0b", b" ", b"\t", b":", b";", b",", b"\x00"),
        *(
            b"3\r\nabc\r\n",
            b"0\r\n\r\n",
            b"0\r\n",
            b"abc",
            b"T: 1\r\n",
            b"Transfer_Encoding: x\r\n",
        ),
    ]
)
REQUEST = st.lists(st.one_of(PIECES, st.binary(max_size=3)), max_size=14).map(b"".join)
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


@given(st.binary(max_size=500))
def test_any_bytes_are_requests_or_a_status(data: bytes) -> None:
    assert all(isinstance(item, tuple | int | str) for item in read(data))


@given(st.one_of(REQUEST, REQUEST.map(lambda rest: HEAD + rest)))
def test_what_is_read_llhttp_reads_as_the_same_requests(data: bytes) -> None:
    found = [item for item in read(data) if isinstance(item, tuple)]

    assert llhttp(data)[: len(found)] == found
