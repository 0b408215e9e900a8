"""The command, its tables and its pictures."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bench.__main__ import main


def autoscale(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["autoscale", *arguments])


def rows(output: str) -> Iterator[list[str]]:
    for line in output.splitlines():
        if re.match(r"\| [\d,]+ \|", line):
            yield line.strip("| ").split(" | ")


def test_the_command_tells_its_progress_and_needs_neither_load_nor_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")

    done = autoscale("--burst", "100")

    assert done.exit_code == 0, done.output
    assert "  100 invocations, keda: done after" in done.output
    assert len(list(rows(done.output))) == 6


def test_users_try_their_own_function() -> None:
    done = autoscale(
        *("--burst", "60", "--call", "10", "--startup", "20", "--max-concurrency", "3"),
        *("--max-pods", "5", "--lone-concurrency", "6"),
    )

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


def test_the_same_burst_gives_the_same_bytes(tmp_path: Path) -> None:
    pictures = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        assert autoscale("--burst", "1000", "--plots", str(tmp_path / name)).exit_code == 0
        pictures.append((tmp_path / name / "autoscaling-1000.png").read_bytes())

    assert pictures[0] == pictures[1]
