from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.conformance.document import write_contract, write_matrix
from tests.acceptance.runtimes.caller_rows import CALLERS, Caller
from tests.acceptance.runtimes.matrix import Matrix, State, as_markdown, as_text, of_runtimes
from tests.acceptance.runtimes.rows import ROWS, Row

pytest_plugins = ["pytester"]

_BEHAVIOURS = """
import pytest
from tests.acceptance.runtimes.rows import ROWS

@pytest.mark.behaviour("echo")
@pytest.mark.parametrize("door", ["rapid", "broker"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_echo(row, door):
    if row.id == "go":
        pytest.skip("no go on this machine")
    assert row.id != "rust" or door == "rapid"
"""


@pytest.fixture
def matrix(pytester: pytest.Pytester) -> Matrix:
    """Give the matrix of a run in which Go is skipped and Rust fails behind one door."""
    pytester.makepyfile(test_some=_BEHAVIOURS)
    pytester.makeini("[pytest]\nmarkers = behaviour(name): a column")
    matrix = of_runtimes()
    pytester.inline_run("-q", "-p", "no:cacheprovider", plugins=[matrix])
    return matrix


def row(name: str) -> Row:
    return next(row for row in ROWS if row.id == name)


def test_a_behaviour_passes_when_it_does_behind_both_doors(matrix: Matrix) -> None:
    assert matrix.state(row("bash"), "echo") is State.PASS
    assert matrix.state(row("rust"), "echo") is State.FAIL
    assert matrix.state(row("go"), "echo") is State.SKIPPED
    assert matrix.state(row("bash"), "another") is State.NOT_RUN


def test_the_matrix_tells_reasons(matrix: Matrix) -> None:
    assert "Go is skipped: no go on this machine." in as_markdown(matrix)
    assert "skipped: no go on this machine" in as_text(matrix)
    assert "echo FAIL" in as_text(matrix)


@pytest.mark.parametrize("line", [*ROWS, *CALLERS], ids=lambda line: line.client)
def test_a_row_knows_the_version_of_its_client(line: Row | Caller) -> None:
    assert line.client_version.startswith(line.client)


def test_each_part_of_the_document_leaves_the_other_alone(tmp_path: Path) -> None:
    document = tmp_path / "docs" / "conformance.md"

    write_contract("the contract\n", document)
    write_matrix("the matrix\n", document)
    write_contract("another contract\n", document)

    text = document.read_text()
    assert text.startswith("another contract\n")
    assert text.endswith("the matrix\n")
    assert "the contract" not in text
