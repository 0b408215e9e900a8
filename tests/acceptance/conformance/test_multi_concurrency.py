from __future__ import annotations

import contextlib
import json

import pytest

from tests.acceptance.conformance.conftest import OpenDoor, StartPuppet
from tests.acceptance.conformance.doors import Calls
from tests.acceptance.conformance.puppet import RUNTIME
from tests.support import LIMIT_S, MULTI

conformance = pytest.mark.conformance


@conformance(123)
def test_four_nexts_get_four_calls_answered_in_reverse(open_door: OpenDoor, calls: Calls) -> None:
    door = open_door(
        "sleep", "600", ready=False, AWS_LAMBDA_MAX_CONCURRENCY="4", RAPID_INIT_TIMEOUT="600"
    )
    door.function.wait_for_log("exec '")
    with contextlib.ExitStack() as stack:
        nexts = [
            stack.enter_context(contextlib.closing(door.function.runtime_api())) for _ in "1234"
        ]
        poll = f"{RUNTIME}/invocation/next"
        taken = [calls.run(client.get, poll) for client in nexts]
        door.function.wait_ready()
        callers = [calls.start(door, str(number)) for number in range(4)]

        events = [event.result(LIMIT_S) for event in taken]
        for event in reversed(events):
            request_id = event.headers["Lambda-Runtime-Aws-Request-Id"]
            path = f"{RUNTIME}/invocation/{request_id}/response"
            answer = nexts[0].post(path, json.dumps({"echo": int(event.body)}).encode())
            assert answer.status == 202

        assert sorted(int(event.body) for event in events) == [0, 1, 2, 3]
        answers = [caller.result(LIMIT_S).json() for caller in callers]
        assert answers == [{"echo": number} for number in range(4)]


@conformance(123)
def test_one_process_runs_four_calls_at_once(open_door: OpenDoor, calls: Calls) -> None:
    door = open_door(MULTI, AWS_LAMBDA_MAX_CONCURRENCY="4")

    callers = [calls.start(door, json.dumps({"s": 0.5, "n": number})) for number in range(4)]
    answers = [caller.result(LIMIT_S).json() for caller in callers]

    assert [answer["event"]["n"] for answer in answers] == [0, 1, 2, 3]
    assert len({answer["pid"] for answer in answers}) == 1
    assert len({answer["thread"] for answer in answers}) == 4


@conformance(124)
@pytest.mark.parametrize("kind", ["response", "error"])
def test_a_late_response_is_410_once_then_400(start_puppet: StartPuppet, kind: str) -> None:
    puppet = start_puppet(AWS_LAMBDA_MAX_CONCURRENCY="4", AWS_LAMBDA_FUNCTION_TIMEOUT="0.5")
    turn = puppet.take()
    timed_out = turn.outcome()
    path = f"{RUNTIME}/invocation/{turn.request_id}/{kind}"

    late = [puppet.runtime.post(path, b"{}") for _ in range(2)]
    following = puppet.take()
    assert puppet.runtime.post(following.response_path, b'"alive"').status == 202

    assert timed_out.json()["errorType"] == "Sandbox.Timedout"
    assert [(answer.status, answer.error_type) for answer in late] == [
        (410, "InvokeTimeout"),
        (400, "InvalidRequestID"),
    ]
    assert following.outcome().body == b'"alive"'
