"""The server's figures, from an application in this process."""

from __future__ import annotations

import contextlib

import pytest
from flask import Flask
from prometheus_client import REGISTRY

from lambda_protocol.errors import (
    LambdaApiError,
    ResourceNotFoundException,
    ResourceNotReadyException,
    ServiceException,
    TooManyRequestsException,
)
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import Outcome
from lambda_server.metrics import MeteredInvoker
from tests.fakes import FakeInvoker, call, invoke_path
from tests.support import make_invocation, unique_name


def count(name: str, outcome: str) -> float:
    """Return what this process has counted."""
    labels = {"function_name": name, "outcome": outcome}
    return REGISTRY.get_sample_value("lambda_invocations_total", labels) or 0.0


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (Outcome(payload=b"1"), "success"),
        (Outcome(payload=b"{}", function_error="Unhandled"), "error"),
        (TooManyRequestsException(), "throttled"),
        (ResourceNotReadyException("none"), "failure"),
    ],
)
def test_an_invocation_is_counted_by_its_outcome(
    invoker: FakeInvoker, result: Outcome | LambdaApiError, outcome: str
) -> None:
    name = unique_name()
    metered = MeteredInvoker(invoker)
    metered.invoke(make_invocation(function=FunctionRef(name=name)))  # so that the name is known
    before = count(name, outcome)
    invoker.result = result

    for _ in range(3):
        with contextlib.suppress(LambdaApiError):
            metered.invoke(make_invocation(function=FunctionRef(name=name)))

    assert count(name, outcome) == before + 3


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        pytest.param(ResourceNotFoundException("unknown"), "not_found", id="unknown"),
        pytest.param(ServiceException("away"), "failure", id="broker-away"),
        pytest.param(ResourceNotReadyException("none"), "failure", id="never-answered"),
    ],
)
def test_a_name_that_may_be_made_up_is_no_label(
    invoker: FakeInvoker, error: LambdaApiError, outcome: str
) -> None:
    invoker.result = error
    name = unique_name()
    before = count("", outcome)

    with pytest.raises(type(error)):
        MeteredInvoker(invoker).invoke(make_invocation(function=FunctionRef(name=name)))

    assert count("", outcome) == before + 1
    assert count(name, outcome) == 0


def test_the_application_serves_its_figures(app: tuple[Flask, FakeInvoker]) -> None:
    name = unique_name()
    call(app[0], f"/2015-03-31/functions/{name}/invocations")

    answer = call(app[0], "/metrics", method="GET")

    text = answer.body.decode()
    assert answer.headers["content-type"].startswith("text/plain")
    line = f'lambda_invocations_total{{function_name="{name}",outcome="success"}} 1.0'
    assert line in text.splitlines()


def test_4000_made_up_methods_and_names_are_no_labels(app: tuple[Flask, FakeInvoker]) -> None:
    """gthread hands on any word that a caller takes for a method, and any path."""
    application, invoker = app
    invoker.result = ResourceNotReadyException("no instance")
    for path in ("/none", "/healthz", invoke_path("f")):
        assert call(application, path, method="BREW0").status == 501
    before = _series(application)

    for number in range(4000):
        assert call(application, "/none", method=f"BREW{number}").status == 501
        assert call(application, invoke_path(f"made-up-{number}"), b"1").status == 502

    assert _series(application) <= before | {
        'lambda_invocations_total{function_name="",outcome="failure"}',
        'lambda_invocations_created{function_name="",outcome="failure"}',
    }


def _series(application: Flask) -> set[str]:
    """Return the time series of ``/metrics``: names with labels, without values."""
    lines = call(application, "/metrics", method="GET").body.decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}
