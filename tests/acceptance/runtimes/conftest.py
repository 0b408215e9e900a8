"""Fixtures: each row's function, behind a rapid's own port and behind a Server with RabbitMQ."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests import support
from tests.acceptance.conformance.doors import Door
from tests.acceptance.runtimes.builds import built
from tests.acceptance.runtimes.recipes import FUNCTIONS
from tests.acceptance.runtimes.rows import ROWS, Row
from tests.support import ROOT, Rapid, Server

DOORS: Final = ("rapid", "broker")
#: Of one invocation, seconds; the shared functions never reach it.
TIMEOUT_S: Final = 30
#: The JVM's init takes its time when two cores run the whole suite.
INIT_TIMEOUT_S: Final = 30

StartFunction = Callable[..., Door]


@pytest.fixture(scope="session", params=ROWS, ids=lambda row: row.id)
def row(request: pytest.FixtureRequest) -> Row:
    found: Row = request.param
    if found.recipe is not None:
        built(found.recipe)
    return found


@pytest.fixture(scope="session", params=DOORS)
def door_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def broker_uri(request: pytest.FixtureRequest, door_name: str) -> str | None:
    return request.getfixturevalue("broker") if door_name == "broker" else None


@pytest.fixture(scope="session")
def shared_function(
    request: pytest.FixtureRequest, row: Row, broker_uri: str | None
) -> Iterator[Door]:
    with contextlib.ExitStack() as stack:
        yield open_function(request, stack, row, broker_uri, ready=True)


@pytest.fixture
def function(shared_function: Door) -> Door:
    """Give the row's function, which many tests share: leave it idle."""
    support.started.append(shared_function.function)
    return shared_function


@pytest.fixture
def start_function(
    request: pytest.FixtureRequest, row: Row, broker_uri: str | None
) -> Iterator[StartFunction]:
    """Give a way to start the row's function with these settings, for one test."""
    with contextlib.ExitStack() as stack:

        def start(*, ready: bool = True, **environ: str) -> Door:
            return open_function(request, stack, row, broker_uri, ready=ready, **environ)

        yield start


def open_function(
    request: pytest.FixtureRequest,
    stack: contextlib.ExitStack,
    row: Row,
    broker_uri: str | None,
    *,
    ready: bool,
    **environ: str,
) -> Door:
    """Start the row's function, and what leads to it; closing the stack ends it."""
    folder = FUNCTIONS / row.folder if row.recipe is None else built(row.recipe)
    command = [word.format(folder=folder) for word in row.command]
    return open_command(request, stack, command, folder, broker_uri, ready=ready, **environ)


def open_command(
    request: pytest.FixtureRequest,
    stack: contextlib.ExitStack,
    command: Sequence[str],
    folder: Path,
    broker_uri: str | None,
    *,
    ready: bool = True,
    **environ: str,
) -> Door:
    """Start a runtime in ``folder``, and what leads to it; closing the stack ends it."""
    environ = {
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(TIMEOUT_S),
        "RAPID_INIT_TIMEOUT": str(INIT_TIMEOUT_S),
        "PYTHONPATH": str(ROOT),  # for rapid itself, which runs in the function's folder
        **environ,
    }
    server: Server | None = None
    if broker_uri is not None:
        environ["RAPID_AMQP_URI"] = broker_uri
        # Before the rapid, so that the server hears its first announcement.
        server = request.getfixturevalue("broker_server")
    rapid = Rapid(*command, flags=(), ready=ready, **environ)
    rapid.cwd = folder
    stack.enter_context(rapid)
    if server is None:
        return Door("rapid", rapid.port, rapid)
    rapid.wait_for_log("consuming")
    return Door("broker", server.port, rapid)
