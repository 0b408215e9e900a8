"""The mutants are changes of meaning with names that survive moved code."""

from __future__ import annotations

import ast

import pytest

from devtools.mutants.measure import Measured
from devtools.mutants.record import Record, find
from devtools.mutants.source import mutants_of


@pytest.mark.parametrize(
    ("statement", "changed"),
    [
        ("return a < b", "return (a <= b)"),
        ("return a and b", "return (a or b)"),
        ("return not a", "return (a)"),
        ("return a if b else c", "return (c if b else a)"),
        ("return 'Ä' + a", "return ('Ä' - a)"),
        ("return 'Ä' + a", "return ('ÄX') + a"),
        ("return a", "return None"),
        ("wait(30)", "wait((31))"),
        ("wait(True)", "wait((False))"),
        ("send(a)", "pass"),
        ("self.a = b", "pass"),
        ("a += 1", "pass"),
    ],
)
def test_a_mutant_changes_one_place(statement: str, changed: str) -> None:
    source = f"def f(a, b, c):\n    {statement}\n"

    results = [
        mutant.apply(source.encode()).decode() for mutant in mutants_of("m", source.encode())
    ]

    assert f"def f(a, b, c):\n    {changed}\n" in results
    for result in results:
        ast.parse(result)


@pytest.mark.parametrize(
    "source",
    [
        "LIMIT = 30\n",
        "def f(a: int = 1) -> None:\n    'What it does.'\n",
        "def f(a):\n    logger.info('hello', a == 1)\n",
        "def f(a):\n    raise ValueError('not one')\n",
        "def f(a):\n    b: Final = cast('int', a)\n",
        "def f(a):\n    return None\n",
    ],
    ids=["module", "signature", "log", "message", "types", "none"],
)
def test_what_no_test_has_to_notice_has_no_mutant(source: str) -> None:
    assert mutants_of("m", source.encode()) == []


def test_the_same_change_twice_in_a_function_is_numbered() -> None:
    mutants = mutants_of("m", b"def f():\n    go()\n    go()\n")

    assert [mutant.change for mutant in mutants] == ["go() -> pass", "go() -> pass (2)"]


def test_a_mutant_is_found_in_moved_and_renamed_code() -> None:
    (before,) = mutants_of("rapid.window", b"class Window:\n    def send(self):\n        go()\n")
    moved = mutants_of("rapid.prefetch", b"class Prefetch:\n    def send(self):\n        go()\n")

    assert find([before.name], [before]) == {before.name: before}
    assert find([before.name], moved) == {}
    near = mutants_of("rapid.windows", b"X = 1\nclass Window:\n    def send(self):\n        go()\n")
    assert find([before.name], near) == {before.name: near[0]}


def test_a_record_reads_what_it_wrote() -> None:
    record = Record(
        covered={"rapid branches": 91.5}, killed={"m\tf\ta -> b": True, "m\tf\tc": False}
    )

    assert Record.parse(record.text()) == record


def test_quick_tests_of_a_mutant_come_first_and_slow_ones_only_within_their_time() -> None:
    seconds = {"a": 3.0, "b": 4.0, "c": 5.0, "d": 90.0}
    measured = Measured(tests={}, seconds=seconds, covered={})

    assert measured.split([*seconds], 8.0, 10.0) == (["a", "b"], ["c"])
    assert measured.split(["d"], 8.0, 10.0) == (["d"], [])
    assert measured.split([], 8.0, 10.0) == ([], [])
