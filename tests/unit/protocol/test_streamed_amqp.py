"""The frames of a response over AMQP, and the credit for them."""

from __future__ import annotations

import pytest

from lambda_protocol import headers as names
from lambda_protocol.amqp_frames import Delivery, HeaderValue, Properties
from lambda_protocol.errors import ServiceException, UnreadableReply
from lambda_protocol.invocation import UNHANDLED, Outcome
from lambda_protocol.invoke_amqp import (
    ReplyAddress,
    Started,
    decode_call,
    encode_call,
    encode_error,
    encode_started,
)
from lambda_protocol.limits import ANNOUNCED_MAX_S
from lambda_protocol.streamed_amqp import (
    End,
    Head,
    Part,
    decode_credit,
    decode_frame,
    encode_cancel,
    encode_credit,
    encode_end,
    encode_head,
    encode_part,
    encode_whole,
)
from tests.support import make_invocation


def delivered(properties: Properties, body: bytes = b"", size: int | None = None) -> Delivery:
    return Delivery(
        channel=1,
        delivery_tag=1,
        redelivered=False,
        routing_key="f",
        properties=properties,
        body=body,
        body_size=len(body) if size is None else size,
    )


def head(**changed: HeaderValue) -> Properties:
    """Return the properties of a first frame as they arrive, with other headers."""
    properties = encode_head(
        "c", make_invocation(), content_type="text/x", executed_version="3", within_s=2.5
    )
    return Properties(
        content_type=properties.content_type,
        headers={**properties.headers, **changed},
        correlation_id=properties.correlation_id,
        reply_to="credit-queue",
    )


def test_a_call_says_how_much_it_takes_at_first() -> None:
    call = make_invocation()
    properties = encode_call(call, queue_timeout_s=1.0, credit_bytes=1000)

    assert decode_call(delivered(properties, b"{}"), call.function).credit_bytes == 1000


@pytest.mark.parametrize("credit", [0, -1, "1000", None])
def test_a_call_without_credit_wants_one_reply(credit: HeaderValue | None) -> None:
    call = make_invocation()
    properties = encode_call(call, queue_timeout_s=1.0)
    if credit is not None:
        properties = Properties(headers={**properties.headers, names.CREDIT: credit})

    assert decode_call(delivered(properties, b"{}"), call.function).credit_bytes is None


def test_credit_of_a_caller_that_knows_no_frames_is_no_wish() -> None:
    properties = Properties(headers={names.CREDIT: 1000})

    assert decode_call(delivered(properties), make_invocation().function).credit_bytes is None


def test_a_head_says_what_the_answer_needs() -> None:
    frame = decode_frame(delivered(head(**{names.RELAYED_REQUEST_ID: "id"}), b"first"))

    address = ReplyAddress("credit-queue", None)
    assert frame == Head("text/x", "3", address, "id", 2.5, b"first")


def test_a_head_with_odd_values_is_taken_with_usable_ones() -> None:
    odd: dict[str, HeaderValue] = {
        names.EXECUTED_VERSION: "a\nb",
        names.RELAYED_REQUEST_ID: 7,
        names.ANSWERED_WITHIN_MS: 10**15,
    }

    frame = decode_frame(delivered(head(**odd)))

    assert isinstance(frame, Head)
    assert (frame.executed_version, frame.request_id) == ("$LATEST", "")
    assert frame.within_s == ANNOUNCED_MAX_S


def test_parts_and_the_end_are_numbered() -> None:
    outcome = Outcome(payload=b"rest", executed_version="3", log_tail=b"log")
    end = decode_frame(delivered(encode_end("c", 9, outcome), b"rest"))

    assert decode_frame(delivered(encode_part("c", 8), b"x")) == Part(8, b"x")
    assert end == End(9, outcome, "application/json")


def test_one_reply_is_an_end_with_the_number_0() -> None:
    outcome = Outcome(payload=b"<p>")

    frame = decode_frame(delivered(encode_whole("c", outcome, "text/html"), b"<p>"))

    assert frame == End(0, outcome, "text/html")


def test_a_failure_ends_a_response() -> None:
    outcome = Outcome(payload=b"{}", function_error=UNHANDLED)

    frame = decode_frame(delivered(encode_end("c", 2, outcome), b"{}"))

    assert isinstance(frame, End)
    assert frame.outcome == outcome


def test_a_fault_is_raised() -> None:
    error = ServiceException("lost")

    with pytest.raises(ServiceException, match="lost"):
        decode_frame(delivered(encode_error("c", error), error.body()))


def test_the_frame_started_comes_through() -> None:
    assert decode_frame(delivered(encode_started("c", 1.5))) == Started(1.5)


@pytest.mark.parametrize("kind", ["head", "chunk"])
def test_a_part_whose_number_is_none_is_unreadable(kind: str) -> None:
    headers: dict[str, HeaderValue] = {names.FRAME: kind, names.SEQUENCE: "1"}

    with pytest.raises(UnreadableReply):
        decode_frame(delivered(Properties(headers=headers)))


def test_a_part_that_was_too_large_to_be_kept_is_unreadable() -> None:
    with pytest.raises(UnreadableReply):
        decode_frame(delivered(encode_part("c", 1), b"", size=9_000_000))


def test_credit_is_a_sum_and_a_cancel_is_none() -> None:
    assert decode_credit(delivered(encode_credit("id", 5000))) == 5000
    assert decode_credit(delivered(encode_cancel("id"))) is None
    assert decode_credit(delivered(Properties(headers={names.CREDIT: "much"}))) == 0
