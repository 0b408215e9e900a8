"""The figures of a server, from one worker and from several."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import StartServer
from tests.fakes import FakeInstance
from tests.support import Client, Server, wait_for


def scrape(server: Server) -> dict[tuple[str, str], float]:
    """Return the invocations by function name and outcome, as Prometheus reads them."""
    text = server.get("/metrics").body.decode()
    return {
        (sample.labels["function_name"], sample.labels["outcome"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "lambda_invocations_total"
    }


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
