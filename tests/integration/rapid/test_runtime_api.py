"""The Runtime API and the environment behind it: a real rapid whose runtime is the test.

The process that rapid starts sleeps; the test asks for events and answers them in its stead.
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from rapid.processes import environ_of
from tests.conftest import StartRapid
from tests.support import Answer, Client, Rapid, RawConnection, wait_until

PREFIX = "/2018-06-01/runtime"
MIB = 1_048_576
IDLE_PROCESS = ("sleep", "600")


class Stage:
    """A rapid, the runtime that the test plays, and callers in the background."""

    def __init__(self, rapid: Rapid, pool: ThreadPoolExecutor) -> None:
        self.rapid = rapid
        self._pool = pool
        self._clients: list[Client] = []
        self.runtime = self.other()

    def call(self, payload: bytes = b"{}", **headers: str) -> Future[Answer]:
        return self._pool.submit(self.rapid.invoke, payload, **headers)

    def next(self) -> Answer:
        return self.runtime.get(f"{PREFIX}/invocation/next")

    def next_in_background(self) -> Future[Answer]:
        return self._pool.submit(self.other().get, f"{PREFIX}/invocation/next")

    def post(self, request_id: str, kind: str, body: bytes = b"{}", **headers: str) -> Answer:
        return self.runtime.post(f"{PREFIX}/invocation/{request_id}/{kind}", body, **headers)

    def respond(self, request_id: str, body: bytes = b"{}", **headers: str) -> Answer:
        return self.post(request_id, "response", body, **headers)

    def respond_chunked(self, request_id: str, trailers: dict[str, str]) -> Answer:
        """Answer ``part`` in chunks, with the error trailers ``Type`` and ``Body``."""
        lines = "".join(
            f"Lambda-Runtime-Function-Error-{name}: {value}\r\n" for name, value in trailers.items()
        )
        with RawConnection(self.rapid.runtime_api_port) as raw:
            raw.send(
                f"POST {PREFIX}/invocation/{request_id}/response HTTP/1.1\r\n"
                f"Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\n{lines}\r\n".encode()
            )
            return raw.read_answer()

    def taken(self, payload: bytes = b"{}", **headers: str) -> tuple[Future[Answer], str]:
        """Make a call and take its event; return the caller and the request id."""
        caller = self.call(payload, **headers)
        return caller, request_id_of(self.next())

    def other(self) -> Client:
        """Return another connection of the runtime."""
        client = self.rapid.runtime_api()
        self._clients.append(client)
        return client

    def call_qualified(self, qualifier: str) -> Future[Answer]:
        def call() -> Answer:
            with self.rapid.client() as client:
                return client.post(f"{self.rapid.path}?Qualifier={qualifier}", b"{}")

        return self._pool.submit(call)

    def wait_for_process(self, number: int = 1) -> None:
        """Wait until the ``number``-th runtime process is started: it is the one we play."""
        self.rapid.wait_for_log("exec '", count=number)
        wait_until(self.rapid.descendants, "the runtime's process")
        self.runtime = self.other()

    def close(self) -> None:
        self.rapid.close()  # now everybody who waits for it has an answer or an error
        for client in self._clients:
            client.close()


def request_id_of(event: Answer) -> str:
    return event.headers["Lambda-Runtime-Aws-Request-Id"]


@contextlib.contextmanager
def staged(start_rapid: StartRapid, **environ: Any) -> Iterator[Stage]:
    with ThreadPoolExecutor(16) as pool:
        stage = Stage(start_rapid(*IDLE_PROCESS, ready=False, **environ), pool)
        try:
            stage.wait_for_process()
            yield stage
        finally:
            stage.close()


@pytest.fixture
def stage(start_rapid: StartRapid) -> Iterator[Stage]:
    with staged(start_rapid) as stage:
        yield stage


# --- next


def test_next_gives_the_event_with_the_documented_headers(stage: Stage) -> None:
    before_ms = int(time.time() * 1000)
    caller = stage.call(b'{"a": 1}', X_Amzn_Trace_Id="Root=1-5")
    event = stage.next()
    stage.respond(request_id_of(event))

    assert event.status == 200
    assert event.body == b'{"a": 1}'
    assert event.headers["Content-Type"] == "application/json"
    assert event.headers["Content-Length"] == "8"
    assert event.headers["Lambda-Runtime-Trace-Id"] == "Root=1-5"
    assert (
        event.headers["Lambda-Runtime-Aws-Request-Id"]
        == (caller.result().headers["x-amzn-RequestId"])
    )
    assert event.headers["Lambda-Runtime-Invoked-Function-Arn"] == (
        f"arn:aws:lambda:us-east-1:123456789012:function:{stage.rapid.function_name}"
    )
    left_ms = int(event.headers["Lambda-Runtime-Deadline-Ms"]) - before_ms
    assert 300_000 <= left_ms < 310_000


def test_header_names_of_next_are_spelt_as_shell_runtimes_grep_for_them(stage: Stage) -> None:
    stage.call(X_Amz_Client_Context=base64.b64encode(b"{}").decode(), X_Amz_Tenant_Id="t")

    assert set(stage.next().headers.keys()) == {
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


def test_a_header_without_a_value_is_absent_from_next(stage: Stage) -> None:
    stage.call()

    headers = stage.next().headers
    assert "Lambda-Runtime-Client-Context" not in headers
    assert "Lambda-Runtime-Cognito-Identity" not in headers
    assert "Lambda-Runtime-Aws-Tenant-Id" not in headers


def test_the_client_context_comes_decoded_in_ascii_without_line_ends(stage: Stage) -> None:
    context = '{"custom": {"k": "snow☃"},\n "n": 1}'
    stage.call(X_Amz_Client_Context=base64.b64encode(context.encode()).decode())

    received = stage.next().headers["Lambda-Runtime-Client-Context"]

    assert received.isascii()
    assert json.loads(received) == json.loads(context)


def test_a_missing_trace_id_is_made_up(stage: Stage) -> None:
    stage.call()

    assert stage.next().headers["Lambda-Runtime-Trace-Id"].startswith("Root=1-")


def test_a_qualified_call_has_a_qualified_arn(stage: Stage) -> None:
    stage.call_qualified("v1")

    assert stage.next().headers["Lambda-Runtime-Invoked-Function-Arn"].endswith(":v1")


def test_next_waits_for_an_event(stage: Stage) -> None:
    parked = stage.next_in_background()
    stage.rapid.wait_ready()
    was_waiting = not parked.done()

    stage.call(b"1")

    assert was_waiting
    assert parked.result().body == b"1"


def test_a_second_next_without_an_answer_gives_the_same_event(stage: Stage) -> None:
    stage.call(b'"same"')
    first, second = stage.next(), stage.next()

    assert request_id_of(first) == request_id_of(second)
    assert second.body == b'"same"'
    assert (
        first.headers["Lambda-Runtime-Deadline-Ms"] == second.headers["Lambda-Runtime-Deadline-Ms"]
    )


def test_a_next_whose_connection_is_gone_gets_no_event(stage: Stage) -> None:
    with RawConnection(stage.rapid.runtime_api_port) as raw:
        raw.send(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n")
        stage.rapid.wait_ready()
    caller, request_id = stage.taken(b"7")
    stage.respond(request_id, b"8")

    assert caller.result().body == b"8"


# --- response


def test_a_response_reaches_the_caller_untouched(stage: Stage) -> None:
    caller, request_id = stage.taken()

    accepted = stage.respond(request_id, b"\x00no json\xff", Content_Type="text/weird")

    assert accepted.status == 202
    assert accepted.body == b'{"status":"OK"}\n'
    assert accepted.headers["Content-Type"] == "application/json"
    assert caller.result().body == b"\x00no json\xff"
    assert caller.result().headers["Content-Type"] == "application/json"
    assert "X-Amz-Function-Error" not in caller.result().headers


def test_a_response_without_a_body_is_empty(stage: Stage) -> None:
    caller, request_id = stage.taken()
    stage.respond(request_id, b"")

    assert (caller.result().status, caller.result().body) == (200, b"")


def test_the_caller_is_answered_before_the_runtime_asks_for_more(stage: Stage) -> None:
    caller, request_id = stage.taken()
    stage.respond(request_id)

    assert caller.result(5).status == 200


def test_a_request_id_may_come_percent_encoded(stage: Stage) -> None:
    caller, request_id = stage.taken()
    stage.respond(request_id.replace("-", "%2D"), b"1")

    assert caller.result().body == b"1"


@pytest.mark.parametrize("kind", ["response", "error"])
def test_an_answer_to_another_id_is_refused_and_changes_nothing(stage: Stage, kind: str) -> None:
    caller, request_id = stage.taken()

    refused = stage.post("11111111-2222-4333-8444-555555555555", kind, b"no")
    stage.respond(request_id, b"yes")

    assert refused.status == 400
    assert refused.json() == {"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"}
    assert caller.result().body == b"yes"


def test_an_answer_before_the_first_next_is_refused(stage: Stage) -> None:
    refused = stage.respond("11111111-2222-4333-8444-555555555555")

    assert (refused.status, refused.error_type) == (400, "InvalidRequestID")


def test_a_second_answer_is_refused_and_the_callers_is_the_first(stage: Stage) -> None:
    caller, request_id = stage.taken()
    stage.respond(request_id, b"first")

    refused = stage.respond(request_id, b"second")

    assert refused.status == 403
    assert refused.json() == {
        "errorMessage": "State transition from InvocationResponse to InvocationResponse failed for "
        "runtime. Error: State transition is not allowed",
        "errorType": "InvalidStateTransition",
    }
    assert caller.result().body == b"first"


def test_an_answer_to_the_event_before_is_refused(stage: Stage) -> None:
    _, first = stage.taken()
    stage.respond(first)
    caller, second = stage.taken()

    refused = stage.respond(first, b"late")
    stage.respond(second, b"right")

    assert (refused.status, refused.error_type) == (400, "InvalidRequestID")
    assert caller.result().body == b"right"


def test_a_chunked_response_with_trailers_is_whole_and_its_connection_kept(stage: Stage) -> None:
    caller, request_id = stage.taken()
    with RawConnection(stage.rapid.runtime_api_port) as raw:
        raw.send(
            f"POST {PREFIX}/invocation/{request_id}/response HTTP/1.1\r\n"
            "Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n"
            '4\r\n"chu\r\n5\r\nnked"\r\n0\r\nX-T: 1\r\n\r\n'
            "GET /2018-06-01/ping HTTP/1.1\r\n\r\n".encode()
        )

        assert raw.read_answer().status == 202
        assert raw.read_answer().body == b"pong"
    assert caller.result().body == b'"chunked"'


# --- responses that are none


def failure(caller: Future[Answer]) -> dict[str, Any]:
    answer = caller.result()
    assert answer.status == 200
    assert answer.headers["X-Amz-Function-Error"] == "Unhandled"
    payload: dict[str, Any] = answer.json()
    return payload


TOO_LARGE = {
    "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
    "errorType": "Function.ResponseSizeTooLarge",
}


def test_a_response_of_exactly_the_limit_passes(stage: Stage) -> None:
    caller, request_id = stage.taken()
    stage.respond(request_id, b"x" * 6_291_556)

    assert len(caller.result().body) == 6_291_556


@pytest.mark.parametrize("size", [6_291_557, 20 * MIB], ids=["a-byte-over", "20-MiB"])
def test_a_response_over_the_limit_is_the_functions_failure(stage: Stage, size: int) -> None:
    caller, request_id = stage.taken()

    refused = stage.respond(request_id, b"x" * size)

    assert refused.status == 413
    assert refused.json() == {
        "errorMessage": "Exceeded maximum allowed payload size (6291556 bytes).",
        "errorType": "RequestEntityTooLarge",
    }
    assert failure(caller) == TOO_LARGE


def test_a_response_announced_as_endless_is_the_functions_failure(stage: Stage) -> None:
    caller, request_id = stage.taken()
    with RawConnection(stage.rapid.runtime_api_port) as raw:
        raw.send(
            f"POST {PREFIX}/invocation/{request_id}/response HTTP/1.1\r\n"
            "Content-Length: 99999999999\r\n\r\n".encode()
        )

        assert failure(caller) == TOO_LARGE


def test_the_environment_is_usable_after_a_response_over_the_limit(stage: Stage) -> None:
    _, request_id = stage.taken()
    stage.respond(request_id, b"x" * 6_291_557)

    caller, request_id = stage.taken()
    stage.respond(request_id, b"fine")

    assert caller.result().body == b"fine"


@pytest.mark.parametrize(
    "head_and_body",
    [
        pytest.param(b"Content-Length: 100\r\n\r\nhalf", id="sized"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n64\r\nhalf", id="chunked"),
    ],
)
def test_a_response_that_is_cut_off_is_the_functions_failure(
    stage: Stage, head_and_body: bytes
) -> None:
    caller, request_id = stage.taken()
    with RawConnection(stage.rapid.runtime_api_port) as raw:
        raw.send(
            f"POST {PREFIX}/invocation/{request_id}/response HTTP/1.1\r\n".encode() + head_and_body
        )
        raw.close_sending()
        refused = raw.read_answer()

    assert (refused.status, refused.error_type) == (400, "TruncatedHTTPRequest")
    assert failure(caller)["errorType"] == "Runtime.TruncatedResponse"


def test_a_response_with_broken_chunks_is_the_functions_failure(stage: Stage) -> None:
    caller, request_id = stage.taken()
    with RawConnection(stage.rapid.runtime_api_port) as raw:
        raw.send(
            f"POST {PREFIX}/invocation/{request_id}/response HTTP/1.1\r\n"
            "Transfer-Encoding: chunked\r\n\r\nnonsense\r\n".encode()
        )

        assert raw.read_answer().status == 400
    assert failure(caller)["errorType"] == "Runtime.TruncatedResponse"


@pytest.mark.parametrize("mode", ["Streaming", "foo"])
def test_an_unknown_response_mode_is_the_functions_failure(stage: Stage, mode: str) -> None:
    caller, request_id = stage.taken()

    refused = stage.respond(request_id, Lambda_Runtime_Function_Response_Mode=mode)

    assert refused.status == 400
    assert refused.json() == {
        "errorMessage": "Invalid function response mode",
        "errorType": "InvalidFunctionResponseMode",
    }
    assert failure(caller)["errorType"] == "Runtime.InvalidResponseModeHeader"


def test_a_streamed_response_is_collected_for_a_buffered_call(stage: Stage) -> None:
    caller, request_id = stage.taken()
    stage.respond(request_id, b"all of it", Lambda_Runtime_Function_Response_Mode="streaming")

    assert caller.result().body == b"all of it"


@pytest.mark.parametrize(
    ("trailers", "payload"),
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
    ],
)
def test_error_trailers_are_the_payload_in_place_of_the_body(
    stage: Stage, trailers: dict[str, str], payload: bytes
) -> None:
    caller, request_id = stage.taken()

    told = stage.respond_chunked(request_id, trailers)

    assert (told.status, told.body) == (202, b'{"status":"OK"}\n')
    answer = caller.result()
    assert (answer.status, answer.headers["X-Amz-Function-Error"]) == (200, "Unhandled")
    assert answer.body == payload


def test_error_trailers_without_a_value_are_no_error(stage: Stage) -> None:
    caller, request_id = stage.taken()

    stage.respond_chunked(request_id, {"Type": "", "Body": ""})

    assert caller.result().body == b"part"
    assert "X-Amz-Function-Error" not in caller.result().headers


# --- error


def test_an_errors_body_reaches_the_caller_as_it_came(stage: Stage) -> None:
    caller, request_id = stage.taken()
    body = b'{ "errorMessage":"x",  "errorType":"ValueError", "trace":[] }'

    accepted = stage.post(request_id, "error", body)

    assert (accepted.status, accepted.body) == (202, b'{"status":"OK"}\n')
    assert caller.result().body == body
    assert caller.result().headers["X-Amz-Function-Error"] == "Unhandled"


@pytest.mark.parametrize(
    ("headers", "error_type"),
    [({"Lambda_Runtime_Function_Error_Type": "My.Type"}, "My.Type"), ({}, "Runtime.Unknown")],
    ids=["typed", "untyped"],
)
def test_an_error_without_a_body_gets_one(
    stage: Stage, headers: dict[str, str], error_type: str
) -> None:
    caller, request_id = stage.taken()
    stage.post(request_id, "error", b"", **headers)

    assert failure(caller)["errorType"] == error_type


def test_an_x_ray_cause_of_1_mib_is_taken(stage: Stage) -> None:
    caller, request_id = stage.taken()

    accepted = stage.post(
        request_id, "error", b"{}", Lambda_Runtime_Function_XRay_Error_Cause="c" * MIB
    )

    assert accepted.status == 202
    assert failure(caller) == {}


def test_an_error_cause_body_loses_its_cause(stage: Stage) -> None:
    caller, request_id = stage.taken()
    stage.post(
        request_id,
        "error",
        b'{"errorMessage":"m","errorType":"t","errorCause":{"working_directory":"/"}}',
        Content_Type="application/vnd.aws.lambda.error.cause+json",
    )

    assert failure(caller) == {"errorMessage": "m", "errorType": "t"}


def test_the_runtime_goes_on_after_an_error(stage: Stage) -> None:
    _, request_id = stage.taken()
    stage.post(request_id, "error")

    caller, request_id = stage.taken()
    stage.respond(request_id, b"fine")

    assert caller.result().body == b"fine"


# --- init


def test_an_init_error_after_the_first_next_is_refused(stage: Stage) -> None:
    stage.next_in_background()
    stage.rapid.wait_ready()

    refused = stage.runtime.post(f"{PREFIX}/init/error", b"{}")

    assert refused.status == 403
    assert refused.json() == {
        "errorMessage": "State transition from Ready to InitError failed for runtime. "
        "Error: State transition is not allowed",
        "errorType": "InvalidStateTransition",
    }


def test_an_init_error_is_accepted_and_given_to_the_caller(stage: Stage) -> None:
    caller = stage.call()
    body = b'{"errorType":"Runtime.ImportModuleError","errorMessage":"x"}'

    first = stage.runtime.post(f"{PREFIX}/init/error", body)
    stage.wait_for_process(2)
    second = stage.runtime.post(f"{PREFIX}/init/error", body)

    assert (first.status, second.status) == (202, 202)
    assert caller.result().body == body
    assert caller.result().headers["X-Amz-Function-Error"] == "Unhandled"


def exec_lines(stage: Stage) -> list[str]:
    return [line for line in stage.rapid.log if "exec '" in line]


def test_restore_is_unknown_without_snap_start(stage: Stage) -> None:
    assert stage.runtime.get(f"{PREFIX}/restore/next").status == 404


def test_restore_is_done_at_once_with_snap_start(start_rapid: StartRapid) -> None:
    with staged(start_rapid, AWS_LAMBDA_INITIALIZATION_TYPE="snap-start") as stage:
        restored = stage.runtime.get(f"{PREFIX}/restore/next")
        caller, request_id = stage.taken()
        stage.respond(request_id, b"1")

        assert (restored.status, restored.body) == (200, b"")
        assert caller.result().body == b"1"


# --- deadlines


def test_a_timeout_is_answered_at_the_deadline(start_rapid: StartRapid) -> None:
    with staged(start_rapid, AWS_LAMBDA_FUNCTION_TIMEOUT="1") as stage:
        caller, request_id = stage.taken()
        started = time.monotonic()

        payload = failure(caller)

        assert time.monotonic() - started >= 0.7
        assert payload == {
            "errorType": "Sandbox.Timedout",
            "errorMessage": f"RequestId: {request_id} Error: Task timed out after 1.00 seconds",
        }


def test_a_timeout_is_followed_by_a_new_process(start_rapid: StartRapid) -> None:
    with staged(start_rapid, AWS_LAMBDA_FUNCTION_TIMEOUT="0.3") as stage:
        before = stage.rapid.descendants()
        caller, _ = stage.taken()
        caller.result()

        caller = stage.call(b"2")
        stage.wait_for_process(2)
        stage.respond(request_id_of(stage.next()), b"again")

        assert caller.result().body == b"again"
        assert not set(before) & set(stage.rapid.descendants())


def test_an_idle_environment_is_shut_down_after_its_time(start_rapid: StartRapid) -> None:
    with staged(start_rapid, AWS_LAMBDA_FUNCTION_IDLETIMEOUT="0.2") as stage:
        stage.next_in_background()

        wait_until(lambda: not stage.rapid.descendants(), "its end")


def test_a_call_after_an_idle_shutdown_starts_a_new_process(start_rapid: StartRapid) -> None:
    with staged(start_rapid, AWS_LAMBDA_FUNCTION_IDLETIMEOUT="0.2") as stage:
        stage.next_in_background()
        wait_until(lambda: not stage.rapid.descendants(), "its end")

        caller = stage.call()
        stage.wait_for_process(2)
        stage.respond(request_id_of(stage.next()), b"1")

        assert caller.result().body == b"1"


# --- what is none of the API


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/2018-06-01/runtime", 404),
        ("GET", "/2018-06-01/runtime/invocation", 404),
        ("POST", "/2018-06-01/runtime/invocation//response", 404),
        ("POST", "/2018-06-01/runtime/invocation/x/y/response", 404),
        ("POST", "/2018-06-01/runtime/invocation/next", 405),
        ("GET", "/2018-06-01/runtime/invocation/x/response", 405),
        ("GET", "/2018-06-01/runtime/init/error", 405),
        ("GET", "/2020-01-01/extension/register", 405),
        ("POST", "/2020-01-01/extension/event/next", 405),
    ],
)
def test_an_unknown_path_or_method_is_refused_with_a_content_type(
    stage: Stage, method: str, path: str, status: int
) -> None:
    """awslambdaric crashes on an answer without a Content-Type."""
    answer = stage.runtime.request(method, path)

    assert answer.status == status
    assert answer.headers["Content-Type"]


def test_ping_is_pong(stage: Stage) -> None:
    assert stage.runtime.get("/2018-06-01/ping").body == b"pong"


def test_a_connection_outlives_its_errors(stage: Stage) -> None:
    stage.runtime.get("/2018-06-01/ping")
    port = stage.runtime.local_port

    stage.runtime.get("/nowhere")
    stage.respond("11111111-2222-4333-8444-555555555555")
    stage.runtime.post(f"{PREFIX}/invocation/next")
    stage.runtime.get("/2018-06-01/ping")

    assert stage.runtime.local_port == port


# --- several at once


def test_answers_in_any_order_reach_the_right_callers(start_rapid: StartRapid) -> None:
    with staged(start_rapid, AWS_LAMBDA_MAX_CONCURRENCY="4") as stage:
        callers = {str(n): stage.call(str(n).encode()) for n in range(4)}
        events = [stage.other().get(f"{PREFIX}/invocation/next") for _ in range(4)]

        for event in reversed(events):
            stage.respond(request_id_of(event), b"answer to " + event.body)

        for name, caller in callers.items():
            assert caller.result().body == f"answer to {name}".encode()


def test_a_late_answer_of_one_of_several_is_410_once_then_400(start_rapid: StartRapid) -> None:
    with staged(
        start_rapid, AWS_LAMBDA_MAX_CONCURRENCY="2", AWS_LAMBDA_FUNCTION_TIMEOUT="0.3"
    ) as stage:
        caller, request_id = stage.taken()
        assert failure(caller)["errorType"] == "Sandbox.Timedout"

        first, second = stage.respond(request_id), stage.respond(request_id)

        assert (first.status, first.error_type) == (410, "InvokeTimeout")
        assert (second.status, second.error_type) == (400, "InvalidRequestID")


def test_one_timeout_of_several_leaves_the_others_alone(start_rapid: StartRapid) -> None:
    with staged(
        start_rapid, AWS_LAMBDA_MAX_CONCURRENCY="2", AWS_LAMBDA_FUNCTION_TIMEOUT="1"
    ) as stage:
        slow, _ = stage.taken()
        failure(slow)

        fine, request_id = stage.taken()
        stage.respond(request_id, b"fine")

        assert fine.result().body == b"fine"
        assert len(exec_lines(stage)) == 1


def test_a_relayed_request_id_that_is_in_use_is_refused(start_rapid: StartRapid) -> None:
    """Two calls of one id could not be told apart: one of them would never be answered."""
    with staged(start_rapid, AWS_LAMBDA_MAX_CONCURRENCY="2") as stage:
        same = "01234567-89ab-4def-8123-456789abcdef"
        first, request_id = stage.taken(X_Lambda_Request_Id=same)

        refused = stage.rapid.invoke(X_Lambda_Request_Id=same)
        stage.respond(request_id, b"1")

        assert (request_id, first.result().body) == (same, b"1")
        assert refused.status == 400
        assert refused.headers["x-amzn-ErrorType"] == "InvalidParameterValueException"


def test_a_relayed_request_id_is_free_again_after_its_answer(start_rapid: StartRapid) -> None:
    with staged(start_rapid) as stage:
        same = "01234567-89ab-4def-8123-456789abcdef"
        for _ in range(2):
            caller, request_id = stage.taken(X_Lambda_Request_Id=same)
            stage.respond(request_id, b"1")
            assert caller.result().status == 200


def test_each_environment_has_an_address_of_its_own(start_rapid: StartRapid) -> None:
    with staged(start_rapid, RAPID_MAX_CONCURRENCY="2") as stage:
        parked = stage.next_in_background()
        stage.rapid.wait_ready()
        first = stage.call(b"1")
        request_id = request_id_of(parked.result())
        stage.call(b"2")
        wait_until(lambda: len(stage.rapid.descendants()) == 2, "the second process")

        stage.respond(request_id, b"done")

        assert first.result().body == b"done"
        addresses = {runtime_api_of(pid) for pid in stage.rapid.descendants()}
        assert len(addresses) == 2
        assert f"127.0.0.1:{stage.rapid.runtime_api_port}" in addresses


def runtime_api_of(pid: int) -> str:
    for line in environ_of(pid).split(b"\0"):
        name, _, value = line.decode().partition("=")
        if name == "AWS_LAMBDA_RUNTIME_API":
            return value
    raise AssertionError(f"process {pid} has no Runtime API")
