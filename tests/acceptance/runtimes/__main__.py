"""Build the functions, run them, print the matrix, and write it into the conformance page."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools.interrupts import exit_with
from tests.acceptance.conformance.document import DOCUMENT, write_matrix
from tests.acceptance.runtimes import builds
from tests.acceptance.runtimes.matrix import as_markdown, as_text, of_callers, of_runtimes
from tests.support import ROOT


def main() -> int:
    """Return 0 when nothing is broken and every behaviour of every row that is there holds."""
    are_broken = builds.main()
    matrices = [of_runtimes(), of_callers()]
    code = pytest.main(["-q", "-p", "no:cacheprovider", str(Path(__file__).parent)], matrices)
    for matrix in matrices:
        print(as_text(matrix))
    write_matrix("\n".join(map(as_markdown, matrices)))
    print(f"Written to {DOCUMENT.relative_to(ROOT)}.")
    return 1 if code or are_broken else 0


if __name__ == "__main__":
    exit_with(main)
