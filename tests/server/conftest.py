"""Fixtures: the application in this process, and a server under gunicorn with a fake instance."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from lambda_server.app import create_app
from lambda_server.config import Config
from tests import support
from tests.server.fakes import FakeInstance, FakeInvoker, echo
from tests.support import Server
from tests.system.conftest import port_of
from tests.system.proxy import Proxy


@pytest.fixture
def invoker() -> FakeInvoker:
    """Give an invoker that the test looks into."""
    return FakeInvoker()


@pytest.fixture(scope="session")
def _app() -> tuple[Flask, FakeInvoker]:
    invoker = FakeInvoker()
    return create_app(Config(), invoker), invoker


@pytest.fixture
def app(_app: tuple[Flask, FakeInvoker]) -> Iterator[tuple[Flask, FakeInvoker]]:
    """Give the whole application, and its invoker.

    There is one in a process: prometheus_client registers figures once.
    """
    invoker = _app[1]
    before = dict(vars(invoker))
    invoker.invocations = []
    yield _app
    vars(invoker).update(before)


@pytest.fixture
def instance() -> Iterator[FakeInstance]:
    """Give an instance of a function that echoes."""
    with FakeInstance() as instance:
        yield instance


@pytest.fixture(scope="session")
def _shared() -> Iterator[tuple[Server, FakeInstance]]:
    with (
        FakeInstance() as instance,
        Server(LAMBDA_ENDPOINTS=f"echo={instance.url}") as server,
    ):
        yield server, instance


@pytest.fixture
def shared_instance(_shared: tuple[Server, FakeInstance]) -> Iterator[FakeInstance]:
    """Give the instance behind ``server``, as it was at first."""
    instance = _shared[1]
    yield instance
    instance.reply = echo
    instance.release()


@pytest.fixture
def server(_shared: tuple[Server, FakeInstance], shared_instance: FakeInstance) -> Server:
    """Give the server of this run, whose function ``echo`` is a fake instance; never stop it."""
    support.started.append(_shared[0])  # so that its output is shown when the test fails
    return _shared[0]


@pytest.fixture
def proxy(broker: str) -> Iterator[Proxy]:
    """Give a relay to the broker."""
    with Proxy(port_of(broker)) as proxy:
        yield proxy
