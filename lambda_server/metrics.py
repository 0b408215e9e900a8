"""The server's figures: HTTP by prometheus-flask-exporter, invocations by outcome beside it."""

from __future__ import annotations

import os
import time

from flask import Flask
from prometheus_client import Counter, Histogram
from prometheus_flask_exporter import PrometheusMetrics
from prometheus_flask_exporter.multiprocess import GunicornInternalPrometheusMetrics

from lambda_protocol.errors import (
    LambdaApiError,
    ResourceNotFoundException,
    ServiceException,
    TooManyRequestsException,
)
from lambda_protocol.http_peer import HttpPeer
from lambda_protocol.invocation import Invocation, Invoker, Outcome
from lambda_server.caller import CallerGoneError

#: Where several gunicorn workers put their figures; gunicorn.conf.py sets it.
MULTIPROC_DIR = "PROMETHEUS_MULTIPROC_DIR"

_invocations = Counter(
    "lambda_invocations", "Invocations by what became of them.", ["function_name", "outcome"]
)
_duration = Histogram(
    "lambda_duration_seconds", "From the request to the answer.", ["function_name"]
)


def expose_metrics(app: Flask) -> None:
    """Measure ``app``'s requests and serve ``/metrics``, over all workers when there are several.

    Requests are told apart by endpoint, never by path: a path has a function's name in it.
    """
    kind = GunicornInternalPrometheusMetrics if os.environ.get(MULTIPROC_DIR) else PrometheusMetrics
    kind(app, path="/metrics", group_by="endpoint", excluded_paths=["/healthz", "/readyz"])


class MeteredInvoker:
    """An ``Invoker`` that counts what another one does. Thread-safe."""

    def __init__(self, invoker: Invoker) -> None:
        """Count the invocations of ``invoker``."""
        self._invoker = invoker

    def invoke(self, invocation: Invocation, caller: HttpPeer | None = None) -> Outcome:
        """Run ``invocation`` and count it; see ``Invoker``."""
        name = invocation.function.name
        started = time.monotonic()
        try:
            outcome = self._invoker.invoke(invocation, caller)
        except ResourceNotFoundException:
            # Callers make unknown names up: they must not become time series.
            _invocations.labels("", "not_found").inc()
            raise
        except TooManyRequestsException:
            _invocations.labels(name, "throttled").inc()
            raise
        except ServiceException:
            # With the broker away nobody knows which names are made up.
            _invocations.labels("", "failure").inc()
            raise
        except CallerGoneError:
            _invocations.labels(name, "abandoned").inc()
            raise
        except LambdaApiError:
            _invocations.labels(name, "failure").inc()
            raise
        _invocations.labels(name, "error" if outcome.function_error else "success").inc()
        _duration.labels(name).observe(time.monotonic() - started)
        return outcome
