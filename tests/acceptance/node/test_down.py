"""The end of the story: nothing of the cluster is left."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

import psutil

from tests.acceptance.node.workplace import Workplace

#: What runs where there is no cluster: PID 1, these tests, and the mirror of the internet's images.
_OURS: Final = {"python", "python3", "pytest", "registry"}
_CGROUPS: Final = Path("/sys/fs/cgroup")


def test_down_leaves_no_process_mount_cgroup_or_interface(cluster: Workplace) -> None:
    said = cluster.cluster("down")

    assert "Cluster: deleted" in said
    assert _processes() <= _OURS
    assert [mount for mount in _mounts() if "/node/" in mount] == []
    assert _interfaces() == {"lo"}
    assert list(Path("/run/netns").glob("cni-*")) == []
    for cgroup in _CGROUPS.glob(f"**/{os.environ['NODE_CGROUP']}/**/cgroup.procs"):
        assert cgroup.read_text() == "", cgroup
    assert "There is no kind cluster" in cluster.cluster("status", status=3)


def _processes() -> set[str]:
    return {process.name() for process in psutil.process_iter()}


def _mounts() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines]


def _interfaces() -> set[str]:
    shown = subprocess.run(
        ["ip", "-brief", "link"], check=True, capture_output=True, text=True
    ).stdout
    names = {line.split()[0].partition("@")[0] for line in shown.splitlines()}
    return {name for name in names if not name.startswith("ifb")}  # which the kernel may make
