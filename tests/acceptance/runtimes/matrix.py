"""The matrix of runtimes and behaviours: a pytest plugin that collects it, and how it looks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol, cast

import pytest

from tests.acceptance.runtimes.builds import NotBuilt, version_line
from tests.acceptance.runtimes.caller_rows import CALLERS
from tests.acceptance.runtimes.conftest import DOORS
from tests.acceptance.runtimes.rows import ROWS


class Row(Protocol):
    """A line of a matrix: one client of AWS's in one language."""

    @property
    def id(self) -> str: ...
    @property
    def language(self) -> str: ...
    @property
    def client_version(self) -> str: ...
    @property
    def language_version(self) -> tuple[str, ...]: ...


class State(StrEnum):
    """What the run says of one behaviour under one client."""

    PASS = "pass"
    FAIL = "FAIL"
    SKIPPED = "skipped"
    NOT_RUN = "not run"


@dataclass(slots=True)
class _Cell:
    passed: int = 0  #: doors
    failed: int = 0

    def state(self, *, is_skipped: bool) -> State:
        if self.failed:
            return State.FAIL
        if self.passed == len(DOORS):
            return State.PASS
        return State.SKIPPED if is_skipped else State.NOT_RUN


@dataclass(slots=True)
class _Place:
    row: str
    behaviour: str


@dataclass(slots=True)
class Matrix:
    """The plugin. One thread: pytest's."""

    parameter: str  #: of the tests, which tells their row
    rows: Sequence[Row]
    head: str  #: what stands above the table
    behaviours: dict[str, None] = field(default_factory=dict)  #: in the order of the tests
    skipped: dict[str, str] = field(default_factory=dict)  #: row → reason
    _places: dict[str, _Place] = field(default_factory=dict)  #: by test id
    _cells: dict[tuple[str, str], _Cell] = field(default_factory=dict)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note where in the matrix each test stands."""
        for test in session.items:
            mark = test.get_closest_marker("behaviour")
            if mark is None or not isinstance(test, pytest.Function):
                continue
            row = cast(Row | None, test.callspec.params.get(self.parameter))
            if row is None:
                continue
            place = _Place(row.id, mark.args[0])
            self._places[test.nodeid] = place
            self.behaviours[place.behaviour] = None
            self._cells.setdefault((place.row, place.behaviour), _Cell())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the outcome of a test, or of its set-up or end when that went wrong."""
        place = self._places.get(report.nodeid)
        if place is None:
            return
        cell = self._cells[place.row, place.behaviour]
        if report.failed:
            cell.failed += 1
        elif report.skipped and isinstance(report.longrepr, tuple):
            self.skipped[place.row] = report.longrepr[2].removeprefix("Skipped: ")
        elif report.passed and report.when == "call":
            cell.passed += 1

    def state(self, row: Row, behaviour: str) -> State:
        """Return what the run says of a cell."""
        cell = self._cells.get((row.id, behaviour), _Cell())
        return cell.state(is_skipped=row.id in self.skipped)


def as_text(matrix: Matrix) -> str:
    """Return the matrix for a terminal, a line a runtime."""
    names = [language(row) for row in matrix.rows]
    width = max(map(len, names))
    lines = [
        f"  {name:{width}}  {_told(matrix, row)}  ({row.client_version})"
        for name, row in zip(names, matrix.rows, strict=True)
    ]
    return "\n".join([f"By {matrix.parameter}: {', '.join(matrix.behaviours)}", *lines])


def as_markdown(matrix: Matrix) -> str:
    """Return the matrix as a section of docs/reference/conformance.md."""
    head = ["Language", "Client", *matrix.behaviours]
    rows = [
        [language(row), row.client_version]
        + [matrix.state(row, behaviour) for behaviour in matrix.behaviours]
        for row in matrix.rows
    ]
    return "\n".join([matrix.head, *_table(head, rows), *_reasons(matrix)]) + "\n"


def language(row: Row) -> str:
    """Return the language's name, with its version where it is installed."""
    try:
        version = re.search(r"\d+(\.\d+)+", version_line(row.language_version))
    except NotBuilt:
        version = None
    name, comma, style = row.language.partition(",")
    return f"{name} {version[0]}{comma}{style}" if version else row.language


def _told(matrix: Matrix, row: Row) -> str:
    states = [matrix.state(row, behaviour) for behaviour in matrix.behaviours]
    if all(state is State.PASS for state in states):
        return f"pass, all {len(states)}"
    if row.id in matrix.skipped:
        return f"skipped: {matrix.skipped[row.id]}"
    return ", ".join(
        f"{behaviour} {state}"
        for behaviour, state in zip(matrix.behaviours, states, strict=True)
        if state is not State.PASS
    )


def _table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _reasons(matrix: Matrix) -> Iterator[str]:
    for row in matrix.rows:
        if row.id in matrix.skipped:
            yield f"\n{row.language} is skipped: {matrix.skipped[row.id]}."


def of_runtimes() -> Matrix:
    """Return the matrix of clients that run functions."""
    return Matrix("row", ROWS, _RUNTIMES)


def of_callers() -> Matrix:
    """Return the matrix of clients that call functions."""
    return Matrix("caller", CALLERS, _CALLERS)


_RUNTIMES: Final = """\
## Runtimes

The same function under the runtime clients that AWS ships, and under a custom runtime of bash and
curl. Made by `make runtimes` from a run of [its tests](../../tests/acceptance/runtimes), do not
edit.

* *pass*: on a rapid's own port, and through a Lambda Server with RabbitMQ.
* *error*: type, message and stack reach the caller. Rust's client sends no stack.
* *context*: deadline, request id, ARN, name, version, memory and trace id.
* *timeout*: the caller gets the error, and a fresh process serves the next call.
* *6 MiB*: 6,291,456 bytes to the handler, 6,291,556 back.
"""
_CALLERS: Final = """\
## Callers

AWS's SDKs, besides boto3, aws cli and curl, which the table of the contract is tried with. Made by
`make runtimes` from a run of [its tests](../../tests/acceptance/runtimes), do not edit.

* *pass*: on a rapid's own port, and through a Lambda Server with RabbitMQ.
* *call*: the payload comes back.
* *function error*: `Unhandled`, and the error as payload.
* *404*: the SDK raises its `ResourceNotFoundException`.
* *DryRun*: 204, and nothing runs.
* *Event*: 202, and the function runs.
"""
