"""Any message for the AMQP codec: an invocation, an outcome or one of AWS's errors."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from lambda_protocol.amqp_frames import Delivery, Properties, publish_pieces
from lambda_protocol.async_amqp import decode_async, encode_async, encode_dead_letter
from lambda_protocol.errors import LambdaApiError
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import Outcome
from lambda_protocol.invoke_amqp import (
    Started,
    decode_call,
    decode_reply,
    encode_call,
    encode_error,
    parse_reply_to,
)
from lambda_protocol.invoke_http import encode_outcome
from lambda_protocol.limits import ANNOUNCED_MAX_S
from tests.unit.protocol.vectors import delivered

NAMES = [
    "X-Amz-Client-Context",
    "X-Amzn-Trace-Id",
    "X-Amz-Log-Type",
    "X-Amz-Tenant-Id",
    "X-Amz-Function-Qualifier",
    "X-Lambda-Frames",
    "X-Lambda-Frame",
    "X-Lambda-Answered-Within-Ms",
    "X-Lambda-Status",
    "X-Lambda-Error-Type",
    "X-Lambda-Attempt",
    "X-Lambda-First-Queued-Ms",
    "X-Lambda-Backoffs",
    "X-Amz-Function-Error",
    "X-Amz-Executed-Version",
    "X-Amz-Log-Result",
]
NUMBERS = st.integers(-(2**63), 2**63 - 1)
VALUES = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=60),
    NUMBERS,
    st.sampled_from(["e30=", "Tail", "started", "ServiceException", "Unhandled", "a\r\nb: c", 1]),
)
#: Text as the frame reader makes it of any bytes.
SHORT = st.one_of(
    st.none(), st.binary(max_size=255).map(lambda b: b.decode(errors="surrogateescape"))
)
BODIES = st.one_of(
    st.binary(max_size=60), st.sampled_from([b"{}", b'"\\ud800"', b"\xff", b"[" * 2000])
)
MESSAGES = st.builds(
    lambda headers, correlation_id, reply_to, body: delivered(
        Properties(headers=headers, correlation_id=correlation_id, reply_to=reply_to), body
    ),
    st.dictionaries(st.sampled_from(NAMES), VALUES),
    SHORT,
    SHORT,
    BODIES,
)
FUNCTION = FunctionRef(name="echo")


def is_sendable(properties: Properties) -> bool:
    return bool(publish_pieces(1, "q", properties, b"", frame_max=131_072))


@given(MESSAGES)
def test_any_message_is_a_call_or_an_error_that_can_be_sent_back(delivery: Delivery) -> None:
    try:
        call = decode_call(delivery, FUNCTION, check_payload=True)
        properties = encode_call(call.invocation, queue_timeout_s=1)
    except LambdaApiError as error:
        properties = encode_error(delivery.properties.correlation_id, error)

    assert is_sendable(properties)


@given(MESSAGES, st.text(st.characters()))
def test_any_message_is_an_event_that_can_be_sent_on_or_an_error(
    delivery: Delivery, reason: str
) -> None:
    with contextlib.suppress(LambdaApiError):
        event = decode_async(delivery, FUNCTION, check_payload=True)
        assert is_sendable(encode_async(event))
        assert is_sendable(encode_dead_letter(event, reason))


@given(MESSAGES)
def test_any_reply_is_an_outcome_whose_headers_can_be_written_or_an_error(
    delivery: Delivery,
) -> None:
    try:
        answer = decode_reply(delivery)
    except LambdaApiError:
        return
    if isinstance(answer, Started):
        assert 0 <= answer.within_s <= ANNOUNCED_MAX_S
        return
    assert isinstance(answer, Outcome)
    invocation = decode_call(delivered(Properties()), FUNCTION).invocation
    for _, value in encode_outcome(invocation, answer).headers:
        assert not {*value} & {*"\r\n\0"}
        assert value.isascii()


@given(SHORT)
def test_any_reply_to_is_an_address_or_none(reply_to: str | None) -> None:
    address = parse_reply_to(reply_to)

    assert address is None or address.queue == reply_to
