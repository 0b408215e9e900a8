from __future__ import annotations

import os
from pathlib import Path

import pytest

from devtools import apt
from devtools.apt import AptError, install

_FAKE_APT_GET = """#!/bin/sh
echo "$1" >> "$APT_GET_CALLS"
if [ "$1" = install ] && ! grep -q update "$APT_GET_CALLS"; then exit 100; fi
"""


def test_without_apt_get_it_says_to_install_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(AptError, match="rabbitmq-server needed by the tests: there is no apt-get"):
        install(["rabbitmq-server"], "by the tests")


def test_without_the_rights_it_says_which_command_to_run(
    monkeypatch: pytest.MonkeyPatch, fake_apt_get: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(fake_apt_get.parent))  # no sudo there

    with pytest.raises(AptError, match=r"run `sudo apt-get install rabbitmq-server curl`"):
        install(["rabbitmq-server", "curl"], "by the tests")


def test_the_package_lists_are_brought_up_to_date_only_when_needed(
    monkeypatch: pytest.MonkeyPatch, fake_apt_get: Path, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(apt, "_INSTALL", 'apt-get install "$@"')
    monkeypatch.setenv("APT_GET_CALLS", str(calls))
    monkeypatch.setenv("PATH", f"{fake_apt_get.parent}:{os.environ['PATH']}")
    calls.touch()

    install(["curl"], "by the tests")
    assert calls.read_text().split() == ["install", "update", "install"]

    install(["curl"], "by the tests")
    assert calls.read_text().split()[3:] == ["install"]


@pytest.fixture
def fake_apt_get(tmp_path: Path) -> Path:
    file = tmp_path / "bin" / "apt-get"
    file.parent.mkdir()
    file.write_text(_FAKE_APT_GET)
    file.chmod(0o755)
    return file
