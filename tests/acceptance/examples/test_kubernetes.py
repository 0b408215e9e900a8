"""What docs/how-to/kubernetes.md shows and names is what is there."""

from __future__ import annotations

import re
from typing import Final

import pytest
import yaml

from tests.documents import code_words, table_rows
from tests.support import ROOT

DOCUMENT: Final = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()
EXAMPLES: Final = ROOT / "examples" / "kubernetes"
BLOCKS: Final = re.findall(r"^```yaml\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_manifest_in_the_document_is_the_file_linked_above(block: str) -> None:
    before = DOCUMENT.partition(f"```yaml\n{block}")[0]
    linked = re.findall(r"\]\(\.\./\.\./(examples/kubernetes/[^)]+\.yaml)\)", before)

    assert block == (ROOT / linked[-1]).read_text()


def test_a_function_is_25_lines() -> None:
    assert len((EXAMPLES / "my-lambda" / "function.yaml").read_text().splitlines()) <= 25


def test_the_ports_are_those_of_the_cluster() -> None:
    (control_plane, *_) = yaml.safe_load((ROOT / "k8s" / "kind.yaml").read_text())["nodes"]
    mapped = {each["hostPort"] for each in control_plane["extraPortMappings"]}

    assert {int(row[0]) for row in table_rows(DOCUMENT, "port")} == mapped


def test_the_alternatives_are_the_overlays() -> None:
    named = [code_words(row[0])[0] for row in table_rows(DOCUMENT, "`--scaling`")]

    assert sorted(named) == sorted(path.name for path in (ROOT / "k8s" / "overlays").iterdir())


def test_folders_that_are_applied_are_there() -> None:
    folders = re.findall(r"apply --server-side -k (\S+)", DOCUMENT)

    assert folders
    for folder in folders:
        assert (ROOT / folder / "kustomization.yaml").is_file(), folder
