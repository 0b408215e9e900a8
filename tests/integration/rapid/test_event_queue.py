"""Events of a rapid without a broker: by real processes, and the bounds by a queue alone."""

from __future__ import annotations

import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lambda_protocol.errors import ServiceException, TooManyRequestsException
from lambda_protocol.invocation import InvocationType, Outcome
from rapid.call import Call
from rapid.invocations import memory_queue as event_queue
from rapid.invocations.memory_queue import MemoryQueue
from rapid.invocations.retry_policy import RetryPolicy
from rapid.metrics import Metrics
from tests.conftest import StartRapid
from tests.events import CHRONICLE, Chronicle
from tests.support import LIMIT_S, Rapid, make_invocation, wait_until


def send(rapid: Rapid, event: Any) -> None:
    """Invoke asynchronously, and check that the event is accepted."""
    assert rapid.invoke(json.dumps(event), X_Amz_Invocation_Type="Event").status == 202


def test_what_waits_is_done_before_a_stop(start_rapid: StartRapid, chronicle: Chronicle) -> None:
    settings = {**chronicle.environ, "RAPID_EVENT_RETRY_DELAYS": "3600"}
    rapid = start_rapid(CHRONICLE, **settings)
    send(rapid, {"fail_until": 2})
    send(rapid, {"n": 1})
    chronicle.wait_for(2)

    assert rapid.stop() == 0

    assert len(chronicle.attempts) == 3  # the retry did not wait for its hour


def test_what_is_not_done_in_time_is_told(start_rapid: StartRapid, chronicle: Chronicle) -> None:
    rapid = start_rapid(CHRONICLE, RAPID_DRAIN_TIMEOUT="0.1", **chronicle.environ)
    send(rapid, chronicle.held)
    send(rapid, {"n": 1})
    chronicle.wait_for(1)

    assert rapid.stop() == 0

    assert losses(rapid) == ["invocations=2"]


def test_a_second_signal_waits_for_no_event(start_rapid: StartRapid, chronicle: Chronicle) -> None:
    rapid = start_rapid(CHRONICLE, **chronicle.environ)  # which would wait for 300 s
    send(rapid, chronicle.held)
    chronicle.wait_for(1)
    rapid.signal(signal.SIGTERM)
    rapid.wait_for_log("stopping")

    rapid.signal(signal.SIGTERM)

    assert rapid.wait_exit() == 0
    assert losses(rapid) == ["invocations=1"]
    assert rapid.descendants() == []


def test_a_second_signal_waits_for_no_destination(
    start_rapid: StartRapid, chronicle: Chronicle
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        rapid = start_rapid(
            CHRONICLE, RAPID_ON_FAILURE=url, RAPID_MAX_RETRY_ATTEMPTS="0", **chronicle.environ
        )
        send(rapid, {"fail": True})
        assert "function=" in rapid.wait_for_log("asynchronous invocation discarded")
        rapid.signal(signal.SIGTERM)
        rapid.wait_for_log("stopping")

        rapid.signal(signal.SIGTERM)

        assert rapid.wait_exit() == 0
    assert losses(rapid) == ["invocations=1"]


def test_a_stop_has_one_time_for_calls_and_events(
    start_rapid: StartRapid, chronicle: Chronicle
) -> None:
    drain_s = 4.0
    rapid = start_rapid(
        CHRONICLE, RAPID_DRAIN_TIMEOUT=str(drain_s), RAPID_MAX_CONCURRENCY="2", **chronicle.environ
    )
    send(rapid, chronicle.held)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(rapid.invoke, json.dumps(chronicle.held))
        chronicle.wait_for(2)
        started = time.monotonic()

        assert rapid.stop() == 0

        took_s = time.monotonic() - started
        assert call.result().status == 200
    assert took_s >= drain_s
    assert losses(rapid) == ["invocations=1"]


def losses(rapid: Rapid) -> list[str]:
    return [line.split()[-1] for line in rapid.log if "asynchronous invocations lost" in line]


class Bench:
    """A queue whose scheduler is the test."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.refusal: ServiceException | None = None
        self.metrics = Metrics("f")
        self.queue = MemoryQueue(
            policy=RetryPolicy(
                max_retries=0, delays_s=(1.0,), backoff_s=(0.001, 0.001), max_age_s=60
            ),
            on_success=None,
            on_failure=None,
            submit=self._submit,
            metrics=self.metrics,
            send_by_http=lambda *_: None,
        )
        self.queue.start()

    def _submit(self, call: Call) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.calls.append(call)


def event(payload: bytes = b"{}") -> Any:
    return make_invocation(type=InvocationType.EVENT, payload=payload)


def test_events_are_bounded_by_number_and_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_queue, "MAX_WAITING", 2)
    monkeypatch.setattr(event_queue, "MAX_BYTES", 10)
    bench = Bench()
    bench.queue.accept(event(b"12345678"))
    with pytest.raises(TooManyRequestsException):
        bench.queue.accept(event(b"123"))
    bench.queue.accept(event(b"12"))
    with pytest.raises(TooManyRequestsException):
        bench.queue.accept(event(b""))

    bench.calls[0].on_outcome(Outcome())

    bench.queue.accept(event(b"12345678"))


def test_an_event_that_cannot_be_taken_leaves_no_trace() -> None:
    bench = Bench()
    bench.refusal = ServiceException("stopping")

    with pytest.raises(ServiceException):
        bench.queue.accept(event())

    assert bench.queue.drain(0)


def test_an_event_that_failed_for_good_is_logged_and_leaves_the_queue(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    bench.queue.accept(event())

    bench.calls[0].on_outcome(Outcome(function_error="Unhandled"))

    assert bench.queue.drain(LIMIT_S)
    assert "asynchronous invocation lost: there is no dead-letter queue" in caplog.text


def test_a_fault_puts_an_event_off_and_uses_up_no_attempt() -> None:
    bench = Bench()
    bench.queue.accept(event())

    bench.calls[0].on_outcome(ServiceException("a fault"))

    wait_until(lambda: len(bench.calls) == 2, "the event to be tried again")
    bench.calls[1].on_outcome(Outcome())
    assert bench.queue.drain(LIMIT_S)
