"""The server's figures, from one worker and from several."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

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
from tests.conftest import StartServer
from tests.server.fakes import FakeInstance, FakeInvoker, call, invoke_path
from tests.support import Client, Server, make_invocation, unique_name, wait_for


def count(name: str, outcome: str) -> float:
    """Return what this process has counted."""
    labels = {"function_name": name, "outcome": outcome}
    return REGISTRY.get_sample_value("lambda_invocations_total", labels) or 0.0


def scrape(server: Server) -> dict[tuple[str, str], float]:
    """Return the invocations by function name and outcome, as Prometheus reads them."""
    text = server.get("/metrics").body.decode()
    return {
        (sample.labels["function_name"], sample.labels["outcome"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "lambda_invocations_total"
    }


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


def test_paths_are_no_labels(app: tuple[Flask, FakeInvoker]) -> None:
    made_up = unique_name()
    call(app[0], f"/{made_up}", method="GET")
    call(app[0], f"/2015-03-31/functions/{made_up}%20/invocations")

    assert made_up not in call(app[0], "/metrics", method="GET").body.decode()


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


@pytest.mark.parametrize("worker", ["lambda_server.worker.ConnectionWorker", "gthread"])
def test_what_callers_make_up_is_no_label_of_a_running_server(
    start_server: StartServer, instance: FakeInstance, worker: str
) -> None:
    server = start_server("-k", worker, LAMBDA_ENDPOINTS=f"echo={instance.url}")
    made_up = [unique_name("made-up") for _ in range(50)]

    for number, name in enumerate(made_up):
        assert server.invoke(name).status == 404
        with server.client() as client:
            assert client.request(f"BREW{number}", "/none").status == 501

    assert scrape(server) == {("", "not_found"): 50}
    assert b"BREW" not in server.get("/metrics").body


def _series(application: Flask) -> set[str]:
    """Return the time series of ``/metrics``: names with labels, without values."""
    lines = call(application, "/metrics", method="GET").body.decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


@pytest.fixture
def start_two(
    start_server: StartServer, instance: FakeInstance, tmp_path: Path
) -> Callable[[], Server]:
    """Give a way to start a server of two workers whose temporary files are in ``tmp_path``."""

    def start() -> Server:
        return start_server(
            WEB_CONCURRENCY="2", LAMBDA_ENDPOINTS=f"echo={instance.url}", TMPDIR=str(tmp_path)
        )

    return start


def test_several_workers_add_up_whichever_answers(
    start_two: Callable[[], Server],
) -> None:
    server = start_two()
    one, other = _workers(server)
    calls = {one: 3, other: 4}

    for worker, stopped in ((one, other), (other, one)):
        with _Paused(stopped):
            _invoke(server, calls[worker])

    for stopped in (one, other):  # the scrape is answered by the one that runs
        with _Paused(stopped):
            assert scrape(server)["echo", "success"] == 7


def test_many_connections_to_several_workers_are_all_counted(
    start_two: Callable[[], Server],
) -> None:
    server = start_two()

    for _ in range(10):
        _invoke(server, 5)

    assert {scrape(server)["echo", "success"] for _ in range(5)} == {50.0}


def test_figures_outlive_a_worker(start_two: Callable[[], Server]) -> None:
    server = start_two()
    gone, stays = _workers(server)
    with _Paused(stays):
        _invoke(server, 3)

    os.kill(gone, signal.SIGKILL)
    wait_for(lambda: gone not in _workers(server) or None, "the end of a worker")

    assert scrape(server)["echo", "success"] == 3


def test_the_workers_folder_ends_with_the_server(
    start_two: Callable[[], Server], tmp_path: Path
) -> None:
    server = start_two()
    assert list(tmp_path.glob("lambda-server-metrics-*"))

    assert server.stop() == 0

    assert list(tmp_path.iterdir()) == []


class _Paused:
    """Keeps a process from running."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __enter__(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGCONT)


def _workers(server: Server) -> list[int]:
    def both() -> list[int] | None:
        pids = server.descendants()
        return pids if len(pids) == 2 else None

    return wait_for(both, "two workers")


def _invoke(server: Server, times: int) -> None:
    with Client(server.port) as client:
        for _ in range(times):
            answer = client.post("/2015-03-31/functions/echo/invocations", b"1")
            assert answer.status == 200
