from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest

from devtools import debian_root, other_versions
from devtools.debian_root import DebianRoot, RootError
from devtools.other_versions import PARTS, Part
from devtools.rabbitmq_node import RabbitmqError, find_server
from tests.acceptance.conformance.base_image import why_no_namespace


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root() -> DebianRoot:
    """Give a root that is made already: of this machine's own programs, seen by bind mounts."""
    found = DebianRoot(release="own", packages=("one", "two"), programs={"show": "/bin/sh"})
    (found.folder / "root").mkdir(parents=True)
    (found.folder / "packages").write_text("one two")
    return found


def part(root: DebianRoot, *tests: str, **programs: str) -> Part:
    return Part("the part", root, programs, tests)


def test_rabbitmq_server_names_the_server_to_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = tmp_path / "rabbitmq-server"
    server.touch()
    monkeypatch.setenv("RABBITMQ_SERVER", str(server))
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")

    assert find_server() == server

    server.unlink()
    with pytest.raises(RabbitmqError, match=r"RABBITMQ_SERVER is .*rabbitmq-server"):
        find_server()


def test_a_root_that_is_there_is_not_made_again(
    root: DebianRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian_root, "run", lambda *command: pytest.fail(f"ran {command}"))

    root.make()

    assert os.access(root.program("show"), os.X_OK)


def test_a_root_with_other_packages_is_made_again(
    root: DebianRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[str] = []
    monkeypatch.setattr(debian_root, "archive", lambda: "http://archive/")
    monkeypatch.setattr(debian_root, "install", lambda packages, reason: None)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(
        debian_root, "run", lambda command, *_: commands.append(" ".join(map(str, command)))
    )
    wanted = dataclasses.replace(root, packages=("one", "three"))

    wanted.make()
    wanted.make()

    made, installed = commands
    begin = f"debootstrap --variant=minbase own {root.folder}/root http://archive/debian "
    assert made.startswith(begin)
    assert installed.endswith("one three")


def test_without_root_no_root_is_made(root: DebianRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    with pytest.raises(RootError, match="needs root"):
        dataclasses.replace(root, packages=()).make()


def test_a_wrapper_keeps_process_folder_and_variables(root: DebianRoot, tmp_path: Path) -> None:
    reason = why_no_namespace()
    if reason is not None:
        pytest.skip(reason)
    for name in ("usr", "etc"):
        (root.folder / "root" / name).mkdir()
    for name in ("bin", "lib", "lib64"):
        if (Path("/") / name).is_symlink():
            (root.folder / "root" / name).symlink_to(f"usr/{name}")
    root.make()
    inside = tmp_path / "inside"
    inside.mkdir()
    # /usr as one more folder of the caller's: the home folder is passed.
    environ = {**os.environ, "HOME": "/usr", "SHOWN": "a  b"}
    script = 'echo $$ "$PWD" "$SHOWN" "$1"; test -e /root-of-this-machine || echo separate'

    with subprocess.Popen(
        [root.program("show"), "-c", script, "sh", "c  d"],
        cwd=inside,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        told, _ = process.communicate(timeout=20)

    assert told.splitlines() == [f"{process.pid} {inside} a  b c  d", "separate"]


def test_a_part_runs_its_tests_with_its_programs(
    root: DebianRoot, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    test = tmp_path / "test_it.py"
    test.write_text("import os\ndef test_it(): assert os.environ['TOOL'].endswith('/bin/show')\n")

    code = other_versions.main([part(root, str(test), TOOL="show")])

    assert code == 0, capfd.readouterr().out


def test_a_test_that_fails_is_told_by_the_exit_code(root: DebianRoot, tmp_path: Path) -> None:
    test = tmp_path / "test_it.py"
    test.write_text("def test_it(): assert False\n")

    assert other_versions.main([part(root, str(test))]) == 1


def test_what_cannot_be_had_is_left_out_and_said(
    root: DebianRoot, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    absent = dataclasses.replace(root, packages=())

    assert other_versions.main([part(absent)]) == 0

    assert "the part: left out, debootstrap needs root" in capsys.readouterr().err


@pytest.mark.parametrize("each", PARTS, ids=lambda each: each.name)
def test_the_tests_of_a_part_exist(each: Part) -> None:
    names = [name for name in each.tests if not name.startswith("-")]

    assert names
    assert all((other_versions.CHECKOUT / name).exists() for name in names)
    programs = [*each.programs.values(), *filter(None, [each.python])]
    assert set(programs) <= set(each.root.programs)
