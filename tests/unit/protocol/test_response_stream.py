"""A streamed response as messages, and back; botocore says what its callers get."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer

from lambda_protocol.errors import LambdaApiError, ServiceException, UnreadableReply
from lambda_protocol.eventstream import Decoder, Message
from lambda_protocol.invocation import UNHANDLED, Outcome
from lambda_protocol.response_stream import (
    MAX_CHUNK_BYTES,
    Parts,
    Streamed,
    decode_part,
    encode_chunk,
    encode_end,
    encode_fault,
    encode_parts,
)


def read(messages: bytes) -> list[dict[str, Any]]:
    """Return what botocore makes of the messages."""
    parser = EventStreamBuffer()
    parser.add_data(messages)
    return [message.to_response_dict() for message in parser]


def failed(error_type: str, message: str = "no") -> Outcome:
    payload = json.dumps({"errorType": error_type, "errorMessage": message}).encode()
    return Outcome(payload=payload, function_error=UNHANDLED)


def test_a_long_part_is_several_messages() -> None:
    chunks = read(encode_chunk(b"x" * (2 * MAX_CHUNK_BYTES + 1)))

    assert [len(chunk["body"]) for chunk in chunks] == [MAX_CHUNK_BYTES, MAX_CHUNK_BYTES, 1]


def test_success_is_an_empty_object() -> None:
    (end,) = read(encode_end(Outcome()))

    assert end["headers"][":event-type"] == "InvokeComplete"
    assert end["headers"][":content-type"] == "application/json"
    assert json.loads(end["body"]) == {}


def test_what_is_left_of_the_response_comes_before_its_end() -> None:
    chunk, end = read(encode_end(Outcome(payload=b"rest", log_tail=b"log")))

    assert chunk["body"] == b"rest"
    assert json.loads(end["body"]) == {"LogResult": base64.b64encode(b"log").decode()}


@pytest.mark.parametrize(
    ("error_type", "code"),
    [
        ("ValueError", "Unhandled"),
        ("Runtime.ExitError", "Unhandled"),
        ("Sandbox.Timedout", "Sandbox.Timedout"),
        ("Function.ResponseSizeTooLarge", "Function.ResponseSizeTooLarge"),
    ],
)
def test_a_failure_is_told_by_code_and_details(error_type: str, code: str) -> None:
    outcome = failed(error_type)

    (end,) = read(encode_end(outcome))

    assert json.loads(end["body"]) == {"ErrorCode": code, "ErrorDetails": outcome.payload.decode()}


@pytest.mark.parametrize("payload", [b"", b"[]", b"no json", b"\xff", b'{"a":1}', b"[" * 9000])
def test_an_error_of_any_form_is_unhandled(payload: bytes) -> None:
    (end,) = read(encode_end(Outcome(payload=payload, function_error=UNHANDLED)))

    members = json.loads(end["body"])
    assert members["ErrorCode"] == "Unhandled"
    assert members["ErrorDetails"] == payload.decode("utf-8", "replace")


def test_a_fault_is_an_error_that_botocore_raises() -> None:
    (fault,) = read(encode_fault(ServiceException("The instance was lost.")))

    assert fault["status_code"] == 400  # botocore's, for every error in a stream
    headers = fault["headers"]
    assert headers[":message-type"] == "error"
    assert headers[":error-code"] == "ServiceException"
    assert headers[":error-message"] == "The instance was lost."


def parts_of(*parts: bytes, end: Outcome | LambdaApiError) -> Parts:
    yield from parts
    if isinstance(end, LambdaApiError):
        raise end
    return end


def decoded(data: Iterable[bytes]) -> list[Message]:
    decoder = Decoder()
    return [message for each in data for message in decoder.feed(each)]


@pytest.mark.parametrize(
    "outcome", [Outcome(log_tail=b"log"), failed("Late")], ids=["ok", "failed"]
)
def test_parts_and_outcome_come_through(outcome: Outcome) -> None:
    messages = decoded(encode_parts(parts_of(b"a", b"b", end=outcome)))

    assert [decode_part(each, "$LATEST") for each in messages] == [b"a", b"b", outcome]


def test_a_fault_in_mid_stream_is_told_and_raised() -> None:
    encoded = encode_parts(parts_of(b"a", end=ServiceException("lost")))
    first, fault = decoded([next(encoded), next(encoded)])

    assert decode_part(first, "7") == b"a"
    with pytest.raises(ServiceException, match="lost"):
        next(encoded)
    with pytest.raises(ServiceException, match="lost"):
        decode_part(fault, "7")


def test_parts_that_nobody_wants_are_closed() -> None:
    parts = parts_of(b"a", b"b", end=Outcome())
    encoded = encode_parts(parts)
    next(encoded)

    encoded.close()  # type: ignore[attr-defined]

    assert next(parts, None) is None


def test_a_whole_response_has_no_parts() -> None:
    streamed = Streamed.whole(Outcome(payload=b'"all"', executed_version="3"))

    (chunk, end) = decoded(encode_parts(streamed.parts))
    assert (decode_part(chunk, "3"), streamed.executed_version) == (b'"all"', "3")
    assert decode_part(end, "3") == Outcome(executed_version="3")


@pytest.mark.parametrize("body", [b"", b"[]", b"no", b'{"LogResult":"no base64"}', b"[" * 9000])
def test_an_end_that_cannot_be_read_is_a_fault(body: bytes) -> None:
    with pytest.raises(UnreadableReply):
        decode_part(Message({":event-type": "InvokeComplete"}, body), "$LATEST")
