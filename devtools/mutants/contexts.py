"""A pytest plugin that notes which test runs which line, also in the programs a test starts.

Each test is a context of coverage. A program that a test starts measures itself, and finds the
name of the test in its environment. What a test took and whether it failed goes into one file
for each process of pytest, beside the data of coverage.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import coverage
import pytest

#: Variables that a test's programs get too: tests hand on what begins with ``COVERAGE_``.
TEST_VARIABLE = "COVERAGE_TEST"
FOLDER_VARIABLE = "COVERAGE_FOLDER"

_seconds: dict[str, float] = {}
_failed: set[str] = set()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Give all that the test runs, its fixtures included, the test's name as context."""
    os.environ[TEST_VARIABLE] = item.nodeid
    measuring = coverage.Coverage.current()
    if measuring is not None:
        measuring.switch_context(item.nodeid)
    try:
        return (yield)
    finally:
        if measuring is not None:
            measuring.switch_context("")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what the test took."""
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0.0) + report.duration
    if report.failed:
        _failed.add(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what was noted, unless workers did."""
    if not session.config.getoption("numprocesses", None):
        noted = {"seconds": _seconds, "failed": sorted(_failed)}
        path = Path(os.environ[FOLDER_VARIABLE]) / f"tests.{os.getpid()}.json"
        path.write_text(json.dumps(noted))
