"""The checklist of ``items.md``, one item a claim.

An item is covered by tests marked ``@pytest.mark.conformance(number)``, or says why it comes later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final


class Programs(StrEnum):
    """Which of our programs the claim is about."""

    BOTH = "both"  #: every way to the Invoke API: a rapid's own, a Server over broker, or direct
    SERVER = "Server"
    RAPID = "rapid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One claim."""

    number: int
    section: str
    claim: str  #: one sentence
    programs: Programs
    later: str | None = None  #: why it is not covered yet; None: it is
    how: str = ""  #: what a reader of the table must know of the test


def _read(text: str) -> Iterator[Item]:
    for section in text.split("\n## ")[1:]:
        title, _, programs = section.partition("\n")[0].removesuffix(")").rpartition(" (")
        for number, claim, lines in re.findall(
            r"^(\d+)\. (.+)\n((?:   - .+\n)*)", section, re.MULTILINE
        ):
            notes = dict(re.findall(r"^   - (\w+): (.+)$", lines, re.MULTILINE))
            yield Item(
                number=int(number),
                section=title,
                claim=claim,
                programs=Programs(notes.get("of", programs)),
                later=notes.get("later"),
                how=notes.get("how", ""),
            )


ITEMS: Final = tuple(_read(Path(__file__).with_name("items.md").read_text()))
