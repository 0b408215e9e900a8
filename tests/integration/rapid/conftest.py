"""Fixtures: a rapid whose runtime is the test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.acceptance.conformance.conftest import StartPuppet
from tests.acceptance.conformance.doors import Calls
from tests.acceptance.conformance.puppet import Puppet


@pytest.fixture
def start_puppet() -> Iterator[StartPuppet]:
    with contextlib.ExitStack() as stack:
        calls = stack.enter_context(contextlib.closing(Calls()))

        def start(**environ: str) -> Puppet:
            return stack.enter_context(contextlib.closing(Puppet(calls, **environ)))

        yield start


@pytest.fixture
def puppet(start_puppet: StartPuppet) -> Puppet:
    return start_puppet()
