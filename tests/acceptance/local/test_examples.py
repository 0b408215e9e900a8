from __future__ import annotations

import importlib.util

import pytest

from devtools import examples
from devtools.commands import CommandError
from devtools.examples import ECHO, GREYSCALE, available


def test_both_examples_are_available_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("CLANG", "/nonexistent/clang")

    assert available() == [ECHO, GREYSCALE]


def test_what_cannot_be_started_is_told_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_index(*_args: object) -> None:
        raise CommandError("pip install failed:\nERROR: No matching distribution found")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(examples, "run", no_index)

    assert available() == [ECHO]
    assert (
        "image-greyscale-lambda: left out, ERROR: No matching distribution found"
        in capsys.readouterr().out
    )
