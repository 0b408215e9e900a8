from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.acceptance.conformance.conftest import OpenDoor
from tests.acceptance.conformance.doors import Door, Gate, assert_error
from tests.events import CHRONICLE, Chronicle, Recorder

conformance = pytest.mark.conformance


@conformance(65)
def test_invoke_async_is_accepted_and_runs_the_function(door: Door, gate: Gate) -> None:
    path = f"/2014-11-13/functions/{quote(door.function_name)}/invoke-async"

    with door.client() as client:
        answer = client.post(path, gate.event.encode())
        refused = client.post(f"{path}/", b"nonsense")

    gate.wait_reached()
    gate.open()
    assert answer.status == 202
    assert answer.headers["x-amzn-RequestId"]
    assert_error(refused, 400, "InvalidRequestContentException")


def send(door: Door, event: Any) -> str:
    """Invoke asynchronously; return the request id."""
    answer = door.invoke(json.dumps(event), X_Amz_Invocation_Type="Event")
    assert answer.status == 202
    return str(answer.headers["x-amzn-RequestId"])


@conformance(66, 69)
def test_a_failing_event_runs_three_times_and_its_record_is_aws_s(
    open_door: OpenDoor, chronicle: Chronicle, recorder: Recorder
) -> None:
    door = open_door(CHRONICLE, RAPID_ON_FAILURE=recorder.url, **chronicle.environ)

    request_id = send(door, {"fail": True})

    record = recorder.wait_for()[0]
    assert [attempt.request_id for attempt in chronicle.attempts] == 3 * [request_id]
    assert record.pop("timestamp")
    arn = f"arn:aws:lambda:us-east-1:123456789012:function:{door.function_name}:$LATEST"
    assert record == {
        "version": "1.0",
        "requestContext": {
            "requestId": request_id,
            "functionArn": arn,
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": {"fail": True},
        "responseContext": {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": "Unhandled",
        },
        "responsePayload": {"errorMessage": "on purpose", "errorType": "Boom"},
    }


@conformance(67)
def test_with_no_retry_attempts_an_event_runs_once(
    open_door: OpenDoor, chronicle: Chronicle, recorder: Recorder
) -> None:
    door = open_door(
        CHRONICLE, RAPID_ON_FAILURE=recorder.url, RAPID_MAX_RETRY_ATTEMPTS="0", **chronicle.environ
    )

    send(door, {"fail": True})

    assert recorder.wait_for()[0]["requestContext"]["approximateInvokeCount"] == 1
    assert len(chronicle.attempts) == 1


@conformance(68)
def test_an_event_whose_retry_would_come_too_late_is_dropped(
    open_door: OpenDoor, chronicle: Chronicle, recorder: Recorder
) -> None:
    settings = {
        **chronicle.environ,
        "RAPID_EVENT_RETRY_DELAYS": "61",
        "RAPID_MAXIMUM_EVENT_AGE": "60",
    }
    door = open_door(CHRONICLE, RAPID_ON_FAILURE=recorder.url, **settings)

    send(door, {"fail": True})

    context = recorder.wait_for()[0]["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == ("EventAgeExceeded", 1)


@conformance(70)
def test_the_record_of_a_successful_event_is_aws_s(
    open_door: OpenDoor, chronicle: Chronicle, recorder: Recorder
) -> None:
    door = open_door(CHRONICLE, RAPID_ON_SUCCESS=recorder.url, **chronicle.environ)

    request_id = send(door, {"n": 1})

    record = recorder.wait_for()[0]
    assert record["requestContext"]["requestId"] == request_id
    assert record["requestContext"]["condition"] == "Success"
    assert record["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST"}
    assert record["responsePayload"] == {"n": 1}
