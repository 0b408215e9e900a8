"""The command, and the document that shows its tables and pictures."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from bench.__main__ import main

DOCS = Path(__file__).resolve().parents[3] / "docs" / "explanation"
DOCUMENT = (DOCS / "autoscaling.md").read_text()


def autoscale(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["autoscale", *arguments])


def rows(output: str) -> Iterator[list[str]]:
    for line in output.splitlines():
        if re.match(r"\| [\d,]+ \|", line):
            yield line.strip("| ").split(" | ")


def test_users_try_their_own_function() -> None:
    done = autoscale(
        *("--burst", "60", "--call", "10", "--startup", "20", "--max-concurrency", "3"),
        *("--max-pods", "5", "--lone-concurrency", "6"),
    )

    assert "  60 invocations, keda: done after" in done.output
    assert "An invocation runs 10 s, a pod starts in 20 s, RAPID_MAX_CONCURRENCY 3" in done.output
    found = {row[1]: row for row in rows(done.output)}
    assert found["keda"][2] == "21"  # a poll after 1 s, and the start
    assert found["max-concurrency"][3] == "100"


@pytest.mark.parametrize("arguments", [("--call", "0"), ("--burst", "0"), ("--plots", "/nowhere")])
def test_what_makes_no_sense_is_refused(arguments: tuple[str, str]) -> None:
    done = autoscale(*arguments)

    assert done.exit_code == 2
    assert "Invalid value" in done.output


def test_without_matplotlib_pictures_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    done = autoscale("--plots", str(tmp_path))

    assert done.exit_code == 1
    assert done.output.startswith("Error: --plots needs matplotlib: ")
    assert done.output.endswith(" -m pip install matplotlib\n")


@pytest.mark.slow
def test_the_document_has_the_tables_and_plots_that_the_command_makes(tmp_path: Path) -> None:
    """Plots by what they say they show: how they look to a pixel is the machine's business."""
    done = autoscale("--plots", str(tmp_path))

    assert done.exit_code == 0, done.output
    tables = re.findall(r"(?:^\|.*\n)+", done.output, re.MULTILINE)
    assert len(tables) == 2
    for table in tables:
        assert table in DOCUMENT
    for burst in (1000, 10_000, 1_000_000):
        name = f"autoscaling-{burst}.png"
        assert f"]({name})" in DOCUMENT
        assert curves(DOCS / name) == curves(tmp_path / name)


def curves(file: Path) -> str:
    with Image.open(file) as picture:
        return str(picture.info["Description"])
