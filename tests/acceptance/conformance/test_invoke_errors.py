from __future__ import annotations

import base64
from typing import Any

import botocore.exceptions
import pytest

from devtools.ports import free_ports
from tests.acceptance.conformance.conftest import OpenDoor, through_server
from tests.acceptance.conformance.doors import (
    ASYNC_PAYLOAD_BYTES,
    SYNC_PAYLOAD_BYTES,
    Calls,
    Door,
    Gate,
    assert_error,
    assert_function_error,
    boto3_client,
)
from tests.conftest import StartRapid, StartServer
from tests.support import ECHO, LIMIT_S, MISBEHAVE, Server

conformance = pytest.mark.conformance

NOT_JSON = {
    "text": b"nonsense",
    "cut": b'{"x":',
    "two": b"{}{}",
    "NaN": b"NaN",
    "latin-1": b'"\xe9"',
}
BAD_CONTEXTS = {
    "not base64": "!!!",
    "not JSON": base64.b64encode(b"nonsense").decode(),
    "no object": base64.b64encode(b"[1]").decode(),
    "too long": base64.b64encode(b'{"x":"' + b"x" * 2_700 + b'"}').decode(),
}


def json_of(size: int) -> bytes:
    return b'"' + b"x" * (size - 2) + b'"'


# 29: the classes of boto3; codes outside its model are plain ClientErrors


@conformance(29)
@pytest.mark.parametrize(
    ("arguments", "code", "is_modelled"),
    [
        ({"Payload": b"nonsense"}, "InvalidRequestContentException", True),
        ({"Qualifier": "v1", "FunctionName": "f:v2"}, "InvalidParameterValueException", True),
        ({"FunctionName": "no spaces"}, "ValidationException", False),
        ({"Payload": json_of(SYNC_PAYLOAD_BYTES + 1)}, "RequestEntityTooLargeException", False),
    ],
    ids=["content", "parameter", "validation", "size"],
)
def test_boto3_raises_the_class_of_the_error(
    door: Door, arguments: dict[str, Any], code: str, is_modelled: bool
) -> None:
    client = boto3_client(door.url)
    arguments = {"FunctionName": door.function_name, **arguments}

    with pytest.raises(botocore.exceptions.ClientError) as caught:
        client.invoke(**arguments)

    assert_boto3_error(client, caught.value, code, is_modelled)


@through_server
@conformance(29)
def test_boto3_raises_resource_not_found(door: Door) -> None:
    client = boto3_client(door.url)

    with pytest.raises(client.exceptions.ResourceNotFoundException) as caught:
        client.invoke(FunctionName="nobody")

    assert_boto3_error(client, caught.value, "ResourceNotFoundException", True)
    assert caught.value.response["Error"]["Message"].startswith("Function not found: arn:")


@conformance(29)
def test_boto3_raises_resource_not_ready(start_server: StartServer) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    server = start_server(LAMBDA_ENDPOINTS=f"f={nobody}", ready=False)
    client = boto3_client(server.url)

    with pytest.raises(client.exceptions.ResourceNotReadyException) as caught:
        client.invoke(FunctionName="f")

    assert_boto3_error(client, caught.value, "ResourceNotReadyException", True)


def assert_boto3_error(client: Any, error: Any, code: str, is_modelled: bool) -> None:
    expected = getattr(client.exceptions, code) if is_modelled else botocore.exceptions.ClientError
    assert type(error) is expected
    assert error.response["Error"]["Code"] == code
    assert error.response["Error"]["Message"]
    told = error.response["ResponseMetadata"]
    assert told["RequestId"]
    assert told["HTTPHeaders"]["content-type"] == "application/json"
    assert told["HTTPHeaders"]["x-amzn-errortype"] == code


# 30, 31, 36: what is refused before the function hears of it


@conformance(30)
@pytest.mark.parametrize("kind", ["RequestResponse", "Event"])
@pytest.mark.parametrize("payload", NOT_JSON.values(), ids=NOT_JSON)
def test_a_payload_that_is_not_json_is_refused(door: Door, kind: str, payload: bytes) -> None:
    answer = door.invoke(payload, X_Amz_Invocation_Type=kind)

    members = assert_error(answer, 400, "InvalidRequestContentException")
    assert members["Type"] == "User"
    assert members["message"].startswith("Could not parse request body into json: ")


@conformance(31)
@pytest.mark.parametrize("context", BAD_CONTEXTS.values(), ids=BAD_CONTEXTS)
def test_a_bad_client_context_is_refused(door: Door, context: str) -> None:
    answer = door.invoke(X_Amz_Client_Context=context)

    assert assert_error(answer, 400, "InvalidRequestContentException") == {
        "Type": "User",
        "message": "Client context must be a valid Base64-encoded JSON object.",
    }


@conformance(36)
@pytest.mark.parametrize("kind", ["Sync", "event", "requestresponse"])
def test_an_unknown_invocation_type_is_refused(door: Door, kind: str) -> None:
    answer = door.invoke(X_Amz_Invocation_Type=kind)

    assert assert_error(answer, 400, "InvalidParameterValueException")["Type"] == "User"


# 32, 33: sizes


@conformance(32)
def test_the_largest_payload_passes(door: Door) -> None:
    payload = json_of(SYNC_PAYLOAD_BYTES)

    answer = door.invoke(payload)

    assert answer.status == 200
    assert answer.body == payload


@conformance(32)
def test_a_payload_of_one_byte_more_is_refused(door: Door) -> None:
    answer = door.invoke(json_of(SYNC_PAYLOAD_BYTES + 1))

    assert assert_error(answer, 413, "RequestEntityTooLargeException") == {
        "Message": "Request must be smaller than 6291456 bytes for the InvokeFunction operation"
    }


@conformance(33)
def test_the_largest_event_passes(door: Door, gate: Gate) -> None:
    event = gate.event[:-1]
    payload = event + " " * (ASYNC_PAYLOAD_BYTES - len(event) - 1) + "}"

    answer = door.invoke(payload, X_Amz_Invocation_Type="Event")

    assert (len(payload), answer.status) == (ASYNC_PAYLOAD_BYTES, 202)
    gate.wait_reached()  # it has arrived whole
    gate.open()


@conformance(33)
def test_an_event_of_one_byte_more_is_refused(door: Door) -> None:
    answer = door.invoke(json_of(ASYNC_PAYLOAD_BYTES + 1), X_Amz_Invocation_Type="Event")

    assert assert_error(answer, 413, "RequestEntityTooLargeException") == {
        "Message": "1048577 byte payload is too large for the Event invocation type "
        "(limit 1048576 bytes)"
    }


# 34: concurrency


@conformance(34, 29)
def test_a_call_that_finds_everyone_busy_is_throttled(
    open_door: OpenDoor, calls: Calls, gate: Gate
) -> None:
    door = open_door(MISBEHAVE, own_server=True, RAPID_INVOKE_QUEUE_TIMEOUT="0.2")
    holder = calls.start(door, gate.event)
    gate.wait_reached()

    answer = door.invoke()
    client = boto3_client(door.url)
    with pytest.raises(client.exceptions.TooManyRequestsException) as caught:
        client.invoke(FunctionName=door.function_name)
    gate.open()

    assert assert_error(answer, 429, "TooManyRequestsException") == {
        "Type": "User",
        "message": "Rate Exceeded.",
        "Reason": "ConcurrentInvocationLimitExceeded",
    }
    assert caught.value.response["Reason"] == "ConcurrentInvocationLimitExceeded"
    assert holder.result(LIMIT_S).json() == "opened"


# 35: routes


@conformance(35)
@pytest.mark.parametrize(
    "path", ["/", "/2015-03-31/functions/f", "/2015-03-31/functions/f/invocation", "/nothing"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_404(door: Door, method: str, path: str) -> None:
    with door.client() as client:
        answer = client.request(method, path)

    assert (answer.status, answer.headers["Content-Type"]) == (404, "application/json")
    assert isinstance(answer.json(), dict)
    assert answer.headers["x-amzn-ErrorType"]


@conformance(35)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_known_path_with_another_method_is_405(door: Door, method: str) -> None:
    with door.client() as client:
        answer = client.request(method, door.path())

    assert (answer.status, answer.headers["Content-Type"]) == (405, "application/json")
    assert isinstance(answer.json(), dict)


# 37, 38: whose fault it is


@conformance(37, 29)
def test_a_broker_that_is_away_is_a_service_exception(start_rapid: StartRapid) -> None:
    uri = f"amqp://127.0.0.1:{free_ports(1)[0]}"
    rapid = start_rapid(ECHO, ready=False, RAPID_AMQP_URI=uri)
    with Server(ready=False, AMQP_URI=uri) as server:
        client = boto3_client(server.url)

        answers = [server.invoke("f"), rapid.invoke(X_Amz_Invocation_Type="Event")]
        with pytest.raises(client.exceptions.ServiceException) as caught:
            client.invoke(FunctionName="f")

    for answer in answers:
        assert assert_error(answer, 500, "ServiceException")["Type"] == "Service"
    assert_boto3_error(client, caught.value, "ServiceException", True)


@conformance(38)
@pytest.mark.parametrize(
    "event",
    [
        '{"do":"raise"}',
        '{"do":"raise","body":""}',
        '{"do":"raise","body":"nonsense","type":"No.Such-Type"}',
        '{"do":"exit","code":0}',
        '{"do":"exit","code":255}',
        '{"do":"signal","name":"SEGV"}',
        '{"do":"size","n":6300000}',
        '{"do":"truncate","n":10}',
        '{"do":"response_mode","mode":"foo"}',
    ],
)
def test_what_the_function_does_wrong_is_no_5xx(door: Door, event: str) -> None:
    answer = door.invoke(event)

    assert (answer.status, answer.headers["X-Amz-Function-Error"]) == (200, "Unhandled")
    assert "x-amzn-ErrorType" not in answer.headers
    if "nonsense" not in event:
        assert set(assert_function_error(answer)) >= {"errorType", "errorMessage"}
