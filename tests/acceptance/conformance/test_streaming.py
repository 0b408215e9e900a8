from __future__ import annotations

import base64
import json

import pytest

from tests.acceptance.conformance.doors import Door, assert_function_error

conformance = pytest.mark.conformance


@conformance(63)
def test_a_streaming_response_is_one_answer_to_invoke(door: Door) -> None:
    event = '{"do":"response_mode","mode":"streaming","text":"whole"}'

    answer = door.invoke(event)

    assert (answer.status, answer.body) == (200, event.encode())
    assert "X-Amz-Function-Error" not in answer.headers
    assert door.result(do="last")["status"] == 202


@conformance(63)
def test_a_chunked_response_is_one_answer_to_invoke(door: Door) -> None:
    event = '{"do":"chunked","text":"whole"}'

    answer = door.invoke(event)

    assert (answer.status, answer.body) == (200, event.encode())
    assert answer.headers["Content-Length"] == str(len(event))


@conformance(63)
@pytest.mark.parametrize("mode", [{"mode": "streaming"}, {}], ids=["declared", "as-go-does"])
def test_error_trailers_replace_the_payload(door: Door, mode: dict[str, str]) -> None:
    error = b'{"errorType":"Function.Broke","errorMessage":"in the middle"}'
    trailers = {
        "Lambda-Runtime-Function-Error-Type": "Function.Broke",
        "Lambda-Runtime-Function-Error-Body": base64.b64encode(error).decode(),
    }

    answer = door.do(do="chunked", trailers=trailers, **mode)

    assert_function_error(answer)
    assert answer.body == error
    assert door.result(do="last")["status"] == 202


@conformance(64)
@pytest.mark.parametrize("mode", ["Streaming", "foo"])
def test_an_unknown_response_mode_fails_the_call(door: Door, mode: str) -> None:
    answer = door.do(do="response_mode", mode=mode)

    told = door.result(do="last")
    assert told["status"] == 400
    assert json.loads(told["body"]) == {
        "errorType": "InvalidFunctionResponseMode",
        "errorMessage": "Invalid function response mode",
    }
    assert assert_function_error(answer)["errorType"] == "Runtime.InvalidResponseModeHeader"
