"""Fixtures: one function behind every door, functions for one test, and a runtime played by it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


#: Starts a rapid with these settings, and what leads to it, for the length of the test.
#: ``own_server`` gives a Server of its own the same settings.
OpenDoor = Callable[..., Door]
#: Starts a rapid whose runtime is the test; takes rapid's settings.
StartPuppet = Callable[..., Puppet]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    wrong = unknown_numbers(items, (item.number for item in ITEMS if item.later is None))
    if wrong:
        raise pytest.UsageError("\n".join(wrong))


@pytest.fixture(scope="session", params=[_RAPID, _BROKER, _DIRECT])
def shared_door(request: pytest.FixtureRequest) -> Iterator[Door]:
    with contextlib.ExitStack() as stack:
        environ: dict[str, Any] = {"AWS_LAMBDA_FUNCTION_TIMEOUT": "20"}
        if request.param == "broker":
            environ["RAPID_AMQP_URI"] = request.getfixturevalue("broker")
        rapid = stack.enter_context(Rapid(MISBEHAVE, **environ))
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
    name = request.param
    with contextlib.ExitStack() as stack:

        def open_(*command: str, own_server: bool = False, **environ: Any) -> Door:
            if name == "broker":
                environ["RAPID_AMQP_URI"] = request.getfixturevalue("broker")
            rapid = stack.enter_context(Rapid(*command, **environ))
            if name == "rapid":
                return Door(name, rapid.port, rapid)
            rapid.wait_for_log("consuming")
            if not own_server:
                return Door(name, request.getfixturevalue("broker_server").port, rapid)
            settings = {key.removeprefix("RAPID_"): value for key, value in environ.items()}
            return Door(name, stack.enter_context(Server(**settings)).port, rapid)

        yield open_


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
        yield lambda **environ: stack.enter_context(contextlib.closing(Puppet(calls, **environ)))


@pytest.fixture
def puppet(start_puppet: StartPuppet) -> Puppet:
    return start_puppet()


def _direct_server(rapid: Rapid) -> Server:
    return Server(LAMBDA_ENDPOINTS=rapid.endpoint)
