from __future__ import annotations

import signal
from pathlib import Path

import pytest

from lambda_protocol.memory_cgroup import MemoryCgroup, find_memory_cgroup
from rapid.environment.out_of_memory import OomWatch
from rapid.processes import ExitStatus

KILLED, EXIT_137, EXIT_1, TERMINATED = signal.SIGKILL, 137 << 8, 1 << 8, signal.SIGTERM
MIB = 1 << 20


def make_process(folder: Path, *, mounts: list[str], groups: str) -> Path:
    """Return a folder like /proc/self of a process that is in ``groups``."""
    proc = folder / "self"
    proc.mkdir()
    lines = [f"{number} 1 0:{number} {mount}\n" for number, mount in enumerate(mounts, 30)]
    (proc / "mountinfo").write_text("".join(lines))
    (proc / "cgroup").write_text(groups)
    return proc


@pytest.mark.parametrize(
    ("mounts", "groups", "expected", "is_v2"),
    [
        (["/ TREE rw - cgroup2 cgroup rw"], "0::/\n", ".", True),
        (
            ["/ TREE rw shared:9 - cgroup2 cgroup2 rw"],
            "0::/a.slice/b.scope\n",
            "a.slice/b.scope",
            True,
        ),
        (["/docker/1 TREE ro - cgroup2 cgroup rw"], "0::/docker/1\n", ".", True),
        (["/docker/1 TREE ro - cgroup2 cgroup rw"], "0::/docker/1/x\n", "x", True),
        (["/../.. TREE ro - cgroup2 cgroup rw"], "0::/\n", ".", True),
        (
            ["/ /cpu rw - cgroup cgroup rw,cpu", "/ TREE rw - cgroup cgroup rw,memory"],
            "9:cpu:/c\n4:memory:/m\n0::/u\n",
            "m",
            False,
        ),
        (
            ["/ TREE rw - cgroup cgroup rw,memory", "/ /unified rw - cgroup2 cgroup2 rw"],
            "4:memory:/m/n\n0::/\n",
            "m/n",
            False,
        ),
    ],
    ids=["root", "systemd", "container", "below a container's", "namespace", "v1", "hybrid"],
)
def test_the_control_group_that_counts_memory_is_found(
    tmp_path: Path, mounts: list[str], groups: str, expected: str, is_v2: bool
) -> None:
    tree = tmp_path / "tree"
    mounts = [mount.replace("TREE", str(tree)) for mount in mounts]

    cgroup = find_memory_cgroup(make_process(tmp_path, mounts=mounts, groups=groups))

    assert cgroup == MemoryCgroup(tree / expected, tree, is_v2)


@pytest.mark.parametrize("groups", ["", "nonsense\n", "4:cpu:/x\n"])
def test_where_nothing_counts_memory_none_is_found(tmp_path: Path, groups: str) -> None:
    mounts = ["/ /sys/fs/cgroup rw - cgroup cgroup rw,cpu", "", "30 short - cgroup2"]

    assert find_memory_cgroup(make_process(tmp_path, mounts=mounts, groups=groups)) is None
    assert find_memory_cgroup(tmp_path / "none") is None


def make_group(
    folder: Path, *, limit: str = "max", kills: int | None = 0, is_v2: bool = True
) -> MemoryCgroup:
    """Return a control group whose files say so."""
    group = folder / "group"
    group.mkdir(exist_ok=True)
    (group / ("memory.max" if is_v2 else "memory.limit_in_bytes")).write_text(f"{limit}\n")
    if kills is not None:
        events = "low 0\noom 7\noom_kill {}\n" if is_v2 else "under_oom 0\noom_kill {}\n"
        name = "memory.events" if is_v2 else "memory.oom_control"
        (group / name).write_text(events.format(kills))
    return MemoryCgroup(group, folder, is_v2)


@pytest.mark.parametrize(
    ("limit", "above", "expected"),
    [
        ("max", None, None),
        (str(128 * MIB), None, 128 * MIB),
        (str(128 * MIB), str(64 * MIB), 64 * MIB),
        ("max", str(64 * MIB), 64 * MIB),
        ("9223372036854771712", None, None),
    ],
    ids=["none", "own", "the pod's is smaller", "only the pod's", "version 1 without"],
)
@pytest.mark.parametrize("is_v2", [True, False], ids=["v2", "v1"])
def test_the_limit_is_the_smallest_on_the_way_up(
    tmp_path: Path, is_v2: bool, limit: str, above: str | None, expected: int | None
) -> None:
    group = make_group(tmp_path, limit=limit, is_v2=is_v2)
    if above is not None:
        (tmp_path / ("memory.max" if is_v2 else "memory.limit_in_bytes")).write_text(above)

    assert group.limit_bytes == expected


@pytest.mark.parametrize("is_v2", [True, False], ids=["v2", "v1"])
@pytest.mark.parametrize(
    ("wait_status", "kills", "expected"),
    [
        (KILLED, 4, True),
        (EXIT_137, 4, True),
        (KILLED, 3, False),
        (EXIT_1, 4, False),
        (TERMINATED, 4, False),
    ],
    ids=["killed", "as a shell says", "by somebody", "exited", "terminated"],
)
def test_a_killed_process_was_out_of_memory_if_the_kernel_counted_it(
    tmp_path: Path, is_v2: bool, wait_status: int, kills: int, expected: bool
) -> None:
    watch = OomWatch(make_group(tmp_path, kills=3, is_v2=is_v2))
    make_group(tmp_path, kills=kills, is_v2=is_v2)

    assert watch.is_out_of_memory(ExitStatus(wait_status)) is expected
    assert watch.is_out_of_memory(ExitStatus(wait_status)) is False  # each kill counts once


@pytest.mark.parametrize(
    ("peak_mb", "wait_status", "expected"),
    [(126, KILLED, True), (60, KILLED, False), (126, TERMINATED, False)],
)
def test_a_kill_that_is_not_counted_is_for_memory_near_the_limit(
    tmp_path: Path, peak_mb: int, wait_status: int, expected: bool
) -> None:
    watch = OomWatch(make_group(tmp_path, limit=str(128 * MIB), kills=None))

    assert watch.is_out_of_memory(ExitStatus(wait_status, peak_mb * MIB)) is expected


def test_without_a_control_group_nothing_is_out_of_memory() -> None:
    watch = OomWatch(None)

    assert watch.is_out_of_memory(ExitStatus(KILLED, 1 << 40)) is False
    assert watch.limit_bytes is None
