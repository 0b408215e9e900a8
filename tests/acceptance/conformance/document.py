"""docs/reference/conformance.md: two parts, each written by a command of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.support import ROOT

DOCUMENT: Final = ROOT / "docs" / "reference" / "conformance.md"

#: Stands between the table of the contract, by `make conformance`, and the runtime matrix, by
#: `make runtimes`.
_SEAM: Final = "\n<!-- what follows is written by make runtimes -->\n\n"


def write_contract(text: str, document: Path = DOCUMENT) -> None:
    """Replace the first part."""
    _, matrix = _read(document)
    _write(document, text, matrix)


def write_matrix(text: str, document: Path = DOCUMENT) -> None:
    """Replace the second part."""
    contract, _ = _read(document)
    _write(document, contract, text)


def _read(document: Path) -> tuple[str, str]:
    text = document.read_text() if document.exists() else ""
    contract, _, matrix = text.partition(_SEAM)
    return contract, matrix


def _write(document: Path, contract: str, matrix: str) -> None:
    document.parent.mkdir(exist_ok=True)
    document.write_text(contract + _SEAM + matrix)
