"""The documents of the checkout, and the code that stands in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support import ROOT

DOCUMENTS: Final = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("k8s/**/README.md")),
    *sorted(ROOT.glob("examples/*/README.md")),
]


@dataclass(frozen=True)
class Block:
    """A block of code in a document."""

    document: Path
    line: int
    text: str

    def __str__(self) -> str:
        """Return where it is: ``docs/how-to/laptop.md:12``."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def code_blocks(document: str, language: str) -> list[str]:
    """Return the blocks of a language in the text of a document."""
    return re.findall(rf"^```{language}\n(.*?)^```", document, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[Block]:
    """Return the blocks of a language in all documents."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
        for each in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            found.append(Block(document, text.count("\n", 0, each.start()) + 2, each[1]))
    return found


def anchors(document: str) -> set[str]:
    """Return what a link to a heading of the document may name, as GitHub and GitLab make it."""
    text = re.sub(r"^```.*?^```", "", document, flags=re.MULTILINE | re.DOTALL)
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip()
        name = re.sub(r"[^\w -]", "", plain).lower().replace(" ", "-")
        repeats = found.get(name, 0)
        found[name] = repeats + 1
        names.add(f"{name}-{repeats}" if repeats else name)
    return names


def make_targets(folder: Path = ROOT) -> set[str]:
    """Return the targets of a folder's Makefile that users may name."""
    return set(re.findall(r"^\.PHONY: ([a-z0-9-]+)$", (folder / "Makefile").read_text(), re.M))


def table_rows(document: str, heading: str) -> list[list[str]]:
    """Return the cells of the table whose first column has this heading."""
    _, _, rest = document.partition(f"\n| {heading} |")
    assert rest, f"no table with the first column {heading!r}"
    rows = []
    for line in rest.splitlines()[2:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    assert rows
    return rows


def code_words(text: str) -> list[str]:
    """Return what stands in backquotes."""
    return re.findall(r"`([^`]+)`", text)
