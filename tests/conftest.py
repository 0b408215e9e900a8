"""Fixtures: factories, processes that surely end, and the broker."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devtools.rabbitmq_node import RabbitmqNode, find_server
from lambda_protocol.invocation import Invocation
from lambda_protocol.poller import Poller
from tests import support
from tests.events import Chronicle, Recorder
from tests.extensions import RecorderExtension
from tests.support import Rapid, Server, give_up, unique_name

if TYPE_CHECKING:
    from lambda_protocol.memory_broker import MemoryBroker

#: Nodes this worker started. Another worker may be the one to stop them; forgotten before that,
#: their processes would be warned of as still running.
_nodes: list[RabbitmqNode] = []


#: Starts a rapid for the length of the test; takes the arguments of ``Rapid``.
StartRapid = Callable[..., Rapid]
#: Starts a Lambda Server for the length of the test; takes the arguments of ``Server``.
StartServer = Callable[..., Server]


@pytest.fixture
def make_invocation() -> Callable[..., Invocation]:
    """Give a factory: a plain synchronous invocation with some fields changed."""
    return support.make_invocation


@pytest.fixture
def poller() -> Iterator[Poller]:
    """Give a poller that runs."""
    poller = Poller()
    poller.start()
    yield poller
    poller.stop()


@pytest.fixture
def function_name() -> str:
    """Give a function and queue name that nobody else uses."""
    return unique_name()


@pytest.fixture
def start_rapid() -> Iterator[StartRapid]:
    with contextlib.ExitStack() as stack:
        yield lambda *command, **settings: stack.enter_context(Rapid(*command, **settings))


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    with contextlib.ExitStack() as stack:
        yield lambda *options, **settings: stack.enter_context(Server(*options, **settings))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URI of a RabbitMQ: ``AMQP_URI``, or a private node for this run.

    With pytest-xdist the workers share one node: the first to need it starts it, the last stops it.
    """
    given = os.environ.get("AMQP_URI")
    if given:
        yield given
        return
    if find_server() is None:
        give_up("no rabbitmq-server on this machine; scripts/test-setup installs one")
    run = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent
    folder = run / "rabbitmq"
    with _locked(folder) as users:
        node = RabbitmqNode(folder)
        _nodes.append(node)
        node.start()
        users.write_text(str(_count(users) + 1))
    try:
        yield node.uri
    finally:
        with _locked(folder) as users:
            left = _count(users) - 1
            users.write_text(str(left))
            if left == 0:
                node.stop()


@pytest.fixture
def memory_broker() -> Iterator[MemoryBroker]:
    """Give a broker in memory, for one test."""
    from lambda_protocol.memory_broker import MemoryBroker  # not in the static file's unit tests

    with MemoryBroker() as broker:
        yield broker


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.broker)])
def either_broker(request: pytest.FixtureRequest) -> str:
    """Give the URI of a broker in memory, and then of a RabbitMQ: the same test holds for both."""
    if request.param == "rabbitmq":
        return str(request.getfixturevalue("broker"))
    broker: MemoryBroker = request.getfixturevalue("memory_broker")
    return broker.uri


@pytest.fixture(scope="session")
def broker_server(broker: str) -> Iterator[Server]:
    """Give a Lambda Server over the broker, which many tests share."""
    with Server(AMQP_URI=broker) as server:
        yield server


@pytest.fixture
def chronicle(tmp_path: Path) -> Iterator[Chronicle]:
    """Give a chronicle of attempts; whatever is held is let go at the end."""
    chronicle = Chronicle(tmp_path)
    yield chronicle
    chronicle.open()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """Give a destination for the records of events."""
    with contextlib.closing(Recorder()) as recorder:
        yield recorder


@pytest.fixture
def extension(tmp_path: Path) -> RecorderExtension:
    """Give the recorder extension, installed in a folder."""
    return RecorderExtension(tmp_path)


@pytest.fixture
def switching() -> Iterator[None]:
    """Let threads switch about as often as they can, so that races show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def pytest_configure() -> None:
    """Have processes hear signals, though the tests may run under ``nohup`` or with ``&``."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "broker" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.broker)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the programs of a failed test printed."""
    report = yield
    if report.failed:
        for program in support.started:
            report.sections.append((f"output of {program.name}", "\n".join(program.log[-200:])))
    if report.when == "teardown":
        support.started.clear()
    return report


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """Hold the folder's lock; give the file that counts its users."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder / "users"


def _count(users: Path) -> int:
    return int(users.read_text()) if users.exists() else 0
