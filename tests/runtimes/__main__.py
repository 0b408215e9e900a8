"""Build the functions, run them, print the matrix, and write it into docs/CONFORMANCE.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.interrupts import exit_with
from tests.conformance.document import DOCUMENT, write_matrix
from tests.runtimes import builds
from tests.runtimes.matrix import Matrix, as_markdown, as_text
from tests.support import ROOT


def main() -> int:
    """Return 0 when nothing is broken and every behaviour of every row that is there holds."""
    are_broken = builds.main()
    matrix = Matrix()
    code = pytest.main(["-q", "-p", "no:cacheprovider", str(Path(__file__).parent)], [matrix])
    print(as_text(matrix))
    write_matrix(as_markdown(matrix))
    print(f"Written to {DOCUMENT.relative_to(ROOT)}.")
    return 1 if code or are_broken else 0


if __name__ == "__main__":
    exit_with(main)
