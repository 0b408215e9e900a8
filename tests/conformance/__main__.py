"""Run the conformance tests, print the table, write docs/CONFORMANCE.md."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conformance.outcomes import Outcomes, as_markdown, as_text
from tests.support import ROOT

_DOCUMENT = ROOT / "docs" / "CONFORMANCE.md"


def main() -> int:
    """Return 0 when every item that is covered has passed."""
    outcomes = Outcomes()
    code = pytest.main(["-q", "-p", "no:cacheprovider", str(Path(__file__).parent)], [outcomes])
    print(as_text(outcomes))
    _DOCUMENT.parent.mkdir(exist_ok=True)
    _DOCUMENT.write_text(as_markdown(outcomes))
    print(f"Written to {_DOCUMENT.relative_to(ROOT)}.")
    return 1 if code or outcomes.has_failed else 0


if __name__ == "__main__":
    sys.exit(main())
