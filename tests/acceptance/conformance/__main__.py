"""Run the conformance tests, print the table, write docs/reference/conformance.md.

With RAPID_BINARY the document stays as it is: it is about the checkout.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools.interrupts import exit_with
from tests.acceptance.conformance.document import DOCUMENT, write_contract
from tests.acceptance.conformance.outcomes import Outcomes, as_markdown, as_text
from tests.support import IS_ONE_FILE, RAPID, ROOT

_FOLDERS = (Path(__file__).parent, ROOT / "tests" / "acceptance" / "runtimes")


def main() -> int:
    """Return 0 when every item that is covered has passed."""
    outcomes = Outcomes()
    options = ["-q", "-p", "no:cacheprovider", "-m", "conformance"]
    code = pytest.main([*options, *map(str, _FOLDERS)], [outcomes])
    print(as_text(outcomes))
    if IS_ONE_FILE:
        print(f"That is {RAPID[0]}.")
    else:
        write_contract(as_markdown(outcomes))
        print(f"Written to {DOCUMENT.relative_to(ROOT)}.")
    return 1 if code or outcomes.has_failed else 0


if __name__ == "__main__":
    exit_with(main)
