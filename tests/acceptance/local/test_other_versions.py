"""``scripts/test-versions``, which CI runs: how a part ends, and that what it names is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools import other_versions
from devtools.debian_root import DebianRoot
from devtools.other_versions import PARTS, Part
from devtools.rabbitmq_node import RabbitmqError, find_server


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> DebianRoot:
    """Give a root that is made already, with a program of this machine's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = DebianRoot(release="own", packages=("one", "two"), programs={"show": "/bin/sh"})
    (found.folder / "root").mkdir(parents=True)
    (found.folder / "packages").write_text("one two")
    return found


@pytest.mark.parametrize(("name", "code"), [("show", 0), ("no such program", 1)])
def test_a_part_runs_its_tests_with_its_programs_and_ends_as_they_do(
    root: DebianRoot, tmp_path: Path, name: str, code: int
) -> None:
    test = tmp_path / "test_it.py"
    test.write_text(f"import os\ndef test_it(): assert os.environ['TOOL'].endswith('/{name}')\n")

    assert other_versions.main([Part("it", root, {"TOOL": "show"}, (str(test),))]) == code


@pytest.mark.parametrize("each", PARTS, ids=lambda each: each.name)
def test_the_tests_of_a_part_exist(each: Part) -> None:
    names = [name for name in each.tests if not name.startswith("-")]

    assert names
    assert all((other_versions.CHECKOUT / name).exists() for name in names)
    programs = [*each.programs.values(), *filter(None, [each.python])]
    assert set(programs) <= set(each.root.programs)


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
