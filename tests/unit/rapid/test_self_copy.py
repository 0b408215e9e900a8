from __future__ import annotations

import sys
import zipapp
from pathlib import Path

import pytest

from rapid.self_copy import SelfCopyError, copy_self
from tests.support import IS_ONE_FILE, run_rapid


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make us one executable file, as a zipapp is."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "__main__.py").write_text("print('hello')")
    program = tmp_path / "rapid.pyz"
    zipapp.create_archive(source, program, interpreter="/usr/bin/env python3")
    program.chmod(0o751)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.delattr(sys, "frozen", raising=False)  # there when we are in the static executable
    return program


def test_the_program_is_copied_under_both_names(program: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "lambda-runtime-api-daemon"
    target.parent.mkdir()

    copies = copy_self(target)

    assert copies == [target, target.parent / "rapid"]
    assert copies[0].samefile(copies[1])  # a volume holds it once
    assert sorted(target.parent.iterdir()) == copies
    for copy in copies:
        assert copy.read_bytes() == program.read_bytes()
        assert copy.stat().st_mode & 0o777 == 0o751


def test_a_volume_without_links_gets_two_files(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_paths: Path) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)

    for copy in copy_self(tmp_path / "daemon"):
        assert copy.read_bytes() == program.read_bytes()
        assert copy.stat().st_mode & 0o777 == 0o751


@pytest.mark.usefixtures("program")
def test_a_full_volume_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")  # takes no byte. Source: full(4)

    def copy_to_full(source: Path, _copy: Path) -> None:
        with full.open("wb", buffering=0) as file:
            file.write(source.read_bytes())

    monkeypatch.setattr("shutil.copyfile", copy_to_full)

    with pytest.raises(SelfCopyError, match=r"No space left .*takes 1 MiB: raise the .*sizeLimit"):
        copy_self()


def test_an_older_copy_is_replaced_whole(program: Path, tmp_path: Path) -> None:
    target = tmp_path / "daemon"
    target.write_text("old")
    old_inode = target.stat().st_ino

    copy_self(target)

    assert target.read_bytes() == program.read_bytes()
    assert target.stat().st_ino != old_inode


@pytest.mark.usefixtures("program")
def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SelfCopyError, match=f"cannot copy .* to {tmp_path}/missing"):
        copy_self(tmp_path / "missing" / "daemon")


def test_a_program_of_many_files_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [__file__])
    monkeypatch.delattr(sys, "frozen", raising=False)

    with pytest.raises(SelfCopyError, match="expected the static executable"):
        copy_self()


@pytest.mark.skipif(IS_ONE_FILE, reason="rapid is one file here")
def test_init_container_mode_from_source_ends_with_one_line_and_code_1() -> None:
    done = run_rapid(KUBERNETES_INIT_CONTAINER="TRUE")

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("rapid: KUBERNETES_INIT_CONTAINER is set")
    assert done.stderr.count("\n") == 1
