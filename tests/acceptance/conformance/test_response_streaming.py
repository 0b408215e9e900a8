from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.conformance.conftest import OpenDoor
from tests.acceptance.conformance.doors import Door, assert_error, boto3_client
from tests.support import MISBEHAVE, Answer

conformance = pytest.mark.conformance

#: A PayloadChunk of ``hello ``, as AWS's clients take it.
HELLO = bytes.fromhex(
    "000000700000005a174e874c0b3a6576656e742d7479706507000c5061796c6f61644368756e6b0d3a636f6e74656e"
    "742d747970650700186170706c69636174696f6e2f6f637465742d73747265616d0d3a6d6573736167652d74797065"
    "0700056576656e7468656c6c6f206d711b04"
)


def events(door: Door, *, log_type: str = "None", **event: Any) -> Iterator[dict[str, Any]]:
    """Yield what boto3 gives of the response, as it comes."""
    answer = boto3_client(door.url).invoke_with_response_stream(
        FunctionName=door.function_name, Payload=json.dumps(event), LogType=log_type
    )
    assert answer["StatusCode"] == 200
    assert answer["ExecutedVersion"] == "$LATEST"
    assert answer["ResponseStreamContentType"] == "application/vnd.amazon.eventstream"
    yield from answer["EventStream"]


def read(door: Door, *, log_type: str = "None", **event: Any) -> tuple[bytes, dict[str, Any]]:
    """Return the payload and the one InvokeComplete, which is the last event."""
    *chunks, last = events(door, log_type=log_type, **event)
    return b"".join(chunk["PayloadChunk"]["Payload"] for chunk in chunks), last["InvokeComplete"]


def post(door: Door, body: str = "{}", name: str | None = None, **headers: str) -> Answer:
    """Call the streaming operation on a new connection."""
    path = f"/2021-11-15/functions/{name or door.function_name}/response-streaming-invocations"
    with door.client() as client:
        return client.post(path, body.encode(), **headers)


@conformance(54)
@pytest.mark.parametrize("mode", [{"mode": "streaming"}, {}], ids=["declared", "as-go-does"])
def test_the_parts_come_in_their_order_and_then_the_end(door: Door, mode: dict[str, str]) -> None:
    parts = [f"{number}," for number in range(300)]

    payload, end = read(door, do="stream", parts=parts, **mode)

    assert (payload, end) == ("".join(parts).encode(), {})
    assert door.result(do="last")["status"] == 202


@conformance(55)
def test_the_first_part_comes_while_the_handler_still_runs(door: Door, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    stream = events(door, do="stream", parts=["first", "second"], until=str(gate))

    assert next(stream) == {"PayloadChunk": {"Payload": b"first"}}

    gate.touch()
    rest = list(stream)
    assert rest == [{"PayloadChunk": {"Payload": b"second"}}, {"InvokeComplete": {}}]


@conformance(56)
def test_the_bytes_are_those_of_aws(door: Door) -> None:
    answer = post(door, json.dumps({"do": "stream", "parts": ["hello "]}))

    assert answer.body.startswith(HELLO)
    assert answer.headers["Content-Type"] == "application/vnd.amazon.eventstream"
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.headers["x-amzn-RequestId"]


@conformance(57)
def test_a_handlers_error_is_the_end(door: Door) -> None:
    payload, end = read(door, do="raise")

    assert (payload, end["ErrorCode"]) == (b"", "Unhandled")
    assert json.loads(end["ErrorDetails"])["errorType"] == "ValueError"


@conformance(57)
@pytest.mark.parametrize("then", ["kill", "reset"])
def test_a_runtime_that_breaks_off_is_an_error_and_the_function_goes_on(
    door: Door, then: str
) -> None:
    payload, end = read(door, do="stream", parts=["some"], then=then)

    assert end["ErrorCode"] == "Unhandled"
    assert payload == b"some" or (then, payload) == ("kill", b"")  # its end may be seen first
    assert json.loads(end["ErrorDetails"])["errorType"] in (
        "Runtime.TruncatedResponse",
        "Runtime.ExitError",
    )
    assert read(door, do="stream", parts=["next"]) == (b"next", {})


@conformance(57)
def test_an_exit_before_the_first_part_is_an_error(door: Door) -> None:
    payload, end = read(door, do="exit", code=3)

    assert (payload, end["ErrorCode"]) == (b"", "Unhandled")
    assert "exit status 3" in end["ErrorDetails"]


@conformance(58)
def test_error_trailers_come_after_the_parts(door: Door) -> None:
    error = b'{"errorType":"Function.Broke","errorMessage":"in the middle"}'
    trailers = {
        "Lambda-Runtime-Function-Error-Type": "Function.Broke",
        "Lambda-Runtime-Function-Error-Body": base64.b64encode(error).decode(),
    }

    payload, end = read(door, do="stream", parts=["a", "b"], trailers=trailers)

    assert payload == b"ab"
    assert end == {"ErrorCode": "Unhandled", "ErrorDetails": error.decode()}
    assert door.result(do="last")["status"] == 202


@conformance(58)
def test_error_is_refused_once_the_response_has_begun(door: Door, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    stream = events(door, do="stream", parts=["a", "b"], until=str(gate), then="error")
    next(stream)
    gate.touch()

    assert list(stream) == [{"PayloadChunk": {"Payload": b"b"}}, {"InvokeComplete": {}}]
    told = door.result(do="last")
    assert told["status"] == 403
    assert json.loads(told["body"])["errorType"] == "InvalidStateTransition"


@conformance(59)
def test_tail_is_in_the_end(door: Door) -> None:
    _, end = read(door, log_type="Tail", do="print", text="a line\n")

    assert b"a line\n" in base64.b64decode(end["LogResult"])


@conformance(60)
def test_a_dry_run_is_204_and_an_event_is_400(door: Door) -> None:
    dry = post(door, X_Amz_Invocation_Type="DryRun")
    event = post(door, X_Amz_Invocation_Type="Event")

    assert (dry.status, dry.body) == (204, b"")
    message = assert_error(event, 400, "InvalidParameterValueException")["message"]
    assert "enum value set: [RequestResponse, DryRun]" in message


@conformance(61)
def test_errors_before_the_stream_are_json(door: Door) -> None:
    assert_error(post(door, "no json"), 400, "InvalidRequestContentException")
    assert_error(post(door, name="a%20b"), 400, "ValidationException")


@conformance(61)
def test_boto3_raises_what_is_no_stream(door: Door) -> None:
    if door.name == "rapid":
        pytest.skip("a rapid answers to every name")

    with pytest.raises(ClientError) as raised:
        boto3_client(door.url).invoke_with_response_stream(FunctionName="nobody")

    assert raised.value.response["Error"]["Code"] == "ResourceNotFoundException"


@conformance(62)
@pytest.mark.parametrize("size", [2, 100_000, 6_291_556])
def test_a_buffered_response_is_streamed_as_well(door: Door, size: int) -> None:
    payload, end = read(door, do="size", n=size)

    assert (len(payload), end) == (size, {})


@conformance(54)
def test_a_response_beyond_6_mb_passes(door: Door) -> None:
    payload, end = read(door, do="stream", parts=["x" * 65_536], count=160)

    assert (len(payload), end) == (10_485_760, {})


@conformance(57)
def test_a_timeout_in_mid_stream_keeps_what_was_sent(open_door: OpenDoor) -> None:
    door = open_door(MISBEHAVE, AWS_LAMBDA_FUNCTION_TIMEOUT="1")

    payload, end = read(door, do="stream", parts=["some"], then="sleep", s=60)

    assert payload == b"some"
    assert end["ErrorCode"] == "Sandbox.Timedout"
    assert "Task timed out after 1.00 seconds" in end["ErrorDetails"]
    assert read(door, do="stream", parts=["next"]) == (b"next", {})


@conformance(55)
def test_a_caller_that_sends_no_more_gets_the_rest_as_it_is(door: Door, tmp_path: Path) -> None:
    """Such a caller may be sent interim responses, but not in the middle of the answer."""
    gate = tmp_path / "gate"
    event = json.dumps({"do": "stream", "parts": ["first", "second"], "until": str(gate)})
    path = f"/2021-11-15/functions/{door.function_name}/response-streaming-invocations"
    with door.raw() as caller:
        caller.send(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Content-Length: {len(event)}\r\n\r\n{event}".encode()
        )
        caller.read_until(b"first")
        caller.close_sending()
        threading.Timer(2.5, gate.touch).start()  # longer than callers are looked at
        rest = caller.read_to_end()

    assert b"HTTP/1.1" not in rest
    assert b"second" in rest
    assert rest.endswith(b"0\r\n\r\n")
