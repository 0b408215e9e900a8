from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lambda_protocol.environ import ConfigError
from lambda_protocol.errors import LambdaApiError, ServiceException, TooManyRequestsException
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import UNHANDLED, AsyncInvocation, InvocationType, Outcome
from rapid.invocations.destinations import (
    AmqpDestination,
    FunctionDestination,
    HttpDestination,
    parse_destination,
)
from rapid.invocations.retry_policy import (
    Condition,
    Discard,
    Done,
    Retry,
    RetryPolicy,
    Step,
    destination_record,
    error_message,
)
from tests.support import make_invocation

NOW_MS = 1_700_000_000_000
POLICY = RetryPolicy(
    max_retries=2, delays_s=(60.0, 120.0), backoff_s=(1.0, 300.0), max_age_s=21_600
)
SUCCESS = Outcome(payload=b"1")
FAILURE = Outcome(payload=b'{"errorMessage": "boom"}', function_error=UNHANDLED)
OWN = FunctionRef(name="own")


def make_event(age_s: float = 0, **changes: Any) -> AsyncInvocation:
    invocation = make_invocation(type=InvocationType.EVENT)
    event = AsyncInvocation(invocation=invocation, first_queued_ms=NOW_MS - int(age_s * 1000))
    return replace(event, **changes)


def retry(event: AsyncInvocation, delay_s: float, **changes: Any) -> Retry:
    return Retry(replace(event, **changes), delay_s)


EVENT = make_event()
OLD = make_event(21_600 - 30)
THROTTLE, FAULT = TooManyRequestsException(), ServiceException("x")


@pytest.mark.parametrize(
    ("event", "outcome", "step"),
    [
        pytest.param(EVENT, SUCCESS, Done(), id="success"),
        pytest.param(EVENT, FAILURE, retry(EVENT, 60, attempt=2), id="after one minute"),
        pytest.param(
            make_event(attempt=2), FAILURE, retry(make_event(), 120, attempt=3), id="then after two"
        ),
        pytest.param(
            make_event(attempt=3), FAILURE, Discard(Condition.RETRIES_EXHAUSTED), id="then never"
        ),
        pytest.param(EVENT, THROTTLE, retry(EVENT, 1, backoffs=1), id="throttle"),
        pytest.param(
            make_event(attempt=3, backoffs=4),
            FAULT,
            retry(make_event(), 16, attempt=3, backoffs=5),
            id="a fault uses up no attempt",
        ),
        pytest.param(
            make_event(backoffs=1_000), FAULT, retry(EVENT, 300, backoffs=1_001), id="longest"
        ),
        # AWS looks ahead: an attempt that would begin too late is not waited for.
        pytest.param(OLD, FAILURE, Discard(Condition.EVENT_AGE_EXCEEDED), id="too late to retry"),
        pytest.param(OLD, THROTTLE, retry(OLD, 1, backoffs=1), id="soon enough to back off"),
        pytest.param(
            replace(OLD, backoffs=10),
            THROTTLE,
            Discard(Condition.EVENT_AGE_EXCEEDED),
            id="too late to back off",
        ),
        pytest.param(
            replace(OLD, attempt=3), FAILURE, Discard(Condition.RETRIES_EXHAUSTED), id="old and out"
        ),
    ],
)
def test_what_follows_an_attempt(
    event: AsyncInvocation, outcome: Outcome | LambdaApiError, step: Step
) -> None:
    found = POLICY.next_step(event, outcome, NOW_MS)

    if isinstance(found, Retry) and isinstance(step, Retry):
        assert found.delay_s == step.delay_s
        assert (found.async_invocation.attempt, found.async_invocation.backoffs) == (
            step.async_invocation.attempt,
            step.async_invocation.backoffs,
        )
        assert found.async_invocation.first_queued_ms == event.first_queued_ms
        assert found.async_invocation.invocation == event.invocation
    else:
        assert found == step


def test_the_last_delay_goes_on() -> None:
    policy = replace(POLICY, delays_s=(5.0,))

    step = policy.next_step(make_event(attempt=2), FAILURE, NOW_MS)

    assert isinstance(step, Retry)
    assert step.delay_s == 5.0


@pytest.mark.parametrize(("age_s", "is_too_old"), [(21_599, False), (21_601, True)])
def test_age_is_counted_from_the_first_edge(age_s: float, is_too_old: bool) -> None:
    assert POLICY.is_too_old(make_event(age_s), NOW_MS) is is_too_old


def test_a_record_of_an_event_that_was_never_tried_has_no_response() -> None:
    record = json.loads(
        destination_record(EVENT, Condition.EVENT_AGE_EXCEEDED, None, attempts=0, now_s=1.5)
    )

    assert record["timestamp"] == "1970-01-01T00:00:01.500Z"
    assert record["requestContext"]["functionArn"].endswith(":function:echo:$LATEST")
    assert record["requestContext"]["approximateInvokeCount"] == 0
    assert not {"responseContext", "responsePayload"} & set(record)


@pytest.mark.parametrize("payload", [b"no json", b"\xff", b"[" * 100_000])
def test_a_payload_that_is_no_json_is_text_in_its_record(payload: bytes) -> None:
    event = replace(EVENT, invocation=replace(EVENT.invocation, payload=payload))

    record = json.loads(destination_record(event, Condition.SUCCESS, SUCCESS, attempts=1, now_s=0))

    assert record["requestPayload"] == payload.decode(errors="replace")
    assert record["responsePayload"] == 1


def test_a_payload_of_any_depth_that_can_be_read_has_a_record() -> None:
    for depth in range(900, 1010):  # about where the interpreter stops
        payload = b"[" * depth + b"]" * depth
        event = replace(EVENT, invocation=replace(EVENT.invocation, payload=payload))

        record = destination_record(event, Condition.SUCCESS, SUCCESS, attempts=1, now_s=0)

        assert payload in record


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (FAILURE, "boom"),
        (Outcome(payload=b"[]", function_error=UNHANDLED), "RetriesExhausted"),
        (Outcome(payload=b"\xff", function_error=UNHANDLED), "RetriesExhausted"),
        (None, "RetriesExhausted"),
    ],
)
def test_a_dead_letter_has_the_functions_own_message(outcome: Outcome, message: str) -> None:
    assert error_message(Condition.RETRIES_EXHAUSTED, outcome) == message


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("queue:failed", AmqpDestination("", "failed")),
        ("exchange:events/a.b", AmqpDestination("events", "a.b")),
        ("exchange:events", AmqpDestination("events", "")),
        ("http://host:8080/x?y", HttpDestination("http://host:8080/x?y")),
        ("https://host", HttpDestination("https://host")),
        ("function:other", FunctionDestination(FunctionRef(name="other"))),
        (
            "arn:aws:lambda:us-east-1:1:function:other".replace(":1:", ":123456789012:"),
            FunctionDestination(FunctionRef(name="other")),
        ),
    ],
)
def test_a_destination_is_read(text: str, destination: object) -> None:
    assert parse_destination("RAPID_ON_SUCCESS", text, OWN) == destination


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other", "begins with 'other'; expected function:NAME"),
        ("sqs:queue", "begins with 'sqs'"),
        ("queue:", "begins with 'queue'"),
        ("http://", "no URL with a host"),
        ("http://host:port", "no URL with a host and port"),
        ("function:own", "is the function itself"),
        ("function:own:v1", "is the function itself"),
        ("function:no name", "validation error"),
        ("https://user:secret@:1/", "no URL"),
    ],
)
def test_a_wrong_destination_is_one_line_without_its_secrets(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_destination("RAPID_ON_SUCCESS", text, OWN)

    assert message in str(caught.value)
    assert str(caught.value).startswith("RAPID_ON_SUCCESS")
    assert "secret" not in str(caught.value)
