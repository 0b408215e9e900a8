from __future__ import annotations

import time
from typing import Any

import pytest

from lambda_protocol.amqp_frames import Properties
from lambda_protocol.errors import (
    InvalidRequestContentException,
    LambdaApiError,
    RequestEntityTooLargeException,
    ServiceException,
    UnreadableReply,
)
from lambda_protocol.invocation import Invocation, InvocationType, Outcome
from lambda_protocol.invoke_amqp import (
    DIRECT_REPLY_TO,
    Started,
    decode_call,
    decode_reply,
    encode_call,
    encode_error,
    encode_outcome,
    encode_started,
)
from tests.support import make_invocation
from tests.unit.protocol.vectors import CALLS, ERRORS, FUNCTION, OUTCOMES, delivered

# --- calls


@pytest.mark.parametrize("invocation", CALLS)
def test_an_invocation_survives_the_broker(invocation: Invocation) -> None:
    properties = encode_call(invocation, queue_timeout_s=30)

    received = decode_call(delivered(properties, invocation.payload), FUNCTION)

    assert received.invocation == invocation


def test_a_call_asks_for_its_reply_directly() -> None:
    properties = encode_call(make_invocation(request_id="rid"), queue_timeout_s=1.5)

    assert properties.reply_to == DIRECT_REPLY_TO
    assert properties.correlation_id == "rid"
    assert properties.expiration == "1500"
    assert properties.content_type == "application/json"
    assert properties.delivery_mode is None


def test_a_call_carries_the_time_it_was_made() -> None:
    before = int(time.time())

    timestamp = encode_call(make_invocation(), queue_timeout_s=1).timestamp

    assert timestamp is not None
    assert before <= timestamp <= time.time()


def test_a_header_without_a_value_is_absent() -> None:
    headers = encode_call(make_invocation(), queue_timeout_s=1).headers

    assert set(headers) == {
        "X-Amzn-Trace-Id",
        "X-Lambda-Frames",
        "X-Lambda-Relayed",
        "X-Lambda-Sent-Ms",
    }


def test_a_plain_client_needs_only_reply_to_and_correlation_id() -> None:
    properties = Properties(correlation_id="not-a-uuid", reply_to="my.queue")

    call = decode_call(delivered(properties, b""), FUNCTION)

    assert (call.reply_to, call.correlation_id) == ("my.queue", "not-a-uuid")
    assert call.understands_frames is False
    assert call.invocation.payload == b"{}"
    assert call.invocation.function == FUNCTION
    assert call.invocation.type is InvocationType.REQUEST_RESPONSE


def test_a_client_context_that_is_no_json_object_is_refused() -> None:
    properties = Properties(headers={"X-Amz-Client-Context": "e30"})

    with pytest.raises(InvalidRequestContentException):
        decode_call(delivered(properties), FUNCTION)


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "é", "", 7], ids=repr)
def test_an_unusable_trace_id_gives_way_to_a_fresh_one(value: str | int) -> None:
    properties = Properties(headers={"X-Amzn-Trace-Id": value})

    call = decode_call(delivered(properties), FUNCTION)

    assert call.invocation.trace_id.startswith("Root=1-")


@pytest.mark.parametrize("name", ["X-Amz-Tenant-Id", "X-Amz-Function-Qualifier"])
@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "snow\u2603man", "x" * 300], ids=ascii)
def test_what_cannot_stand_in_a_header_of_next_is_refused(name: str, value: str) -> None:
    with pytest.raises(LambdaApiError) as caught:
        decode_call(delivered(Properties(headers={name: value})), FUNCTION)
    assert caught.value.status == 400


# --- replies


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_outcome_survives_the_broker(outcome: Outcome) -> None:
    properties = encode_outcome("cid", outcome)

    assert properties.correlation_id == "cid"
    assert decode_reply(delivered(properties, outcome.payload)) == outcome


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_an_error_survives_the_broker(error: LambdaApiError) -> None:
    with pytest.raises(type(error)) as caught:
        decode_reply(delivered(encode_error("cid", error), error.body()))
    assert (caught.value.status, caught.value.body()) == (error.status, error.body())


def test_an_error_without_a_status_has_its_codes_usual_one() -> None:
    """A worker of another make may leave the status out."""
    properties = Properties(headers={"X-Lambda-Error-Type": "ServiceException"})

    with pytest.raises(ServiceException) as caught:
        decode_reply(delivered(properties, b'{"Message":"m"}'))
    assert caught.value.status == 500


def test_an_errors_headers_tell_status_and_class() -> None:
    headers = encode_error("cid", ServiceException("x")).headers

    assert headers == {"X-Lambda-Status": 500, "X-Lambda-Error-Type": "ServiceException"}


@pytest.mark.parametrize("is_running", [True, False])
def test_a_started_frame_survives_the_broker(is_running: bool) -> None:
    properties = encode_started("cid", 2.5, is_running=is_running)

    assert decode_reply(delivered(properties, b"")) == Started(2.5, is_running)


def test_the_reply_of_a_foreign_worker_is_an_outcome() -> None:
    """A worker that knows nothing of our headers answers with a payload alone."""
    assert decode_reply(delivered(Properties(), b'"hi"')) == Outcome(payload=b'"hi"')


@pytest.mark.parametrize(
    ("headers", "size"),
    [
        pytest.param({"X-Amz-Executed-Version": "1\r\nX: y"}, 2, id="line-end-in-version"),
        pytest.param({"X-Amz-Executed-Version": "\u2603"}, 2, id="version-out-of-latin-1"),
        pytest.param({"X-Amz-Log-Result": "?"}, 2, id="log-tail-of-no-base64"),
        pytest.param({}, 6_291_557, id="too-large"),
    ],
)
def test_a_reply_that_cannot_be_passed_on_is_502(headers: dict[str, Any], size: int) -> None:
    with pytest.raises(UnreadableReply) as caught:
        decode_reply(delivered(Properties(headers=headers), body_size=size))

    assert (caught.value.status, caught.value.code) == (502, "ServiceException")


@pytest.mark.parametrize("within_ms", [2**62, -1, "soon"], ids=str)
def test_an_announced_answer_is_awaited_for_a_day_at_most(within_ms: object) -> None:
    headers: dict[str, Any] = {
        "X-Lambda-Frame": "started",
        "X-Lambda-Answered-Within-Ms": within_ms,
    }

    answer = decode_reply(delivered(Properties(headers=headers)))

    assert isinstance(answer, Started)
    assert 0 <= answer.within_s <= 86_400


@pytest.mark.parametrize("check_payload", [False, True])
def test_a_payload_over_its_limit_is_413_over_amqp(check_payload: bool) -> None:
    large = delivered(Properties(), b"", body_size=6_291_457)

    with pytest.raises(RequestEntityTooLargeException):
        decode_call(large, FUNCTION, check_payload=check_payload)


def test_a_foreign_client_that_understands_frames_is_checked_like_any_other() -> None:
    foreign = delivered(Properties(headers={"X-Lambda-Frames": 1}, correlation_id="c"), b"not json")
    relayed = delivered(Properties(headers={"X-Lambda-Relayed": 1}), b"not json")

    with pytest.raises(InvalidRequestContentException):
        decode_call(foreign, FUNCTION, check_payload=True)
    assert decode_call(relayed, FUNCTION, check_payload=True).invocation.payload == b"not json"


def test_only_a_lambda_server_chooses_the_request_id() -> None:
    """The correlation id of another client repeats when it tries again; ours never does."""
    request_id = "01234567-89ab-cdef-0123-456789abcdef"
    foreign = Properties(headers={"X-Lambda-Frames": 1}, correlation_id=request_id)
    relayed = Properties(headers={"X-Lambda-Relayed": 1}, correlation_id=request_id)

    assert decode_call(delivered(foreign), FUNCTION).invocation.request_id != request_id
    assert decode_call(delivered(relayed), FUNCTION).invocation.request_id == request_id
