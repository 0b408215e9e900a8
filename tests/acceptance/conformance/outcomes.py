"""What became of each item: a pytest plugin that collects outcomes, and the table made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import pytest

from tests.acceptance.conformance.items import ITEMS, Item


class State(StrEnum):
    """What the run says of an item."""

    PASS = "pass"
    FAIL = "fail"
    LATER = "later"


@dataclass(slots=True)
class _Seen:
    """The outcomes of one item's tests."""

    tests: dict[str, None] = field(default_factory=dict)  #: ids without parameters
    passed: int = 0
    failed: int = 0
    skipped: dict[str, None] = field(default_factory=dict)  #: reasons


class Outcomes:
    """The plugin. One thread: pytest's."""

    def __init__(self) -> None:
        """Know no outcome yet."""
        self._numbers: dict[str, tuple[int, ...]] = {}
        self._seen: dict[int, _Seen] = {item.number: _Seen() for item in ITEMS}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note which items each test is for."""
        for test in session.items:
            self._numbers[test.nodeid] = tuple(marked_numbers(test))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the outcome of a test, or of its set-up or end when that went wrong."""
        for number in self._numbers.get(report.nodeid, ()):
            seen = self._seen[number]
            seen.tests[report.nodeid.partition("[")[0].removeprefix("tests/")] = None
            if report.failed:
                seen.failed += 1
            elif report.skipped:
                seen.skipped[_reason(report)] = None
            elif report.when == "call":
                seen.passed += 1

    def state(self, item: Item) -> State:
        """Return the item's state: a covered one passes when a test did, and none failed."""
        if item.later is not None:
            return State.LATER
        seen = self._seen[item.number]
        return State.PASS if seen.passed and not seen.failed else State.FAIL

    def detail(self, item: Item) -> str:
        """Return the item's tests, or the reason why it has none."""
        if item.later is not None:
            return item.later
        seen = self._seen[item.number]
        notes = [*([item.how] if item.how else []), *(f"skipped: {why}" for why in seen.skipped)]
        tests = ", ".join(sorted(seen.tests)) or "no test"
        return tests + (f" ({'; '.join(notes)})" if notes else "")

    @property
    def counts(self) -> str:
        """The sum in one line."""
        states = Counter(self.state(item) for item in ITEMS)
        return ", ".join(f"{states[state]} {state}" for state in State)

    @property
    def has_failed(self) -> bool:
        """Whether an item that is covered did not pass."""
        return any(self.state(item) is State.FAIL for item in ITEMS)


def marked_numbers(test: pytest.Item) -> Iterator[int]:
    """Yield the items that a test is marked for."""
    for mark in test.iter_markers("conformance"):
        yield from mark.args


def as_text(outcomes: Outcomes) -> str:
    """Return the table for a terminal."""
    lines = []
    for section, items in _by_section():
        lines.append(f"\n{section}")
        lines += [
            f"  {item.number:3}  {outcomes.state(item):5}  {item.programs:6}  {item.claim}\n"
            f"{'':22}{outcomes.detail(item)}"
            for item in items
        ]
    return "\n".join([*lines, "", f"Conformance: {outcomes.counts} of {len(ITEMS)}."])


def as_markdown(outcomes: Outcomes) -> str:
    """Return the table as docs/reference/conformance.md."""
    parts = [_HEAD.format(counts=outcomes.counts, total=len(ITEMS))]
    for section, items in _by_section():
        rows = [
            f"| {item.number} | {item.claim} | {item.programs} | {outcomes.state(item)} "
            f"| {_linked(outcomes.detail(item))} |"
            for item in items
        ]
        parts.append(
            f"## {section}\n\n| # | Claim | Program | State | Test, or reason |\n"
            "|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
        )
    return "\n".join(parts)


def _by_section() -> Iterator[tuple[str, list[Item]]]:
    for section in dict.fromkeys(item.section for item in ITEMS):
        yield section, [item for item in ITEMS if item.section == section]


def _linked(detail: str) -> str:
    """Return the text with test ids as links to their files."""
    return " ".join(_link(word) for word in detail.replace("|", "\\|").split(" "))


def _link(word: str) -> str:
    test = word.rstrip(",")
    file, colons, name = test.partition("::")
    if not colons:
        return word
    return f"[{name}](../../tests/{file})" + word[len(test) :]


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return "unknown reason"


def unknown_numbers(tests: Iterable[pytest.Item], known: Iterable[int]) -> list[str]:
    """Return what is wrong with the marks: numbers of no item, or of one that comes later."""
    covered = set(known)
    return [
        f"{test.nodeid} is marked for item {number}, which is not a covered one"
        for test in tests
        for number in marked_numbers(test)
        if number not in covered
    ]


_HEAD: Final = """\
# Conformance

What callers, runtimes and extensions of AWS Lambda count on, and whether it holds here.
`make conformance` writes this page from a run of
[its tests](../../tests/acceptance/conformance). Do not edit it.

**{counts}**, of {total} items.

* *Server* is the Lambda Server, and *rapid* the daemon beside the function.
* *both* holds for the Invoke API of either. It is tested on a rapid's own port and through a Server
  with a broker. Most items are also tested through a Server without a broker.
* *later* is not built yet. The last column has the reason.

Clients are the real ones: boto3, aws cli, curl, and AWS's runtime clients of the last tables.
"""
