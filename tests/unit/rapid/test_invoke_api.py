"""rapid's front door over HTTP, with nothing behind it but the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lambda_protocol.address import Address
from lambda_protocol.cors import AllowedOrigins
from lambda_protocol.errors import LambdaApiError, ServiceException, TooManyRequestsException
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import Invocation, InvocationType, Outcome
from lambda_protocol.poller import Poller
from rapid.apis.invoke_api import InvokeApi
from rapid.call import Call
from tests.acceptance.conformance.doors import assert_error
from tests.support import LIMIT_S, Client, RawConnection, wait_for


class Door:
    """An Invoke API whose calls are answered by ``answer``, at once."""

    refusal: Exception | None

    def __init__(self, **changes: Any) -> None:
        self.calls: list[Call] = []
        self.abandoned: list[Call] = []
        self.answer: Outcome | LambdaApiError | None = Outcome(payload=b'"done"')
        self.refusal = None
        self.events: list[Invocation] = []
        self.event_error: LambdaApiError | None = None
        self.holds_events = False
        self.on_accepted: Callable[[LambdaApiError | None], None] | None = None
        self.missing: str | None = None
        self.poller = Poller()
        self.poller.start()
        self.api = InvokeApi(
            Address("127.0.0.1", 0),
            poller=self.poller,
            function=FunctionRef(name="echo"),
            version="$LATEST",
            submit=self._submit,
            abandon=self.abandoned.append,
            accept_async=self._accept,
            is_ready=lambda: self.missing,
            render_metrics=lambda: ("text/plain; version=0.0.4", b"lambda_x 1\n"),
            **{
                "accepts_any_name": True,
                "checks_payload": True,
                "has_openfaas": False,
                "allowed_origins": AllowedOrigins("RAPID_CORS_ALLOW_ORIGINS"),
                **changes,
            },
        )
        self.api.start()
        self.client = Client(self.api.port)

    def _submit(self, call: Call) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.calls.append(call)
        if self.answer is not None:
            call.on_outcome(self.answer)

    def _accept(
        self, invocation: Invocation, on_accepted: Callable[[LambdaApiError | None], None]
    ) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.events.append(invocation)
        self.on_accepted = on_accepted
        if not self.holds_events:
            on_accepted(self.event_error)

    def invoke(self, name: str = "echo", body: bytes = b"{}", **headers: str) -> Any:
        return self.client.post(f"/2015-03-31/functions/{name}/invocations", body, **headers)

    def close(self) -> None:
        self.client.close()
        self.api.stop()
        self.poller.stop()


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.close()


@pytest.fixture
def openfaas() -> Iterator[Door]:
    door = Door(has_openfaas=True)
    yield door
    door.close()


def test_a_call_is_answered_with_its_outcome(door: Door) -> None:
    answer = door.invoke()

    assert (answer.status, answer.body) == (200, b'"done"')
    assert answer.headers["x-amzn-RequestId"] == door.calls[0].invocation.request_id
    assert answer.headers["X-Amz-Executed-Version"] == "$LATEST"


def test_an_event_is_a_202_when_it_is_safe(door: Door) -> None:
    answer = door.invoke(X_Amz_Invocation_Type="Event")

    assert (answer.status, answer.body, door.calls) == (202, b"", [])
    assert door.events[0].type is InvocationType.EVENT
    assert answer.headers["x-amzn-RequestId"] == door.events[0].request_id


def test_an_event_is_answered_only_when_it_is_safe(door: Door) -> None:
    door.holds_events = True
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(door.invoke, X_Amz_Invocation_Type="Event")
        on_accepted = wait_for(lambda: door.on_accepted, "the event")
        assert not answer.done()

        on_accepted(None)

        assert answer.result(LIMIT_S).status == 202


def test_an_event_that_is_not_safe_is_no_202(door: Door) -> None:
    door.event_error = ServiceException("The broker did not take the event.")

    assert_error(door.invoke(X_Amz_Invocation_Type="Event"), 500, "ServiceException")


@pytest.mark.parametrize(("name", "status"), [("echo", 200), ("function", 200), ("other", 404)])
def test_other_names_are_unknown_where_that_is_wanted(name: str, status: int) -> None:
    door = Door(accepts_any_name=False)

    assert door.invoke(name).status == status
    door.close()


def test_a_call_that_is_far_too_large_is_refused_in_awss_words(door: Door) -> None:
    with RawConnection(door.api.port) as raw:
        raw.send(
            b"POST /2015-03-31/functions/echo/invocations HTTP/1.1\r\nHost: x\r\n"
            b"Content-Length: 99999999999\r\n\r\n"
        )
        answer = raw.read_answer()

    assert answer.status == 413
    assert answer.json() == {
        "Message": "Request must be smaller than 6291456 bytes for the InvokeFunction operation"
    }


def test_the_connection_is_kept_after_an_error(door: Door) -> None:
    door.invoke()
    port = door.client.local_port

    door.invoke(body=b"no")
    door.invoke(body=b"x" * 6_291_457)
    door.invoke()

    assert door.client.local_port == port


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_throttled_call_is_a_429_with_its_reason(door: Door, when: str) -> None:
    error = TooManyRequestsException()
    if when == "at once":
        door.refusal = error
    else:
        door.answer = error

    answer = door.invoke()

    assert answer.status == 429
    assert answer.json() == {
        "Type": "User",
        "message": "Rate Exceeded.",
        "Reason": "ConcurrentInvocationLimitExceeded",
    }


def test_a_fault_of_ours_is_a_service_exception(door: Door) -> None:
    door.refusal = ZeroDivisionError()

    assert_error(door.invoke(), 500, "ServiceException")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/2015-03-31/functions/echo/invocations", 405, "MethodNotAllowedException"),
        ("PUT", "/2015-03-31/functions/echo/invocations", 405, "MethodNotAllowedException"),
        ("POST", "/", 404, "UnknownOperationException"),
        ("GET", "/2015-03-31/functions/echo", 404, "UnknownOperationException"),
        ("POST", "/healthz", 405, "MethodNotAllowedException"),
    ],
)
def test_an_unknown_operation_is_refused_in_json(
    door: Door, method: str, path: str, status: int, code: str
) -> None:
    answer = door.client.request(method, path)

    assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (status, code)
    assert answer.json()["message"]


def test_bytes_that_are_no_http_are_refused_in_json(door: Door) -> None:
    with RawConnection(door.api.port) as raw:
        raw.send(b"HELO\r\n\r\n")
        answer = raw.read_answer()

    assert answer.status == 400
    assert answer.headers["x-amzn-RequestId"]
    assert answer.json()["Type"] == "User"


def test_payloads_pass_unchecked_where_that_is_wanted() -> None:
    door = Door(checks_payload=False)

    assert door.invoke(body=b"no json").status == 200
    assert door.calls[0].invocation.payload == b"no json"
    door.close()


# --- health and metrics


@pytest.mark.parametrize("path", ["/healthz", "/ping"])
def test_a_live_rapid_is_healthy_whatever_it_lacks(door: Door, path: str) -> None:
    door.missing = "the broker is not reached"

    assert door.client.get(path).status == 200


def test_readiness_tells_what_is_missing(door: Door) -> None:
    ready = door.client.get("/readyz")
    door.missing = "the broker is not reached"
    missing = door.client.get("/readyz")

    assert (ready.status, ready.json()) == (200, {"status": "ready"})
    assert (missing.status, missing.json()) == (503, {"status": "the broker is not reached"})


def test_metrics_are_rendered_by_their_own_content_type(door: Door) -> None:
    answer = door.client.get("/metrics")

    assert answer.body == b"lambda_x 1\n"
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_head_of_a_health_path_has_no_body(door: Door, path: str) -> None:
    head = door.client.request("HEAD", path)

    assert (head.status, head.body) == (200, b"")
    assert door.client.get("/healthz").status == 200


# --- OpenFaaS


def test_openfaas_posts_to_the_root(openfaas: Door) -> None:
    answer = openfaas.client.post("/", b'{"a": 1}')

    assert (answer.status, answer.body) == (200, b'"done"')
    assert openfaas.calls[0].invocation.payload == b'{"a": 1}'


@pytest.mark.parametrize(
    ("path", "missing", "status", "body"),
    [
        ("/_/health", None, 200, b"OK"),
        ("/_/health", "x", 200, b"OK"),
        ("/_/ready", None, 200, b"OK"),
        ("/_/ready", "x", 503, b"NOT READY"),
    ],
)
def test_openfaas_asks_for_health_in_its_own_way(
    openfaas: Door, path: str, missing: str | None, status: int, body: bytes
) -> None:
    openfaas.missing = missing

    answer = openfaas.client.get(path)

    assert (answer.status, answer.body) == (status, body)


@pytest.mark.parametrize("path", ["/_/health", "/_/ready"])
def test_without_openfaas_its_paths_are_unknown(door: Door, path: str) -> None:
    assert door.client.get(path).status == 404
