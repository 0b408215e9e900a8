"""Processes that hide from the end of their environment: a real rapid, real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rapid.environment.control_groups import EnvironmentGroup
from rapid.environment.out_of_memory import OomWatch
from rapid.processes import ProcessGroup
from tests.conftest import StartRapid
from tests.support import MISBEHAVE, RAPID, is_alive, pids_of, running_now, unique_name, wait_until

CLOSED = "import ctypes, time; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); time.sleep(600)"
JOINS = "import os, time; os.setpgid(0, int(os.environ['GROUP'])); time.sleep(600)"
HOPS = """import os, sys
open(sys.argv[1], "w").write(f"{os.getpgrp()}\\n")
while True:
    if os.fork():
        os._exit(0)"""
#: As a user that may not read a closed environment block.
UNPRIVILEGED = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *RAPID)


@pytest.fixture
def mark() -> Iterator[str]:
    mark = unique_name("orphan")
    yield mark
    for pid in (*pids_of(mark), *pids_of(f"{mark}-of-first")):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("argv", "program"),
    [
        (["env", "-i", "python3", "-c", "import time; time.sleep(600)"], RAPID),
        (["env", "-i", "AWS_LAMBDA_RUNTIME_API=127.0.0.1:1", "python3", "-c", CLOSED], RAPID),
        (["python3", "-c", CLOSED], UNPRIVILEGED),
        (["env", "-i", "sh", "-c", "setsid sh -c 'sleep 600 & wait' $0 & wait"], RAPID),
    ],
    ids=["empty", "forged", "closed", "a family"],
)
@pytest.mark.parametrize("end", ["exit", "timeout"])
def test_with_one_environment_every_orphan_is_killed(
    start_rapid: StartRapid, argv: list[str], program: tuple[str, ...], end: str, mark: str
) -> None:
    if program == UNPRIVILEGED and os.getuid() != 0:
        pytest.skip("another user needs root")
    rapid = start_rapid(MISBEHAVE, AWS_LAMBDA_FUNCTION_TIMEOUT="5", program=program)
    rapid.do(do="spawn_orphan", argv=[*argv, mark])
    wait_until(lambda: pids_of(mark), "the orphan")

    answer = rapid.do(do="exit") if end == "exit" else rapid.do(do="sleep", s=60)

    assert "X-Amz-Function-Error" in answer.headers
    wait_until(lambda: not pids_of(mark), "the orphan's end")
    assert rapid.do(do="counter").json() == 1


@pytest.mark.parametrize("end", ["exit", "timeout"])
def test_an_orphan_that_forks_all_the_time_is_killed(
    start_rapid: StartRapid, tmp_path: Path, end: str
) -> None:
    file = tmp_path / "group"
    rapid = start_rapid(MISBEHAVE, AWS_LAMBDA_FUNCTION_TIMEOUT="5")
    rapid.do(do="spawn_orphan", argv=["python3", "-c", HOPS, str(file)])
    wait_until(lambda: file.exists() and file.read_text().endswith("\n"), "the orphan")
    group = int(file.read_text())
    os.killpg(group, 0)

    rapid.do(do="exit") if end == "exit" else rapid.do(do="sleep", s=60)

    wait_until(lambda: not has_members(group), "the orphan's end")
    assert rapid.do(do="counter").json() == 1


def has_members(group: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


def test_an_orphan_in_rapids_own_group_is_killed_alone(start_rapid: StartRapid, mark: str) -> None:
    rapid = start_rapid(MISBEHAVE)
    group = os.getpgid(rapid.pid)
    argv = ["env", "-i", f"GROUP={group}", "python3", "-c", JOINS, mark]
    rapid.do(do="spawn_orphan", argv=argv, session=False)
    wait_until(lambda: [pid for pid in pids_of(mark) if os.getpgid(pid) == group], "it to join")

    rapid.do(do="exit")

    wait_until(lambda: not pids_of(mark), "the orphan's end")
    assert rapid.do(do="counter").json() == 1


@pytest.mark.parametrize(
    ("argv", "session", "is_spared"),
    [
        (["env", "-i", "sh", "-c", "sleep 600; exit"], True, False),
        (["sh", "-c", "sleep 600; exit"], True, True),
        (["sh", "-c", "env -i sh -c 'sleep 600; exit' $0; exit"], True, True),
        (["env", "-i", "sh", "-c", "sleep 600; exit"], False, True),
    ],
    ids=["hidden", "with its Runtime API", "a hidden child of that", "in its group"],
)
def test_with_more_the_orphans_that_provably_are_anothers_are_spared(
    start_rapid: StartRapid, argv: list[str], session: bool, is_spared: bool, mark: str
) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_MAX_CONCURRENCY="2")
    hidden = ["env", "-i", "sh", "-c", "sleep 600; exit", of_first := f"{mark}-of-first"]
    rapid.do(do="spawn_orphan", argv=hidden)
    first = rapid.do(do="pid").json()
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(rapid.do, do="sleep", s=1)
        wait_until(lambda: running_now(rapid) == 1, "the call to run")
        orphan = rapid.do(do="spawn_orphan", argv=[*argv, mark], session=session).json()
        assert rapid.do(do="pid").json() != first
        busy.result()
    count = 1 + argv[2].count("env")  # a child of the orphan
    wait_until(lambda: len(pids_of(mark)) == count and pids_of(of_first), "the orphans")

    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not pids_of(of_first), "the end of the first's orphan")

    if is_spared:
        assert is_alive(orphan)
        assert len(pids_of(mark)) == count
        rapid.do(do="exit")
    wait_until(lambda: not pids_of(mark), "the orphan's end")


def test_a_child_that_was_there_before_rapid_lives_on(start_rapid: StartRapid, mark: str) -> None:
    sleeps = f'env -i python3 -c "import time; time.sleep(600)" {mark}'
    entrypoint = ("sh", "-c", f'{sleeps} & exec "$@"', "sh", *RAPID)
    rapid = start_rapid(MISBEHAVE, program=entrypoint)
    wait_until(lambda: pids_of(mark), "the process of the entrypoint")

    rapid.do(do="exit")
    rapid.do(do="exit")

    assert pids_of(mark)


@pytest.fixture
def cgroup_v2() -> Iterator[Path]:
    """Give a control group of version 2 of our own."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found = [line.split(" ")[4] for line in mounts if " - cgroup2 " in line]
    if not found:
        pytest.skip("no hierarchy of version 2 is mounted")
    folder = Path(found[0]) / unique_name("rapid-test")
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group of version 2 can be made here: {error}")
    yield folder
    wait_until(lambda: not (folder / "cgroup.procs").read_text(), "the processes to go")
    folder.rmdir()


def in_group(folder: Path) -> tuple[str, ...]:
    return ("sh", "-c", f'echo $$ > {folder}/cgroup.procs; exec "$@"', "sh", *RAPID)


def test_a_control_group_proves_whose_a_hidden_orphan_is(
    cgroup_v2: Path, start_rapid: StartRapid, mark: str
) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_MAX_CONCURRENCY="2", program=in_group(cgroup_v2))
    hidden = ["env", "-i", "sh", "-c", "sleep 600; exit"]
    rapid.do(do="spawn_orphan", argv=[*hidden, f"{mark}-of-first"])
    first = rapid.do(do="pid").json()
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(rapid.do, do="sleep", s=1)
        wait_until(lambda: running_now(rapid) == 1, "the call to run")
        orphan = rapid.do(do="spawn_orphan", argv=[*hidden, mark]).json()
        second = rapid.do(do="pid").json()
        busy.result()

        os.kill(first, signal.SIGKILL)
        rapid.wait_for_log("signal: killed")

        busy = pool.submit(rapid.do, do="sleep", s=1)
        wait_until(lambda: running_now(rapid) == 1, "the call to run")
        assert rapid.do(do="pid").json() not in (first, second)  # when the first has ended
        busy.result()
    assert pids_of(f"{mark}-of-first") == []
    assert is_alive(orphan)
    rapid.stop()
    assert not is_alive(orphan)
    assert [path for path in cgroup_v2.iterdir() if path.is_dir()] == []


def test_in_a_control_group_what_forks_and_leaves_its_session_all_the_time_is_killed(
    cgroup_v2: Path, start_rapid: StartRapid, mark: str
) -> None:
    if not (cgroup_v2 / "cgroup.kill").exists():
        pytest.skip("Linux before 5.14 has no cgroup.kill")
    rapid = start_rapid(MISBEHAVE, program=in_group(cgroup_v2))
    hops = "import os\nwhile True:\n    if os.fork():\n        os._exit(0)\n    os.setsid()"
    rapid.do(do="spawn_orphan", argv=["env", "-i", "python3", "-c", hops, mark])
    wait_until(lambda: pids_of(mark), "the orphan")

    rapid.do(do="exit")

    wait_until(lambda: not pids_of(mark), "the orphan's end")
    assert rapid.do(do="counter").json() == 1
    assert not [line for line in rapid.log if "orphans left" in line]
    rapid.stop()


def test_a_control_group_is_killed_whole(cgroup_v2: Path) -> None:
    if not (cgroup_v2 / "cgroup.kill").exists():
        pytest.skip("Linux before 5.14 has no cgroup.kill")
    group = EnvironmentGroup(OomWatch(None), cgroup_v2)
    with subprocess.Popen(["sh", "-c", "sleep 600 & wait"], process_group=0) as process:
        group.add(ProcessGroup(process.pid))

        group.kill()

        assert process.wait() == -signal.SIGKILL
    wait_until(lambda: not (cgroup_v2 / "cgroup.procs").read_text(), "the end of its child")
