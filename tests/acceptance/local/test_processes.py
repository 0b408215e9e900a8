from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtools.processes import BackgroundProcess
from devtools.progress import wait_until

Start = Callable[[str], BackgroundProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Give a function that runs Python code and waits until it has printed ``ready``."""
    started: list[BackgroundProcess] = []

    def run(code: str) -> BackgroundProcess:
        log = tmp_path / "log"
        command = [sys.executable, "-c", f"import os, signal, subprocess, time\n{code}"]
        process = BackgroundProcess.spawn(command, env=dict(os.environ), cwd=tmp_path, log=log)
        started.append(process)
        assert wait_until(lambda: b"ready" in log.read_bytes(), 10)
        return process

    yield run
    for process in started:
        process.kill()


def test_a_record_finds_the_process_again(start: Start) -> None:
    process = start("print('ready', flush=True); signal.pause()")

    again = BackgroundProcess.from_record(process.to_record())
    assert again.is_alive()
    again.stop(5)

    assert not process.is_alive()


def test_a_process_that_was_given_the_pid_of_a_dead_one_is_left_alone(start: Start) -> None:
    process = start("print('ready', flush=True); signal.pause()")
    stale = BackgroundProcess(pid=process.pid, started=process.started - 1)

    stale.stop(0.2)
    stale.kill()

    assert not stale.is_alive()
    assert process.is_alive()


@pytest.mark.parametrize(
    ("how", "is_killed"),
    [
        pytest.param("start_new_session=False", False, id="same session"),
        pytest.param("start_new_session=True", False, id="session of its own"),
        pytest.param("process_group=0", True, id="orphan"),
    ],
)
def test_stop_ends_a_deaf_process_and_what_it_had_started(
    start: Start, tmp_path: Path, how: str, is_killed: bool
) -> None:
    child = f"sleep 600 # {tmp_path}"
    process = start(
        f"subprocess.Popen(['sh', '-c', {child!r}], {how})\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)\n"
        "while True: signal.pause()"
    )
    if is_killed:
        os.kill(process.pid, signal.SIGKILL)
        assert wait_until(lambda: not process.is_alive(), 5)
    assert len(_running(child)) == 1

    process.stop(0.5)

    assert not process.is_alive()
    assert _running(child) == []


def _running(command: str) -> list[str]:
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True
    )
    return [line for line in listed.stdout.splitlines() if line == f"sh -c {command}"]
