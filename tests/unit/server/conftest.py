"""Fixtures: the application in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from lambda_server.app import create_app
from lambda_server.config import Config
from tests.fakes import FakeInstance, FakeInvoker


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
