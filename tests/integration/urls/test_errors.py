"""Errors of URLs that need a function which is slow or busy, on the fronts that differ."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.urls.conftest import start_web, wait_for_url
from tests.support import Rapid, Server, wait_until

SETTINGS = {"AWS_LAMBDA_FUNCTION_TIMEOUT": "6", "RAPID_INVOKE_QUEUE_TIMEOUT": "0.1"}


@pytest.fixture(
    params=["rapid", "direct", pytest.param("broker", marks=pytest.mark.broker)],
)
def front(request: pytest.FixtureRequest) -> Iterator[tuple[Server | Rapid, str]]:
    """Give a program with one environment of the function, and the path of its URL."""
    with contextlib.ExitStack() as stack:
        if request.param == "broker":
            uri = request.getfixturevalue("broker")
            server = stack.enter_context(Server(AMQP_URI=uri, INVOKE_QUEUE_TIMEOUT="0.1"))
            rapid = stack.enter_context(start_web(**SETTINGS, RAPID_AMQP_URI=uri))
            wait_for_url(server, rapid.function_name)
        else:
            rapid = stack.enter_context(start_web(**SETTINGS))
            server = stack.enter_context(Server(LAMBDA_ENDPOINTS=rapid.endpoint))
        yield rapid if request.param == "rapid" else server, f"/lambda-url/{rapid.function_name}"


def test_a_function_that_runs_too_long_is_502(front: tuple[Server | Rapid, str]) -> None:
    program, path = front

    answer = program.get(f"{path}/sleep?30")

    assert (answer.status, answer.body) == (502, b"Internal Server Error")
    assert program.get(f"{path}/x").status == 200


def test_a_function_that_is_busy_is_429(front: tuple[Server | Rapid, str], tmp_path: Path) -> None:
    program, path = front
    file = tmp_path / "go"
    with program.raw() as raw:
        raw.send(f"GET {path}/hold?{file} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_until(Path(f"{file}.begun").exists, "the function to begin")

        answer = program.get(f"{path}/x")

        assert (answer.status, answer.body) == (429, b'{"Message":"Rate Exceeded."}')
        assert answer.headers["x-amzn-ErrorType"] == "TooManyRequestsException"
        file.touch()
        assert raw.read_answer().status == 200
