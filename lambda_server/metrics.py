"""The server's figures: HTTP by prometheus-flask-exporter, invocations by outcome beside it."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Protocol

from flask import Flask
from prometheus_client import Counter, Gauge, Histogram
from prometheus_flask_exporter import PrometheusMetrics
from prometheus_flask_exporter.multiprocess import GunicornInternalPrometheusMetrics

from lambda_protocol.errors import (
    LambdaApiError,
    ResourceNotFoundException,
    TooManyRequestsException,
)
from lambda_protocol.http_peer import HttpPeer
from lambda_protocol.invocation import Invocation, Invoker, Outcome
from lambda_protocol.response_stream import Parts, Streamed, StreamingInvoker
from lambda_server.caller import CallerGoneError

#: Where several gunicorn workers put their figures; gunicorn.conf.py sets it.
MULTIPROC_DIR = "PROMETHEUS_MULTIPROC_DIR"

_invocations = Counter(
    "lambda_invocations", "Invocations by what became of them.", ["function_name", "outcome"]
)
_duration = Histogram(
    "lambda_duration_seconds", "From the request to the answer.", ["function_name"]
)
_first_byte = Histogram(
    "lambda_first_byte_seconds",
    "From the request to the first byte of a response that is passed on while it is written.",
    ["function_name"],
)
_streamed_bytes = Counter(
    "lambda_streamed_response_bytes",
    "Bytes of responses passed on while they were written.",
    ["function_name"],
)
_broker_blocked = Gauge(
    "lambda_broker_blocked",
    "1 while RabbitMQ has an alarm and takes no messages.",
    multiprocess_mode="livemax",
)


def set_broker_blocked(is_blocked: bool) -> None:
    """Note whether RabbitMQ takes no messages of this process now."""
    _broker_blocked.set(float(is_blocked))


def expose_metrics(app: Flask) -> None:
    """Measure ``app``'s requests and serve ``/metrics``, over all workers when there are several.

    Requests are counted by endpoint, never by path: a path contains a function's name.
    """
    kind = GunicornInternalPrometheusMetrics if os.environ.get(MULTIPROC_DIR) else PrometheusMetrics
    kind(app, path="/metrics", group_by="endpoint", excluded_paths=["/healthz", "/readyz"])


class _Invoker(Invoker, StreamingInvoker, Protocol):
    """Both ports."""


class MeteredInvoker:
    """An ``Invoker`` that counts what another one does. Thread-safe.

    Callers make names up, and a label keeps each for ever. So a function is counted under its name
    only once one of its instances has answered, or RabbitMQ has said that they are all busy.
    """

    def __init__(self, invoker: _Invoker) -> None:
        """Count the invocations of ``invoker``."""
        self._invoker = invoker
        self._known: set[str] = set()  # names; one is added by any thread, none is taken out

    def invoke(self, invocation: Invocation, caller: HttpPeer | None = None) -> Outcome:
        """Run ``invocation`` and count it; see ``Invoker``."""
        started = time.monotonic()
        try:
            outcome = self._invoker.invoke(invocation, caller)
        except (LambdaApiError, CallerGoneError) as error:
            self.count_failure(invocation, error)
            raise
        self.count(invocation, outcome, time.monotonic() - started)
        return outcome

    def stream(self, invocation: Invocation, caller: HttpPeer | None = None) -> Streamed:
        """Run ``invocation`` and count it when its response has ended; see ``StreamingInvoker``."""
        started = time.monotonic()
        try:
            streamed = self._invoker.stream(invocation, caller)
        except (LambdaApiError, CallerGoneError) as error:
            self.count_failure(invocation, error)
            raise
        return replace(streamed, parts=self._counted(invocation, streamed.parts, started))

    def _counted(self, invocation: Invocation, parts: Parts, started: float) -> Parts:
        streamed_bytes = 0
        try:
            while True:
                try:
                    part = next(parts)
                except StopIteration as end:
                    outcome: Outcome = end.value
                    break
                if not streamed_bytes:
                    _first_byte.labels(invocation.function.name).observe(time.monotonic() - started)
                streamed_bytes += len(part)
                yield part
        except (LambdaApiError, CallerGoneError) as error:
            self.count_failure(invocation, error)
            raise
        except GeneratorExit:
            self.count_failure(invocation, CallerGoneError())
            raise
        finally:
            parts.close()
            if streamed_bytes:
                _streamed_bytes.labels(invocation.function.name).inc(streamed_bytes)
        self.count(invocation, outcome, time.monotonic() - started)
        return outcome

    def count(self, invocation: Invocation, outcome: Outcome, took_s: float) -> None:
        """Count an invocation that has an outcome."""
        name = invocation.function.name
        self._known.add(name)
        self._count(name, "error" if outcome.function_error else "success")
        _duration.labels(name).observe(took_s)

    def count_failure(self, invocation: Invocation, error: Exception) -> None:
        """Count an invocation that has none."""
        name = invocation.function.name
        if isinstance(error, ResourceNotFoundException):
            _invocations.labels("", "not_found").inc()
        elif isinstance(error, TooManyRequestsException):
            self._known.add(name)
            self._count(name, "throttled")
        else:
            self._count(name, "abandoned" if isinstance(error, CallerGoneError) else "failure")

    def _count(self, name: str, outcome: str) -> None:
        _invocations.labels(name if name in self._known else "", outcome).inc()
