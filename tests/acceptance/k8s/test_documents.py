"""Manifests in documents are manifests: strict YAML, and as their schemas say."""

from __future__ import annotations

import re
from typing import Final

import pytest

from tests.acceptance.k8s.manifests import load
from tests.acceptance.k8s.schemas import VERSIONS, problems
from tests.documents import Block, blocks
from tests.support import ROOT

#: Files that a kustomization makes whole; test_own.py looks at what comes of them.
PARTS: Final = {
    each.read_text()
    for kustomization in ROOT.glob("examples/kubernetes/**/kustomization.yaml")
    for each in kustomization.parent.glob("*.yaml")
}
_HEREDOC: Final = re.compile(r"<<-?[ ]*['\"]?(\w+)['\"]?[^\n]*\n(.*?)^\1$", re.DOTALL | re.M)


def manifests() -> list[Block]:
    """Return the YAML of the documents, also where a command reads it from the shell."""
    inline = [
        Block(block.document, block.line, body)
        for block in blocks("sh")
        for _, body in _HEREDOC.findall(block.text)
        if "apiVersion:" in body
    ]
    return [*blocks("yaml"), *inline]


@pytest.mark.parametrize("block", manifests(), ids=str)
def test_a_manifest_in_a_document_is_one(block: Block) -> None:
    for data in load(block.text):
        if "apiVersion" not in data:
            continue  # a piece of one
        assert [problems(data, version) for version in VERSIONS] == [[]] * len(VERSIONS)
