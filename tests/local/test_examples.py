from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from scripts import examples
from scripts.examples import ECHO, GREYSCALE, Example, ExampleUnavailable, available


@pytest.fixture
def unbuilt(tmp_path: Path) -> Example:
    """Give the greyscale example as it is in a fresh clone."""
    folder = tmp_path / "image-greyscale"
    shutil.copytree(GREYSCALE.folder, folder, ignore=shutil.ignore_patterns("*.wasm"))
    return dataclasses.replace(GREYSCALE, folder=folder)


def test_a_missing_compiler_is_told_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, unbuilt: Example
) -> None:
    monkeypatch.setenv("CLANG", "/nonexistent/clang")

    with pytest.raises(ExampleUnavailable, match="apt-get install clang lld wasi-libc"):
        unbuilt.prepare(unbuilt.folder)


def test_what_cannot_be_started_is_told_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], unbuilt: Example
) -> None:
    monkeypatch.setenv("CLANG", "/nonexistent/clang")
    monkeypatch.setattr(examples, "GREYSCALE", unbuilt)

    assert available() == [ECHO]
    assert "image-greyscale-lambda: left out, " in capsys.readouterr().out
