"""What the conformance tests leave open of the Runtime API, with the test as the runtime."""

from __future__ import annotations

import base64
import json

import pytest

from rapid.processes import environ_of
from tests.acceptance.conformance.conftest import StartPuppet
from tests.acceptance.conformance.doors import assert_error, assert_function_error
from tests.acceptance.conformance.puppet import NEXT, RUNTIME, Puppet, Turn
from tests.support import Answer, wait_until

MIB = 1_048_576


def respond(puppet: Puppet, turn: Turn, body: bytes = b"{}") -> Answer:
    return puppet.runtime.post(turn.response_path, body)


# --- next


def test_header_names_of_next_are_spelt_as_shell_runtimes_grep_for_them(puppet: Puppet) -> None:
    context = base64.b64encode(b"{}").decode()

    turn = puppet.take(X_Amz_Client_Context=context, X_Amz_Tenant_Id="t")

    assert set(turn.event.headers.keys()) == {
        "Content-Type",
        "Content-Length",
        "Lambda-Runtime-Aws-Request-Id",
        "Lambda-Runtime-Invocation-Id",
        "Lambda-Runtime-Deadline-Ms",
        "Lambda-Runtime-Invoked-Function-Arn",
        "Lambda-Runtime-Trace-Id",
        "Lambda-Runtime-Client-Context",
        "Lambda-Runtime-Aws-Tenant-Id",
    }


def test_the_client_context_comes_in_ascii_without_line_ends(puppet: Puppet) -> None:
    context = '{"custom": {"k": "snow☃"},\n "n": 1}'

    turn = puppet.take(X_Amz_Client_Context=base64.b64encode(context.encode()).decode())

    received = turn.event.headers["Lambda-Runtime-Client-Context"]
    assert received.isascii()
    assert json.loads(received) == json.loads(context)


def test_a_next_whose_connection_is_gone_gets_no_event(puppet: Puppet) -> None:
    puppet.park().close()
    puppet.rapid.wait_ready()

    turn = puppet.take(b"7")
    respond(puppet, turn, b"8")

    assert turn.outcome().body == b"8"


# --- response


def test_a_response_without_a_body_is_empty(puppet: Puppet) -> None:
    turn = puppet.take()
    respond(puppet, turn, b"")

    assert (turn.outcome().status, turn.outcome().body) == (200, b"")


def test_a_request_id_in_the_path_may_be_percent_encoded(puppet: Puppet) -> None:
    turn = puppet.take()
    encoded = turn.request_id.replace("-", "%2D")

    puppet.runtime.post(f"{RUNTIME}/invocation/{encoded}/response", b"1")

    assert turn.outcome().body == b"1"


def test_an_answer_to_the_event_before_is_refused(puppet: Puppet) -> None:
    first = puppet.take()
    respond(puppet, first)
    second = puppet.take()

    refused = respond(puppet, first, b"late")
    respond(puppet, second, b"right")

    assert (refused.status, refused.error_type) == (400, "InvalidRequestID")
    assert second.outcome().body == b"right"


def test_an_answer_in_the_wrong_state_is_refused_in_awss_words(puppet: Puppet) -> None:
    with puppet.park():
        puppet.rapid.wait_ready()
        init_error = puppet.runtime.post(f"{RUNTIME}/init/error", b"{}")
    turn = puppet.take()
    respond(puppet, turn)
    second = respond(puppet, turn)

    for refused, states in (
        (second, "InvocationResponse to InvocationResponse"),
        (init_error, "Ready to InitError"),
    ):
        assert refused.status == 403
        assert refused.json() == {
            "errorMessage": f"State transition from {states} failed for runtime. "
            "Error: State transition is not allowed",
            "errorType": "InvalidStateTransition",
        }


@pytest.mark.parametrize("length", [20 * MIB, 99_999_999_999], ids=["20-MiB", "endless"])
def test_a_response_over_the_limit_is_the_functions_failure(puppet: Puppet, length: int) -> None:
    turn = puppet.take()

    with puppet.raw() as raw:
        head = f"POST {turn.response_path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n"
        raw.send(head.encode())
        raw.send(b"x" * (length if length == 20 * MIB else 0))

        members = assert_function_error(turn.outcome())

    assert members["errorType"] == "Function.ResponseSizeTooLarge"


@pytest.mark.parametrize(
    ("trailers", "error"),
    [
        pytest.param(
            {"Type": "Function.Broke", "Body": base64.b64encode(b"any bytes").decode()},
            b"any bytes",
            id="both",
        ),
        pytest.param(
            {"Body": base64.b64encode(b'{"errorType":"E"}').decode()},
            b'{"errorType":"E"}',
            id="body",
        ),
        pytest.param(
            {"Type": "Function.Broke"},
            b'{"errorMessage": "The runtime gave no reason", "errorType": "Function.Broke"}',
            id="type",
        ),
        pytest.param(
            {"Type": "Function.Broke", "Body": "{}"},
            b'{"errorMessage": "The trailer Lambda-Runtime-Function-Error-Body is not base64", '
            b'"errorType": "Function.Broke"}',
            id="no-base64",
        ),
        pytest.param({"Type": "", "Body": ""}, None, id="without-values"),
    ],
)
def test_error_trailers_are_the_payload_in_place_of_the_body(
    puppet: Puppet, trailers: dict[str, str], error: bytes | None
) -> None:
    turn = puppet.take()
    lines = "".join(
        f"Lambda-Runtime-Function-Error-{name}: {value}\r\n" for name, value in trailers.items()
    )

    with puppet.raw() as raw:
        raw.send(
            f"POST {turn.response_path} HTTP/1.1\r\n"
            f"Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\n{lines}\r\n".encode()
        )
        told = raw.read_answer()

    assert (told.status, told.body) == (202, b'{"status":"OK"}\n')
    assert ("X-Amz-Function-Error" in turn.outcome().headers) == (error is not None)
    assert turn.outcome().body == (b"part" if error is None else error)


# --- error


@pytest.mark.parametrize(
    ("headers", "error_type"),
    [({"Lambda_Runtime_Function_Error_Type": "My.Type"}, "My.Type"), ({}, "Runtime.Unknown")],
    ids=["typed", "untyped"],
)
def test_an_error_without_a_body_gets_one(
    puppet: Puppet, headers: dict[str, str], error_type: str
) -> None:
    turn = puppet.take()
    puppet.runtime.post(turn.error_path, b"", **headers)

    assert assert_function_error(turn.outcome())["errorType"] == error_type


def test_an_error_cause_body_loses_its_cause(puppet: Puppet) -> None:
    turn = puppet.take()
    puppet.runtime.post(
        turn.error_path,
        b'{"errorMessage":"m","errorType":"t","errorCause":{"working_directory":"/"}}',
        Content_Type="application/vnd.aws.lambda.error.cause+json",
    )

    assert assert_function_error(turn.outcome()) == {"errorMessage": "m", "errorType": "t"}


# --- environments


def test_a_call_after_an_idle_shutdown_starts_a_new_process(start_puppet: StartPuppet) -> None:
    puppet = start_puppet(AWS_LAMBDA_FUNCTION_IDLETIMEOUT="0.2")
    with puppet.park():
        wait_until(lambda: not puppet.rapid.descendants(), "its end")
    caller = puppet.call()
    puppet.rapid.wait_for_log("exec '", count=2)

    with puppet.rapid.runtime_api() as runtime:
        turn = Turn(runtime.get(NEXT), caller)
        runtime.post(turn.response_path, b"1")

    assert turn.outcome().body == b"1"


def test_one_timeout_of_several_leaves_the_others_alone(start_puppet: StartPuppet) -> None:
    puppet = start_puppet(AWS_LAMBDA_MAX_CONCURRENCY="2", AWS_LAMBDA_FUNCTION_TIMEOUT="1")
    assert_function_error(puppet.take().outcome())

    turn = puppet.take()
    respond(puppet, turn, b"fine")

    assert turn.outcome().body == b"fine"
    assert sum("exec '" in line for line in puppet.rapid.log) == 1


def test_a_relayed_request_id_is_refused_while_it_is_in_use(start_puppet: StartPuppet) -> None:
    """Two calls of one id could not be told apart: one of them would never be answered."""
    puppet = start_puppet(AWS_LAMBDA_MAX_CONCURRENCY="2")
    same = "01234567-89ab-4def-8123-456789abcdef"
    for _ in range(2):
        turn = puppet.take(X_Lambda_Request_Id=same)

        assert turn.request_id == same
        refused = puppet.rapid.invoke(X_Lambda_Request_Id=same)
        assert_error(refused, 400, "InvalidParameterValueException")
        respond(puppet, turn, b"1")
        assert turn.outcome().body == b"1"


def test_each_environment_has_an_address_of_its_own(start_puppet: StartPuppet) -> None:
    puppet = start_puppet(RAPID_MAX_CONCURRENCY="2")
    turn = puppet.take(b"1")
    puppet.call(b"2")
    wait_until(lambda: len(puppet.rapid.descendants()) == 2, "the second process")

    respond(puppet, turn, b"done")

    assert turn.outcome().body == b"done"
    addresses = {runtime_api_of(pid) for pid in puppet.rapid.descendants()}
    assert len(addresses) == 2
    assert f"127.0.0.1:{puppet.rapid.runtime_api_port}" in addresses


def runtime_api_of(pid: int) -> str:
    variables = dict(line.split("=", 1) for line in environ_of(pid).decode().split("\0") if line)
    return variables["AWS_LAMBDA_RUNTIME_API"]


# --- what is none of the API


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", RUNTIME, 404),
        ("GET", f"{RUNTIME}/invocation", 404),
        ("POST", f"{RUNTIME}/invocation//response", 404),
        ("POST", f"{RUNTIME}/invocation/x/y/response", 404),
        ("POST", "/2020-01-01/extension/event/next", 405),
    ],
)
def test_a_path_that_is_nearly_one_of_the_api_is_refused(
    puppet: Puppet, method: str, path: str, status: int
) -> None:
    assert puppet.runtime.request(method, path).status == status
