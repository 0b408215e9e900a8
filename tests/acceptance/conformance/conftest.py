"""Fixtures: one function behind every door, functions for one test, and a runtime played by it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests import support
from tests.acceptance.conformance.doors import Calls, Door, Gate
from tests.acceptance.conformance.items import ITEMS
from tests.acceptance.conformance.outcomes import unknown_numbers
from tests.acceptance.conformance.puppet import Puppet
from tests.support import MISBEHAVE, Rapid, Server

_RAPID = pytest.param("rapid", id="rapid")
_BROKER = pytest.param("broker", id="broker", marks=pytest.mark.broker)
_DIRECT = pytest.param("direct", id="direct")

#: Marks a test of ``door`` that is for the Server alone.
through_server = pytest.mark.parametrize("shared_door", [_BROKER, _DIRECT], indirect=True)


class OpenDoor(Protocol):
    """Starts a rapid, and what leads to it, for the length of the test.

    ``own_server`` gives a Server of its own the same settings.
    """

    def __call__(
        self, *command: str, own_server: bool = False, ready: bool = True, **environ: str
    ) -> Door: ...


class StartFunction(Protocol):
    """Starts a rapid that becomes ready, with these settings, for the length of the test."""

    def __call__(self, *command: str, **environ: str) -> Rapid: ...


class StartPuppet(Protocol):
    """Starts a rapid whose runtime is the test."""

    def __call__(self, **environ: str) -> Puppet: ...


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    wrong = unknown_numbers(items, (item.number for item in ITEMS if item.later is None))
    if wrong:
        raise pytest.UsageError("\n".join(wrong))


@pytest.fixture(scope="session", params=[_RAPID, _BROKER, _DIRECT])
def shared_door(request: pytest.FixtureRequest) -> Iterator[Door]:
    with contextlib.ExitStack() as stack:
        environ = {"AWS_LAMBDA_FUNCTION_TIMEOUT": "20"}
        if request.param == "broker":
            environ["RAPID_AMQP_URI"] = request.getfixturevalue("broker")
        rapid = stack.enter_context(Rapid(MISBEHAVE, flags=(), ready=True, **environ))
        port = rapid.port
        if request.param == "broker":
            port = request.getfixturevalue("broker_server").port
        elif request.param == "direct":
            port = stack.enter_context(_direct_server(rapid)).port
        yield Door(request.param, port, rapid)


@pytest.fixture
def door(shared_door: Door) -> Door:
    """Give a door to ``misbehave`` that many tests share: leave it idle."""
    support.started.append(shared_door.function)
    return shared_door


@pytest.fixture(params=[_RAPID, _BROKER])
def open_door(request: pytest.FixtureRequest) -> Iterator[OpenDoor]:
    with contextlib.ExitStack() as stack:

        def open_(
            *command: str, own_server: bool = False, ready: bool = True, **environ: str
        ) -> Door:
            if request.param == "broker":
                environ["RAPID_AMQP_URI"] = request.getfixturevalue("broker")
            rapid = stack.enter_context(Rapid(*command, flags=(), ready=ready, **environ))
            if request.param == "broker":
                rapid.wait_for_log("consuming")
            return Door(request.param, _port_to(rapid, environ, own_server), rapid)

        def _port_to(rapid: Rapid, environ: dict[str, str], own_server: bool) -> int:
            if request.param == "rapid":
                return rapid.port
            if own_server:
                unlike = ("RAPID_PORT", "RAPID_RUNTIME_API_PORT")
                settings = {
                    name.removeprefix("RAPID_"): value
                    for name, value in environ.items()
                    if name not in unlike
                }
                return stack.enter_context(Server(ready=True, **settings)).port
            server: Server = request.getfixturevalue("broker_server")
            return server.port

        yield open_


@pytest.fixture
def start_function() -> Iterator[StartFunction]:
    with contextlib.ExitStack() as stack:

        def start(*command: str, **environ: str) -> Rapid:
            return stack.enter_context(Rapid(*command, flags=(), ready=True, **environ))

        yield start


@pytest.fixture
def calls() -> Iterator[Calls]:
    with contextlib.closing(Calls()) as calls:
        yield calls


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with contextlib.closing(Gate(tmp_path / "gate")) as gate:
        yield gate


@pytest.fixture
def start_puppet(calls: Calls) -> Iterator[StartPuppet]:
    with contextlib.ExitStack() as stack:

        def start(**environ: str) -> Puppet:
            return stack.enter_context(contextlib.closing(Puppet(calls, **environ)))

        yield start


@pytest.fixture
def puppet(start_puppet: StartPuppet) -> Puppet:
    return start_puppet()


def _direct_server(rapid: Rapid) -> Server:
    return Server(LAMBDA_ENDPOINTS=f"{rapid.function_name}=http://127.0.0.1:{rapid.port}")
