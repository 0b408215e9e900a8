from __future__ import annotations

import base64
import json
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lambda_protocol.address import Address
from lambda_protocol.pace import Pace
from lambda_protocol.poller import Poller
from rapid.apis import runtime_api
from rapid.exchange import JSON, Exchange
from rapid.http_service.service import Handler, HttpService
from tests.acceptance.conformance.conftest import StartPuppet
from tests.acceptance.conformance.doors import RESPONSE_BYTES, Calls, assert_function_error
from tests.acceptance.conformance.puppet import NEXT, RUNTIME, Puppet, Turn
from tests.support import Answer, RawConnection

conformance = pytest.mark.conformance

OTHER_ID = "11111111-2222-4333-8444-555555555555"
CONTEXT = base64.b64encode(b'{"custom":{"a":"b"}}').decode()
TIMEOUT_S = 20
INVALID_ID = {"errorType": "InvalidRequestID", "errorMessage": "Invalid request ID"}


@contextmanager
def served(handler: Handler, pace: Pace = runtime_api.PACE) -> Iterator[RawConnection]:
    """Serve ``handler`` in this process, and connect to it."""
    poller = Poller()
    poller.start()
    service = HttpService(
        Address("127.0.0.1", 0),
        handler,
        name="runtime-api",
        poller=poller,
        max_body_bytes=1000,
        pace=pace,
        render_error=lambda status, message: (JSON, json.dumps(message).encode()),
    )
    service.start()
    try:
        with RawConnection(service.port) as connection:
            yield connection
    finally:
        service.stop()
        poller.stop()


def assert_accepted(answer: Answer) -> None:
    assert (answer.status, answer.body) == (202, b'{"status":"OK"}\n')
    assert answer.headers["Content-Type"] == "application/json"


def assert_transition_refused(answer: Answer) -> None:
    assert answer.status == 403
    assert answer.error_type == "InvalidStateTransition"
    assert answer.json()["errorMessage"].startswith("State transition from ")


def finish(puppet: Puppet, turn: Turn, body: bytes = b'"done"') -> None:
    """Answer the call in hand, and see that it was taken."""
    assert_accepted(puppet.runtime.post(turn.response_path, body))
    outcome = turn.outcome()
    assert (outcome.status, outcome.body) == (200, body)
    assert "X-Amz-Function-Error" not in outcome.headers


# next


@conformance(71)
def test_next_has_every_header_in_documented_case(puppet: Puppet) -> None:
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"

    turn = puppet.take(
        b'{"x": 1}', X_Amz_Client_Context=CONTEXT, X_Amz_Tenant_Id="t", X_Amzn_Trace_Id=trace
    )

    finish(puppet, turn)
    headers = dict(turn.event.headers.items())  # as sent: this lookup minds the case
    name = puppet.rapid.function_name
    assert (turn.event.status, turn.event.body) == (200, b'{"x": 1}')
    assert headers["Content-Type"] == "application/json"
    assert headers["Content-Length"] == "8"
    assert headers["Lambda-Runtime-Aws-Request-Id"] == turn.outcome().headers["x-amzn-RequestId"]
    assert headers["Lambda-Runtime-Deadline-Ms"].isdecimal()
    assert headers["Lambda-Runtime-Invoked-Function-Arn"].endswith(f":function:{name}")
    assert headers["Lambda-Runtime-Trace-Id"] == trace
    assert json.loads(headers["Lambda-Runtime-Client-Context"]) == {"custom": {"a": "b"}}
    assert headers["Lambda-Runtime-Aws-Tenant-Id"] == "t"


@conformance(71)
@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_next_says_json_whatever_the_caller_sent(puppet: Puppet, content_type: str) -> None:
    turn = puppet.take(Content_Type=content_type)

    finish(puppet, turn)
    assert turn.event.headers.get_all("Content-Type") == ["application/json"]


@conformance(72)
@pytest.mark.parametrize("headers", [{}, {"X_Amz_Client_Context": ""}], ids=["none", "empty"])
def test_optional_headers_without_a_value_are_absent(
    puppet: Puppet, headers: dict[str, str]
) -> None:
    turn = puppet.take(**headers)

    finish(puppet, turn)
    names = {name.lower() for name in turn.event.headers}
    assert not names & {
        "lambda-runtime-client-context",
        "lambda-runtime-cognito-identity",
        "lambda-runtime-aws-tenant-id",
    }
    assert all(value for value in turn.event.headers.values())


@conformance(73)
def test_the_deadline_is_the_start_plus_the_timeout(puppet: Puppet) -> None:
    before_ms = int(time.time() * 1000)
    turn = puppet.take()
    after_ms = int(time.time() * 1000)

    finish(puppet, turn)
    start_ms = int(turn.event.headers["Lambda-Runtime-Deadline-Ms"]) - TIMEOUT_S * 1000
    assert before_ms <= start_ms <= after_ms


@conformance(74)
def test_next_stays_open_over_several_receive_limits() -> None:
    parked: list[Exchange] = []
    with served(parked.append, Pace(head_s=1, grace_s=1)) as connection:
        connection.send(f"GET {NEXT} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

        said_something, _, _ = select.select([connection.socket], [], [], 3.3)

        assert not said_something
        assert parked[0].answer(200, JSON, b'"event"')
        assert connection.read_answer().body == b'"event"'


@conformance(79)
def test_next_again_gives_the_same_event(puppet: Puppet) -> None:
    turn = puppet.take(b'{"x": 1}')

    again = puppet.runtime.get(NEXT)

    assert (again.status, again.body) == (200, b'{"x": 1}')
    assert again.headers.items() == turn.event.headers.items()
    finish(puppet, turn)


# response and error


@conformance(75)
@pytest.mark.parametrize("hyphen", ["-", "%2D"], ids=["plain", "percent-encoded"])
def test_a_response_is_accepted(puppet: Puppet, hyphen: str) -> None:
    turn = puppet.take()
    request_id = turn.request_id.replace("-", hyphen)

    answer = puppet.runtime.post(f"{RUNTIME}/invocation/{request_id}/response", b'"done"')

    assert_accepted(answer)
    assert turn.outcome().body == b'"done"'


@conformance(76)
@pytest.mark.parametrize("kind", ["response", "error"])
def test_another_request_id_is_refused_and_the_right_one_counts(puppet: Puppet, kind: str) -> None:
    turn = puppet.take()

    refused = puppet.runtime.post(f"{RUNTIME}/invocation/{OTHER_ID}/{kind}", b'"wrong"')

    assert (refused.status, refused.json()) == (400, INVALID_ID)
    finish(puppet, turn, b'"right"')


@conformance(77)
@pytest.mark.parametrize("kind", ["response", "error"])
def test_a_second_answer_is_refused_and_the_first_stays(puppet: Puppet, kind: str) -> None:
    turn = puppet.take()
    assert_accepted(puppet.runtime.post(turn.response_path, b'"first"'))

    second = puppet.runtime.post(f"{RUNTIME}/invocation/{turn.request_id}/{kind}", b'"second"')

    assert_transition_refused(second)
    assert turn.outcome().body == b'"first"'
    assert "X-Amz-Function-Error" not in turn.outcome().headers


@conformance(78)
@pytest.mark.parametrize("kind", ["response", "error"])
def test_an_answer_before_next_is_refused(puppet: Puppet, kind: str) -> None:
    answer = puppet.runtime.post(f"{RUNTIME}/invocation/{OTHER_ID}/{kind}", b"{}")

    assert (answer.status, answer.json()) == (400, INVALID_ID)


@conformance(80)
def test_an_init_error_after_next_is_refused(puppet: Puppet) -> None:
    turn = puppet.take()

    assert_transition_refused(puppet.runtime.post(f"{RUNTIME}/init/error", b"{}"))

    finish(puppet, turn)


# HTTP


@conformance(81, 85)
def test_every_refusal_has_a_content_type_and_keeps_the_connection(puppet: Puppet) -> None:
    turn = puppet.take()
    too_much = b'"' + b"x" * RESPONSE_BYTES + b'"'
    other = f"{RUNTIME}/invocation/{OTHER_ID}"
    port = puppet.runtime.local_port

    for status, method, path, body in [
        (404, "GET", "/", None),
        (404, "GET", "/2018-06-01/runtime/nothing", None),
        (404, "GET", f"{RUNTIME}/restore/next", None),
        (404, "GET", "/2021-04-23/credentials", None),
        (403, "PUT", "/2022-07-01/telemetry", b"{}"),
        (403, "PUT", "/2020-08-15/logs", b"{}"),
        (405, "GET", "/2022-07-01/telemetry", None),
        (405, "POST", NEXT, b""),
        (405, "GET", turn.response_path, None),
        (405, "GET", turn.error_path, None),
        (405, "GET", f"{RUNTIME}/init/error", None),
        (405, "GET", "/2020-01-01/extension/register", None),
        (400, "POST", f"{other}/response", b"{}"),
        (400, "POST", f"{other}/error", b"{}"),
        (400, "POST", f"{other}/response", too_much),
        (403, "POST", f"{RUNTIME}/init/error", b"{}"),
        (403, "POST", "/2020-01-01/extension/register", b"{}"),
        (403, "GET", "/2020-01-01/extension/event/next", None),
        (413, "POST", turn.response_path, too_much),
    ]:
        answer = puppet.runtime.request(method, path, body)
        assert answer.status == status, (method, path)
        assert answer.headers["Content-Type"], (method, path)
    assert assert_function_error(turn.outcome())["errorType"] == "Function.ResponseSizeTooLarge"
    assert puppet.runtime.local_port == port


@conformance(81)
@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
    ],
    ids=["line", "version", "header", "length", "chunk", "headers"],
)
def test_bytes_that_are_no_http_are_refused_with_a_content_type(
    puppet: Puppet, sent: bytes
) -> None:
    with puppet.raw() as connection:
        connection.send(sent)
        answer = connection.read_answer()

    assert 400 <= answer.status < 600
    assert answer.headers["Content-Type"]


@conformance(127)
@pytest.mark.parametrize("kind", ["response", "error"])
def test_an_answer_that_echoes_another_invocation_id_is_410(puppet: Puppet, kind: str) -> None:
    turn = puppet.take()
    path = f"{RUNTIME}/invocation/{turn.request_id}/{kind}"

    def post(invocation_id: str) -> tuple[int, object]:
        answer = puppet.runtime.post(path, b"{}", Lambda_Runtime_Invocation_Id=invocation_id)
        return answer.status, answer.error_type if answer.status != 202 else None

    before = post(OTHER_ID)
    right = post(turn.invocation_id)
    again = post(turn.invocation_id)
    after = post(OTHER_ID)

    assert turn.invocation_id != turn.request_id
    assert (before, right) == ((410, "InvokeTimeout"), (202, None))
    assert (again, after) == ((403, "InvalidStateTransition"), (410, "InvokeTimeout"))
    assert turn.outcome().body == b"{}"


@conformance(127)
def test_a_late_answer_is_not_taken_for_that_of_the_next_attempt(start_puppet: StartPuppet) -> None:
    puppet = start_puppet(
        AWS_LAMBDA_MAX_CONCURRENCY="2",
        AWS_LAMBDA_FUNCTION_TIMEOUT="0.5",
        RAPID_EVENT_RETRY_DELAYS="0.001",
    )
    first = puppet.take(X_Amz_Invocation_Type="Event")
    second = Turn(puppet.runtime.get(NEXT), first.caller)  # sent once the first has timed out

    late = [
        puppet.runtime.post(
            first.response_path, b'"late"', Lambda_Runtime_Invocation_Id=first.invocation_id
        )
        for _ in range(2)
    ]
    right = puppet.runtime.post(
        second.response_path, b'"right"', Lambda_Runtime_Invocation_Id=second.invocation_id
    )

    assert first.request_id == second.request_id
    assert first.invocation_id != second.invocation_id
    assert [(answer.status, answer.error_type) for answer in late] == [(410, "InvokeTimeout")] * 2
    assert_accepted(right)


@conformance(82)
@pytest.mark.parametrize("kind", ["response", "error"])
def test_a_chunked_post_with_trailers_is_read_whole(puppet: Puppet, kind: str) -> None:
    turn = puppet.take()

    with puppet.raw() as connection:
        connection.send(
            f"POST {RUNTIME}/invocation/{turn.request_id}/{kind} HTTP/1.1\r\nHost: x\r\n"
            "Transfer-Encoding: chunked\r\nContent-Type: application/octet-stream\r\n"
            "Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n"
            '\r\n3\r\n"wh\r\n4\r\nole"\r\n0\r\nX-Other: 1\r\n\r\n'.encode()
        )
        assert_accepted(connection.read_answer())
        connection.send(b"GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.read_answer().body == b"pong"

    assert turn.outcome().body == b'"whole"'


@conformance(83)
def test_a_header_of_one_mebibyte_is_taken(puppet: Puppet) -> None:
    turn = puppet.take()

    answer = puppet.runtime.post(
        turn.error_path,
        b'{"errorType":"E"}',
        Lambda_Runtime_Function_XRay_Error_Cause="x" * 1_048_576,
    )

    assert_accepted(answer)
    assert assert_function_error(turn.outcome()) == {"errorType": "E"}


@conformance(84)
@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 10\r\n\r\n123",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\n123\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n9\r\n123",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\n123\r\nzz\r\n",
    ],
    ids=["length", "no last chunk", "in a chunk", "no chunk"],
)
def test_a_truncated_response_fails_the_call_not_the_daemon(puppet: Puppet, body: bytes) -> None:
    turn = puppet.take()

    with puppet.raw() as connection:
        connection.send(f"POST {turn.response_path} HTTP/1.1\r\nHost: x\r\n".encode() + body)
        connection.close_sending()
        answer = connection.read_answer()

    assert answer.status == 400
    assert answer.error_type == "TruncatedHTTPRequest"
    assert assert_function_error(turn.outcome())["errorType"] == "Runtime.TruncatedResponse"
    finish(puppet, puppet.take())


@conformance(85)
def test_connection_close_is_honoured(puppet: Puppet) -> None:
    turn = puppet.take()

    with puppet.raw() as connection:
        connection.send(
            f"POST {turn.response_path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            'Content-Length: 6\r\n\r\n"done"'.encode()
        )
        assert_accepted(connection.read_answer())
        assert connection.read_to_end() == b""

    assert turn.outcome().body == b'"done"'


@conformance(85)
def test_a_runtime_that_closes_each_connection_is_served(puppet: Puppet, calls: Calls) -> None:
    for number in range(3):
        caller = calls.start(puppet.rapid, str(number))
        with puppet.raw() as connection:
            connection.send(f"GET {NEXT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            turn = Turn(connection.read_answer(), caller)
            assert connection.read_to_end() == b""
        with puppet.rapid.runtime_api() as client:
            assert_accepted(client.post(turn.response_path, turn.event.body, Connection="close"))
        assert turn.outcome().body == str(number).encode()


@conformance(86)
def test_expect_continue_is_honoured(puppet: Puppet) -> None:
    turn = puppet.take()

    with puppet.raw() as connection:
        connection.send(
            f"POST {turn.response_path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            "Content-Length: 6\r\n\r\n".encode()
        )
        assert connection.read_answer(has_body=False).status == 100
        connection.send(b'"done"')
        assert_accepted(connection.read_answer())

    assert turn.outcome().body == b'"done"'


@conformance(87, 88)
def test_ping_answers_pong_and_restore_is_unknown_without_snap_start(puppet: Puppet) -> None:
    answer = puppet.runtime.get("/2018-06-01/ping")

    assert (answer.status, answer.body) == (200, b"pong")
    assert puppet.runtime.get(f"{RUNTIME}/restore/next").status == 404


@conformance(88)
def test_restore_next_answers_when_snap_start_is_simulated(start_puppet: StartPuppet) -> None:
    puppet = start_puppet(AWS_LAMBDA_INITIALIZATION_TYPE="snap-start")

    answer = puppet.runtime.get(f"{RUNTIME}/restore/next")

    assert (answer.status, answer.body) == (200, b"")
    finish(puppet, puppet.take())
