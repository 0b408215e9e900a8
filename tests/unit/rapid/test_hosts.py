from __future__ import annotations

from pathlib import Path

import pytest

from rapid.environment.sandbox_hosts import add_sandbox_names


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("127.0.0.1 localhost\n", "127.0.0.1 localhost\n127.0.0.1 sandbox.localdomain sandbox\n"),
        ("127.0.0.1 localhost", "127.0.0.1 localhost\n127.0.0.1 sandbox.localdomain sandbox\n"),
        ("", "127.0.0.1 sandbox.localdomain sandbox\n"),
        ("10.0.0.1 sandbox # mine\n", "10.0.0.1 sandbox # mine\n127.0.0.1 sandbox.localdomain\n"),
        ("# 1.1.1.1 sandbox\n", "# 1.1.1.1 sandbox\n127.0.0.1 sandbox.localdomain sandbox\n"),
    ],
)
def test_missing_names_are_added(tmp_path: Path, before: str, after: str) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(before)

    assert add_sandbox_names(hosts)
    assert add_sandbox_names(hosts)

    assert hosts.read_text() == after


def test_a_file_that_is_missing_is_made(tmp_path: Path) -> None:
    assert add_sandbox_names(tmp_path / "hosts")

    assert (tmp_path / "hosts").read_text() == "127.0.0.1 sandbox.localdomain sandbox\n"


def test_a_file_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    assert not add_sandbox_names(tmp_path / "nowhere" / "hosts")
