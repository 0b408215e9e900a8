from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from lambda_protocol.amqp_frames import FrameReader, Properties, publish_pieces
from lambda_protocol.async_amqp import decode_async, encode_async, encode_dead_letter
from lambda_protocol.errors import InvalidRequestContentException
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import AsyncInvocation, InvocationType
from lambda_protocol.queues import async_queue, call_queue, dead_letter_queue
from tests.support import make_invocation
from tests.unit.protocol.vectors import delivered

FUNCTION = FunctionRef(name="echo")


def make_event(**changes: Any) -> AsyncInvocation:
    invocation = make_invocation(type=InvocationType.EVENT)
    return replace(AsyncInvocation.accepted(invocation), **changes)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(make_event(), id="fresh"),
        pytest.param(make_event(attempt=3, backoffs=7), id="tried"),
        pytest.param(
            make_event(
                invocation=make_invocation(
                    type=InvocationType.EVENT,
                    function=FunctionRef(name="echo", qualifier="v1"),
                    client_context="e30=",
                    tenant_id="t 1",
                )
            ),
            id="everything",
        ),
    ],
)
def test_an_event_survives_the_broker(event: AsyncInvocation) -> None:
    message = delivered(encode_async(event), event.invocation.payload)

    assert decode_async(message, FUNCTION) == event


def test_an_event_is_persistent_and_wants_no_reply() -> None:
    properties = encode_async(make_event())

    assert (properties.delivery_mode, properties.reply_to) == (2, None)


def test_an_event_may_wait_for_what_is_left_of_six_hours() -> None:
    event = make_event(first_queued_ms=int(time.time() * 1000) - 3_600_000)

    expiration = int(encode_async(event).expiration or 0)

    assert expiration == pytest.approx(5 * 3_600_000, abs=60_000)


def test_an_event_from_tomorrow_is_as_old_as_one_from_now() -> None:
    event = make_event(first_queued_ms=int(time.time() * 1000) + 86_400_000)

    assert event.age_s(int(time.time() * 1000)) == 0


def test_a_message_of_another_client_is_an_event_accepted_now() -> None:
    event = decode_async(delivered(Properties(), b"[1]"), FUNCTION)

    assert event.invocation.payload == b"[1]"
    assert event.invocation.type is InvocationType.EVENT
    assert (event.attempt, event.backoffs) == (1, 0)
    assert event.age_s(int(time.time() * 1000)) < 60


@pytest.mark.parametrize("value", ["3", -1, 1 << 62])
def test_a_header_that_makes_no_sense_is_left_out(value: str | int) -> None:
    event = decode_async(delivered(Properties(headers={"X-Lambda-Attempt": value})), FUNCTION)

    assert event.attempt == 1


def test_what_no_function_could_run_is_refused() -> None:
    headers = {"X-Amz-Client-Context": "no base64"}

    with pytest.raises(InvalidRequestContentException):
        decode_async(delivered(Properties(headers=headers)), FUNCTION)


def test_a_dead_letter_has_aws_s_attributes_and_can_be_an_event_again() -> None:
    event = make_event(attempt=3)

    properties = encode_dead_letter(event, "é" * 1000)

    assert properties.headers["RequestID"] == event.invocation.request_id
    assert properties.headers["ErrorCode"] == 200
    assert properties.headers["ErrorMessage"] == "é" * 512  # one KB
    assert properties.expiration is None
    assert decode_async(delivered(properties, event.invocation.payload), FUNCTION) == event


def test_a_queue_of_calls_ends_some_time_after_its_last_consumer_or_with_it() -> None:
    after, at_once = (call_queue(FUNCTION, "classic", expires_s) for expires_s in (60.0, None))

    assert (after.arguments["x-expires"], after.auto_delete) == (60_000, False)
    assert (at_once.arguments, at_once.auto_delete) == ({"x-queue-type": "classic"}, True)


def test_quorum_queues_keep_what_they_hand_on_until_it_has_arrived() -> None:
    assert async_queue(FUNCTION, "quorum").arguments == {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "echo.dead",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    assert "x-dead-letter-strategy" not in async_queue(FUNCTION, "classic").arguments
    assert "x-delivery-limit" not in dead_letter_queue(FUNCTION, "classic").arguments


def test_an_event_can_be_published_to_an_exchange() -> None:
    event = make_event()

    frames = b"".join(
        publish_pieces(
            3,
            "echo.events",
            encode_async(event),
            b"{}",
            frame_max=131_072,
            exchange="lambda.retry.60000",
        )
    )

    method = FrameReader().feed(frames)[0]
    assert isinstance(method, bytes)
    assert b"\x12lambda.retry.60000\x0becho.events" in method
