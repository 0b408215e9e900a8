"""The document shows what the simulation finds, in tables and in pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from bench.__main__ import main

DOCS = Path(__file__).resolve().parents[3] / "docs" / "explanation"
DOCUMENT = (DOCS / "autoscaling.md").read_text()

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the command draws, and prints, without options."""
    folder = tmp_path_factory.mktemp("plots")
    done = CliRunner().invoke(main, ["autoscale", "--plots", str(folder)])
    assert done.exit_code == 0, done.output
    (folder / "output").write_text(done.output)
    return folder


def test_the_tables_are_what_the_simulation_finds(drawn: Path) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", (drawn / "output").read_text(), re.MULTILINE)

    assert len(tables) == 2
    for table in tables:
        assert table in DOCUMENT


@pytest.mark.parametrize("burst", [1000, 10_000, 1_000_000])
def test_the_plots_are_current(drawn: Path, burst: int) -> None:
    """By what they say they show: how a picture looks to a pixel is the machine's business."""
    name = f"autoscaling-{burst}.png"

    assert f"]({name})" in DOCUMENT
    assert curves(DOCS / name) == curves(drawn / name)


def curves(file: Path) -> str:
    with Image.open(file) as picture:
        return str(picture.info["Description"])
