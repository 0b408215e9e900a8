"""Messages of an event stream, held against recorded bytes and against botocore's parser."""

from __future__ import annotations

import pytest
from botocore.eventstream import EventStreamBuffer

from lambda_protocol import eventstream
from lambda_protocol.eventstream import BrokenStreamError, Decoder, Message
from lambda_protocol.response_stream import encode_chunk

#: A PayloadChunk of ``hello ``, as botocore's parser takes it.
HELLO = bytes.fromhex(
    "000000700000005a174e874c0b3a6576656e742d7479706507000c5061796c6f61644368756e6b0d3a636f6e74656e"
    "742d747970650700186170706c69636174696f6e2f6f637465742d73747265616d0d3a6d6573736167652d74797065"
    "0700056576656e7468656c6c6f206d711b04"
)
HEADERS = {
    ":event-type": "PayloadChunk",
    ":content-type": "application/octet-stream",
    ":message-type": "event",
}


def test_a_message_has_the_bytes_of_aws() -> None:
    assert encode_chunk(b"hello ") == HELLO


@pytest.mark.parametrize("payload", [b"", b"\0" * 3, "é".encode(), b"x" * 1_048_576])
def test_botocore_reads_what_is_encoded(payload: bytes) -> None:
    parser = EventStreamBuffer()

    parser.add_data(eventstream.encode(eventstream.encode_headers({":a": "é", "b": ""}), payload))

    (message,) = parser
    assert (message.headers, message.payload) == ({":a": "é", "b": ""}, payload)


def test_a_message_is_decoded_however_its_bytes_come() -> None:
    decoder = Decoder()

    found = [message for byte in HELLO for message in decoder.feed(bytes((byte,)))]

    assert found == [Message(HEADERS, b"hello ")]
    assert list(decoder.feed(HELLO + HELLO + HELLO[:20])) == 2 * found
    assert list(decoder.feed(HELLO[20:])) == found


@pytest.mark.parametrize("at", range(len(HELLO)))
def test_a_byte_that_is_wrong_is_noticed(at: int) -> None:
    broken = bytearray(HELLO)
    broken[at] ^= 0x20

    with pytest.raises(BrokenStreamError):
        list(Decoder().feed(bytes(broken)))


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(b"\x01a\x04\0\0\0\1", id="a number"),
        pytest.param(b"\x01a\x07\0\x09short", id="longer than it is"),
        pytest.param(b"\x09a", id="a name that is cut off"),
        pytest.param(b"\x01a\x07\0\1\xff", id="no text"),
    ],
)
def test_headers_that_are_no_text_are_refused(headers: bytes) -> None:
    with pytest.raises(BrokenStreamError):
        list(Decoder().feed(eventstream.encode(headers, b"")))


def test_a_message_that_is_too_long_is_refused_before_it_has_come() -> None:
    too_long = eventstream.encode(b"", bytes(eventstream.MAX_MESSAGE_BYTES))

    with pytest.raises(BrokenStreamError, match="16777232 bytes"):
        list(Decoder().feed(too_long[:12]))
