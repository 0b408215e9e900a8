"""What every function counts on, under each of AWS's clients, by HTTP and over RabbitMQ.

The functions in ``functions/`` do the same in each language; ``rows.py`` has what differs.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.acceptance.conformance.doors import (
    RESPONSE_BYTES,
    SYNC_PAYLOAD_BYTES,
    Door,
    assert_function_error,
)
from tests.acceptance.runtimes.conftest import TIMEOUT_S, StartFunction
from tests.acceptance.runtimes.rows import Row

behaviour = pytest.mark.behaviour
conformance = pytest.mark.conformance

_TRACE_ID = "Root=1-6746f0a1-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=1"


def result(door: Door, event: dict[str, Any], **headers: str) -> Any:
    """Return what the function answers; an error is a failure."""
    answer = door.invoke(json.dumps(event), **headers)
    assert answer.status == 200, answer.body
    assert "X-Amz-Function-Error" not in answer.headers, answer.body
    return answer.json()


@behaviour("echo")
def test_an_event_is_echoed(function: Door) -> None:
    event: dict[str, Any] = {
        "text": "Grüße, 🐈",
        "list": [1, 2.5, True, None, []],
        "object": {"": {}},
    }

    assert result(function, event) == event


@behaviour("error")
@conformance(89)
def test_an_error_reaches_the_caller_with_its_stack_and_the_next_call_works(
    function: Door, row: Row
) -> None:
    error = assert_function_error(function.invoke('{"do": "fail"}'))

    assert error["errorMessage"] == "on purpose"
    assert error["errorType"] == row.error_type
    if row.stack is not None:
        member, name = row.stack
        assert name in json.dumps(error[member])
    assert result(function, {"n": 1}) == {"n": 1}


@behaviour("context")
def test_the_handler_sees_its_deadline_and_context(function: Door) -> None:
    answer = function.invoke('{"do": "context"}', X_Amzn_Trace_Id=_TRACE_ID)

    seen = answer.json()
    assert 0 < seen.pop("remaining_ms") <= TIMEOUT_S * 1000
    assert seen.pop("client_context", None) is None  # AWS's Java leaves out what is null
    assert seen == {
        "request_id": answer.headers["x-amzn-RequestId"],
        "arn": f"arn:aws:lambda:us-east-1:123456789012:function:{function.function_name}",
        "name": function.function_name,
        "version": "$LATEST",
        "memory_mb": 3008,
        "trace_id": _TRACE_ID,
    }


@behaviour("client context")
def test_the_handler_sees_the_client_context(function: Door) -> None:
    custom = {"who": "Zoë"}
    client_context = base64.b64encode(json.dumps({"custom": custom}).encode()).decode()

    seen = result(function, {"do": "context"}, X_Amz_Client_Context=client_context)

    assert seen["client_context"] == custom


@behaviour("100 calls")
@conformance(89)
def test_100_calls_go_through_one_process(function: Door) -> None:
    answers = []
    with function.client() as client:
        for number in range(100):
            event = json.dumps({"do": "count", "n": number}).encode()
            answers.append(client.post(function.path(), event).json())

    first = answers[0]["count"]
    assert answers == [{"n": n, "count": first + n} for n in range(100)]


@behaviour("init error")
def test_an_init_error_reaches_the_caller(start_function: StartFunction, row: Row) -> None:
    function = start_function(ready=False, FAIL_INIT="1")

    error = assert_function_error(function.invoke())

    error_type, message = row.init_error
    assert error["errorType"] == error_type
    assert message in error["errorMessage"]


@behaviour("timeout")
def test_after_a_timeout_a_fresh_process_serves_the_next_call(
    start_function: StartFunction,
) -> None:
    function = start_function(AWS_LAMBDA_FUNCTION_TIMEOUT="1")
    assert result(function, {"do": "count", "n": 1})["count"] == 1

    error = assert_function_error(function.invoke('{"do": "sleep", "seconds": 60}'))

    assert error["errorType"] == "Sandbox.Timedout"
    assert error["errorMessage"].endswith(" Error: Task timed out after 1.00 seconds")
    assert result(function, {"do": "count", "n": 2}) == {"n": 2, "count": 1}


@behaviour("6 MiB in")
def test_the_largest_payload_reaches_the_handler(function: Door) -> None:
    empty = len(json.dumps({"do": "size", "data": ""}))
    letters = SYNC_PAYLOAD_BYTES - empty

    assert result(function, {"do": "size", "data": "x" * letters}) == {"bytes": letters}


@behaviour("6 MiB out")
def test_the_largest_response_reaches_the_caller(function: Door) -> None:
    answer = function.invoke(json.dumps({"do": "big", "bytes": RESPONSE_BYTES}))

    assert answer.status == 200
    assert answer.body == b'"' + b"x" * (RESPONSE_BYTES - 2) + b'"'
