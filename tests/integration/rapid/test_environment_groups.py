"""Against a folder that looks like a control group; the system's tests have the kernel's own."""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path

import pytest

from rapid.environment.control_groups import EnvironmentGroups
from rapid.processes import ExitStatus, ProcessGroup
from tests.support import child_states, wait_until

SELF = f"rapid-{os.getpid()}"
KILLED = 9


class Tree:
    """A control group of version 2, made of plain files, and the process that is in it."""

    def __init__(self, folder: Path, *, controllers: str = "cpu memory pids") -> None:
        self.group = folder / "tree" / "service"
        self.group.mkdir(parents=True)
        self.proc = folder / "proc"
        self.proc.mkdir()
        mount = f"30 1 0:30 / {folder / 'tree'} rw - cgroup2 cgroup2 rw\n"
        (self.proc / "mountinfo").write_text(mount)
        (self.proc / "cgroup").write_text("0::/service\n")
        self.write("cgroup.controllers", controllers)
        self.write("cgroup.subtree_control", "")
        self.write("memory.max", "max")
        self.write("memory.events", "oom_kill 5\n")

    def write(self, name: str, text: str) -> None:
        (self.group / name).write_text(text)

    def read(self, name: str) -> str:
        return (self.group / name).read_text()


def warnings(caplog: pytest.LogCaptureFixture) -> list[object]:
    return [
        vars(record)["reason"] for record in caplog.records if record.levelno == logging.WARNING
    ]


def test_rapid_moves_aside_and_each_environment_has_a_limit_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = Tree(tmp_path)
    groups = EnvironmentGroups(128, tree.proc)
    groups.enforce_memory()

    first, second = groups.of_environment(0), groups.of_environment(1)

    assert tree.read(f"{SELF}/cgroup.procs") == "0"
    assert tree.read("cgroup.subtree_control") == "+memory"
    for index, memory in enumerate((first, second)):
        assert tree.read(f"{SELF}-{index}/memory.max") == str(128 << 20)
        assert tree.read(f"{SELF}-{index}/memory.swap.max") == "0"
        assert memory.watch.limit_bytes == 128 << 20
    (tree.group / f"{SELF}-1" / "memory.events").write_text("oom_kill 1\n")
    assert not first.watch.is_out_of_memory(ExitStatus(KILLED))
    assert second.watch.is_out_of_memory(ExitStatus(KILLED))
    assert warnings(caplog) == []


def test_a_process_joins_with_what_it_has_started(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    groups = EnvironmentGroups(128, tree.proc)
    groups.enforce_memory()
    memory = groups.of_environment(0)
    procs = tree.group / f"{SELF}-0" / "cgroup.procs"
    os.mkfifo(procs)  # so that each write is seen
    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"], process_group=0) as process:
        wait_until(lambda: child_states(process.pid), "the child")
        (child,) = child_states(process.pid)
        reader = os.open(procs, os.O_RDONLY | os.O_NONBLOCK)

        memory.add(ProcessGroup(process.pid))

        assert os.read(reader, 100).decode() == f"{process.pid}{child}"
        os.close(reader)
        os.killpg(process.pid, KILLED)


def test_without_the_setting_a_group_is_made_and_has_no_limit(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.write("cgroup.events", "populated 1\n")
    tree.write("cgroup.procs", "")

    group = EnvironmentGroups(128, tree.proc).of_environment(0)

    assert group.folder == tree.group / f"{SELF}-0"
    assert list(group.folder.iterdir()) == []
    assert group.watch.limit_bytes is None
    group.close()
    assert not group.folder.exists()


def test_at_the_root_of_the_hierarchy_nothing_is_made(tmp_path: Path) -> None:
    tree = Tree(tmp_path)  # the kernel has no cgroup.events there
    tree.write("cgroup.procs", "")

    memory = EnvironmentGroups(128, tree.proc).of_environment(0)
    memory.add(ProcessGroup(os.getpid()))
    memory.close()

    assert memory.watch.limit_bytes is None
    assert not [path for path in tree.group.iterdir() if path.is_dir()]


@pytest.mark.parametrize("controllers", ["", "cpu pids"])
def test_a_group_that_is_not_delegated_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, controllers: str
) -> None:
    tree = Tree(tmp_path, controllers=controllers)
    groups = EnvironmentGroups(128, tree.proc)

    groups.enforce_memory()
    groups.of_environment(0)
    groups.of_environment(1)

    assert warnings(caplog) == [f"{tree.group} does not have the memory controller"]
    assert not [path for path in tree.group.iterdir() if path.is_dir()]


def test_a_group_that_cannot_be_made_is_one_warning_and_no_limit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = Tree(tmp_path)
    groups = EnvironmentGroups(128, tree.proc)
    groups.enforce_memory()
    (tree.group / f"{SELF}-0").touch()

    memories = [groups.of_environment(0) for _ in range(2)]

    assert [memory.folder for memory in memories] == [None, None]
    (reason,) = warnings(caplog)
    assert "File exists" in str(reason)
