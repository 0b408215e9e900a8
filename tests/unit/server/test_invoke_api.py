"""The Invoke API and the application behind it, called as a WSGI server calls them."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from wsgiref.validate import validator

import pytest
from flask import Flask, Response

from lambda_protocol.errors import (
    LambdaApiError,
    ResourceNotFoundException,
    ResourceNotReadyException,
    ServiceException,
    TooManyRequestsException,
)
from lambda_protocol.invocation import InvocationType, Outcome
from lambda_protocol.limits import ASYNC_PAYLOAD_BYTES, SYNC_PAYLOAD_BYTES
from lambda_server.app import EXTENSION, create_app
from lambda_server.config import Config
from lambda_server.invoke_api import DRAIN_BYTES
from tests.fakes import Body, FakeInvoker, WsgiAnswer, call, invoke_path
from tests.support import ROOT

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.fixture(params=["accelerated", "by Flask"])
def api(request: pytest.FixtureRequest, invoker: FakeInvoker) -> Flask:
    """Give the application, as it is and with a hook that makes the accelerator step aside."""
    return an_app(invoker, has_hook=request.param == "by Flask")


def an_app(invoker: FakeInvoker, config: Config | None = None, *, has_hook: bool = False) -> Flask:
    app = create_app(config or Config(), invoker)
    if has_hook:
        app.before_request(lambda: None)
    return app


def assert_is_error(answer: WsgiAnswer, status: int, code: str) -> str:
    """Hold an answer to the form that every SDK reads; return its message."""
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (status, code)
    assert answer.headers["content-type"] == "application/json"
    assert UUID.fullmatch(answer.headers["x-amzn-requestid"])
    members = json.loads(answer.body)
    return str(members.get("Message") or members["message"])


# --- the way through


def test_an_invocation_carries_what_the_request_says(api: Flask, invoker: FakeInvoker) -> None:
    context = base64.b64encode(b'{"custom":{"a":1}}').decode()

    call(
        api,
        invoke_path("arn:aws:lambda:us-east-1:999999999999:function:f", "Qualifier=v1"),
        b' {"x": 1} ',
        headers={
            "X-Amz-Log-Type": "Tail",
            "X-Amz-Client-Context": context,
            "X-Amzn-Trace-Id": "Root=1-2-3;  Parent=4;Sampled=1;Lineage=a:0",
            "X-Amz-Tenant-Id": "tenant a",
        },
    )

    (invocation,) = invoker.invocations
    assert invocation.payload == b' {"x": 1} '
    assert invocation.function.invoked_arn == "arn:aws:lambda:us-east-1:123456789012:function:f:v1"
    assert invocation.type is InvocationType.REQUEST_RESPONSE
    assert invocation.wants_log_tail
    assert invocation.client_context == context
    assert invocation.trace_id == "Root=1-2-3;  Parent=4;Sampled=1;Lineage=a:0"
    assert invocation.tenant_id == "tenant a"


def test_an_outcome_is_given_back_byte_for_byte(api: Flask, invoker: FakeInvoker) -> None:
    invoker.result = Outcome(payload=b' \x00\xff{"a" : 1}\n', executed_version="7", log_tail=b"END")

    answer = call(api, invoke_path(), headers={"X-Amzn-Trace-Id": "Root=1-2-3"})

    assert (answer.status, answer.body) == (200, b' \x00\xff{"a" : 1}\n')
    assert answer.headers == {
        "x-amzn-requestid": invoker.invocations[0].request_id,
        "x-amzn-trace-id": "Root=1-2-3",
        "content-type": "application/json",
        "x-amz-executed-version": "7",
        "x-amz-log-result": base64.b64encode(b"END").decode(),
        "content-length": "13",
    }


@pytest.mark.parametrize(("kind", "status"), [("Event", 202), ("DryRun", 204)])
def test_a_call_nobody_waits_for_is_answered_empty(
    api: Flask, invoker: FakeInvoker, kind: str, status: int
) -> None:
    invoker.result = Outcome()

    answer = call(api, invoke_path(), headers={"X-Amz-Invocation-Type": kind})

    assert (answer.status, answer.body) == (status, b"")
    assert answer.headers["x-amzn-requestid"] == invoker.invocations[0].request_id
    assert "x-amz-executed-version" not in answer.headers
    assert ("content-length" in answer.headers) == (status == 202)


def test_an_empty_payload_is_an_empty_object(api: Flask, invoker: FakeInvoker) -> None:
    call(api, invoke_path(), length="")

    assert invoker.invocations[0].payload == b"{}"


# --- limits


@pytest.mark.parametrize(
    ("kind", "path", "limit"),
    [
        pytest.param("RequestResponse", invoke_path(), SYNC_PAYLOAD_BYTES, id="sync"),
        pytest.param("Event", invoke_path(), ASYNC_PAYLOAD_BYTES, id="event"),
        pytest.param(
            "", "/2014-11-13/functions/echo/invoke-async", ASYNC_PAYLOAD_BYTES, id="async"
        ),
    ],
)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_larger_payload_is_413_and_reaches_nobody(
    api: Flask, invoker: FakeInvoker, kind: str, path: str, limit: int, is_chunked: bool
) -> None:
    body = b" " * (limit + 1)
    headers = {"X-Amz-Invocation-Type": kind} if kind else {}

    answer = call(api, path, body, length=None if is_chunked else -1, headers=headers)

    message = assert_is_error(answer, 413, "RequestEntityTooLargeException")
    assert message == (
        f"Request must be smaller than {limit} bytes for the InvokeFunction operation"
        if kind == "RequestResponse"
        else f"{limit + 1} byte payload is too large for the Event invocation type "
        f"(limit {limit} bytes)"
    )
    assert invoker.invocations == []


def test_a_payload_is_refused_by_its_announced_length_whatever_comes(api: Flask) -> None:
    answer = call(api, invoke_path(), b"{}", length=SYNC_PAYLOAD_BYTES + 1)

    assert_is_error(answer, 413, "RequestEntityTooLargeException")


@pytest.mark.parametrize("length", [-1, None])
def test_of_a_payload_over_its_limit_a_bounded_part_is_read(api: Flask, length: int | None) -> None:
    body = Body(b" " * (DRAIN_BYTES + 2 * SYNC_PAYLOAD_BYTES))

    assert call(api, invoke_path(), body, length=length).status == 413

    assert body.bytes_read <= DRAIN_BYTES + SYNC_PAYLOAD_BYTES + 1


def test_a_chunked_payload_is_taken(api: Flask, invoker: FakeInvoker) -> None:
    call(api, invoke_path(), b"[1, 2]", length=None)

    assert invoker.invocations[0].payload == b"[1, 2]"


def test_a_payload_that_broke_off_is_400_and_reaches_nobody(
    api: Flask, invoker: FakeInvoker
) -> None:
    answer = call(api, invoke_path(), b"[1, 2]", length=7)

    assert_is_error(answer, 400, "InvalidRequestContentException")
    assert invoker.invocations == []


def test_a_payload_passes_unchecked_where_that_is_set(invoker: FakeInvoker) -> None:
    api = an_app(invoker, replace(Config(), checks_payload=False))

    assert call(api, invoke_path(), b"\x00 no json").status == 200
    assert invoker.invocations[0].payload == b"\x00 no json"


# --- faults


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_another_method_is_405(api: Flask, invoker: FakeInvoker, method: str) -> None:
    answer = call(api, invoke_path(), method=method)

    assert (answer.status, answer.headers["x-amzn-errortype"]) == (405, "MethodNotAllowedException")
    assert invoker.invocations == []


@pytest.mark.parametrize(
    "error",
    [
        ResourceNotFoundException("Function not found: arn"),
        TooManyRequestsException(),
        ResourceNotReadyException("No instance"),
    ],
)
def test_an_error_of_the_invoker_is_rendered(
    api: Flask, invoker: FakeInvoker, error: LambdaApiError
) -> None:
    invoker.result = error

    answer = call(api, invoke_path())

    assert assert_is_error(answer, error.status, error.code) == error.message
    assert answer.headers["x-amzn-requestid"] == invoker.invocations[0].request_id


def test_a_fault_of_the_invoker_is_500_without_its_text(
    api: Flask, invoker: FakeInvoker, caplog: pytest.LogCaptureFixture
) -> None:
    invoker.result = RuntimeError("a secret")

    answer = call(api, invoke_path())

    message = assert_is_error(answer, 500, "ServiceException")
    assert json.loads(answer.body)["Type"] == "Service"
    assert "secret" not in message
    assert "request failed" in caplog.messages


# --- the application of Flask


def test_flask_lists_the_operations() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "lambda_server.wsgi", "routes"],
        env={"LAMBDA_ENDPOINTS": "f=http://127.0.0.1:9", "PATH": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert "/2015-03-31/functions/<path:name>/invocations" in done.stdout
    assert "/2014-11-13/functions/<path:name>/invoke-async" in done.stdout


@pytest.mark.parametrize("kind", ["RequestResponse", "Event", "DryRun", "Other"])
def test_both_ways_answer_the_same_bytes(invoker: FakeInvoker, kind: str) -> None:
    invoker.result = Outcome(payload=b'{"a": 1}', log_tail=b"END", function_error="Unhandled")
    answers = []
    for has_hook in (False, True):
        app = an_app(invoker, has_hook=has_hook)
        answer = call(app, invoke_path(), b"{}", headers={"X-Amz-Invocation-Type": kind})
        answers.append((without_ids(repr(answer.head)), answer.body))

    assert answers[0] == answers[1]


def without_ids(text: str) -> str:
    return re.sub(r"Root=[^']*", "TRACE", UUID.sub("UUID", text))


@pytest.mark.parametrize(
    "register",
    [
        lambda app: app.before_request(lambda: ("stopped", 418)),
        lambda app: app.after_request(lambda _: Response("stopped", 418)),
        lambda app: app.errorhandler(ServiceException)(lambda _: ("stopped", 418)),
    ],
    ids=["before", "after", "error"],
)
def test_a_hook_of_the_application_sees_invocations(
    invoker: FakeInvoker, register: Callable[[Flask], object]
) -> None:
    app = an_app(invoker)
    invoker.result = ServiceException("x")
    register(app)

    assert call(app, invoke_path()).status == 418


# --- the whole application


@pytest.mark.parametrize(
    ("path", "method", "headers"),
    [
        pytest.param(invoke_path(), "POST", {}, id="call"),
        pytest.param(invoke_path(), "POST", {"X-Amz-Invocation-Type": "DryRun"}, id="dry-run"),
        pytest.param(invoke_path("!"), "POST", {}, id="error"),
        pytest.param("/healthz", "GET", {}, id="health"),
        pytest.param("/none", "GET", {}, id="unknown"),
    ],
)
def test_the_application_keeps_to_the_wsgi_standard(
    app: tuple[Flask, FakeInvoker], path: str, method: str, headers: dict[str, str]
) -> None:
    """``validator`` raises what PEP 3333 forbids."""
    checked: Any = validator(app[0])

    assert call(checked, path, method=method, headers=headers).status > 0


def test_what_is_put_around_the_application_is_noticed(
    app: tuple[Flask, FakeInvoker], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = app[0].extensions[EXTENSION]
    assert parts.is_untouched()
    with monkeypatch.context() as changed:
        changed.setitem(app[0].before_request_funcs, None, [lambda: None])
        assert not parts.is_untouched()
    with monkeypatch.context() as changed:
        changed.setattr(app[0], "wsgi_app", lambda *_: [])
        assert not parts.is_untouched()
    assert parts.is_untouched()


def test_it_is_healthy_whatever_is_missing(app: tuple[Flask, FakeInvoker]) -> None:
    app[1].lack = "the broker is not reached"

    answer = call(app[0], "/healthz", method="GET")

    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})


@pytest.mark.parametrize(("lack", "status"), [(None, 200), ("the broker is not reached", 503)])
def test_readiness_says_what_is_missing(
    app: tuple[Flask, FakeInvoker], lack: str | None, status: int
) -> None:
    app[1].lack = lack

    answer = call(app[0], "/readyz", method="GET")

    assert (answer.status, json.loads(answer.body)["status"]) == (status, lack or "ready")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "UnknownOperationException"),
        ("POST", "/2015-03-31/functions/echo", 404, "UnknownOperationException"),
        ("GET", "/healthz/", 404, "UnknownOperationException"),
        ("POST", "/healthz", 405, "MethodNotAllowedException"),
        ("DELETE", "/metrics", 405, "MethodNotAllowedException"),
    ],
)
def test_what_is_no_operation_is_an_error_in_awss_form(
    app: tuple[Flask, FakeInvoker], method: str, path: str, status: int, code: str
) -> None:
    assert_is_error(call(app[0], path, method=method), status, code)


def test_a_fault_behind_flask_is_500_without_its_text(
    app: tuple[Flask, FakeInvoker],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> str:
        raise RuntimeError("a secret")

    fail_now: Callable[[], str] = fail
    monkeypatch.setattr(app[1], "missing", fail_now)

    answer = call(app[0], "/readyz", method="GET")

    assert "secret" not in assert_is_error(answer, 500, "ServiceException")
    assert "request failed" in caplog.messages
