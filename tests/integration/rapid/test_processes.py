from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rapid.processes import ExitStatus, ProcessGroup, Reaper, child_pids, environ_of
from tests.support import INTERPRETER, is_alive, wait_for, wait_until

# --- exit statuses


def exited(code: int) -> int:
    return code << 8


CORE = 0x80

TEXTS = [
    (exited(0), "exit status 0"),
    (exited(1), "exit status 1"),
    (exited(127), "exit status 127"),
    (exited(255), "exit status 255"),
    (signal.SIGHUP, "signal: hangup"),
    (signal.SIGINT, "signal: interrupt"),
    (signal.SIGQUIT | CORE, "signal: quit (core dumped)"),
    (signal.SIGILL, "signal: illegal instruction"),
    (signal.SIGABRT, "signal: aborted"),
    (signal.SIGABRT | CORE, "signal: aborted (core dumped)"),
    (signal.SIGBUS, "signal: bus error"),
    (signal.SIGFPE, "signal: floating point exception"),
    (signal.SIGKILL, "signal: killed"),
    (signal.SIGSEGV, "signal: segmentation fault"),
    (signal.SIGSEGV | CORE, "signal: segmentation fault (core dumped)"),
    (signal.SIGPIPE, "signal: broken pipe"),
    (signal.SIGTERM, "signal: terminated"),
    (40, "signal: signal 40"),
]


@pytest.mark.parametrize(("wait_status", "text"), TEXTS, ids=[text for _, text in TEXTS])
def test_an_exit_status_reads_as_gos(wait_status: int, text: str) -> None:
    assert str(ExitStatus(wait_status)) == text


@pytest.mark.parametrize(
    ("wait_status", "code", "number"), [(exited(3), 3, None), (signal.SIGKILL, None, 9)]
)
def test_an_exit_status_is_a_code_or_a_signal(
    wait_status: int, code: int | None, number: int | None
) -> None:
    status = ExitStatus(wait_status)

    assert (status.code, status.signal) == (code, number)


# --- the reaper, in a process of its own: it waits for every child, pytest's included


def run_isolated(body: str) -> str:
    """Run ``body`` in a Python of its own, with a reaper and helpers; return what it printed."""
    done = subprocess.run(
        [INTERPRETER, "-c", _PREAMBLE + body],
        cwd=Path(__file__).resolve().parents[3],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


_PREAMBLE = """
import os, signal, sys, threading, time
from rapid.processes import Reaper, adopt_orphans, child_pids
from tests.support import is_alive, wait_until

reaper = Reaper()
exits = []

def spawn(*argv, on_exit=exits.append, environ=None, cwd=None):
    return reaper.spawn(argv, environ=os.environ if environ is None else environ, cwd=cwd,
                        stdout=1, stderr=2, on_exit=on_exit)

def reaped():
    reaper.reap()
    return bool(exits)
"""


def test_each_exit_is_told_to_whom_it_belongs_once_as_it_was() -> None:
    printed = run_isolated(
        """
told = {}
def on_exit(number):
    return lambda status: told.setdefault(number, []).append(str(status))
for number in range(40):
    spawn('/bin/sh', '-c', f'exit {number}', on_exit=on_exit(number))
spawn('/bin/sh', '-c', 'kill -TERM $$', on_exit=on_exit('terminated'))
wait_until(lambda: reaper.reap() or len(told) == 41, 'exits')
reaper.reap()
print(all(told[number] == [f'exit status {number}'] for number in range(40)), told['terminated'])
"""
    )

    assert printed == "True ['signal: terminated']"


def test_an_exit_handler_that_fails_does_not_keep_the_others_from_hearing() -> None:
    printed = run_isolated(
        """
reaper.reap()  # there is no child yet
def fail(status):
    raise ZeroDivisionError
spawn('/bin/true', on_exit=fail)
spawn('/bin/true')
wait_until(reaped, 'exit')
print(*exits)
"""
    )

    assert printed == "exit status 0"


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["/nonexistent/program"], "FileNotFoundError"),
        (["./setup.cfg"], "PermissionError"),
        (["/tmp"], "PermissionError"),
    ],
)
def test_a_program_that_cannot_be_started_raises_and_tells_no_exit(
    argv: list[str], error: str
) -> None:
    printed = run_isolated(
        f"""
try:
    spawn(*{argv!r})
except OSError as failure:
    print(type(failure).__name__, end=' ')
reaper.reap()
print(exits)
"""
    )

    assert printed == f"{error} []"


def test_a_group_is_led_by_its_process_and_killed_whole() -> None:
    printed = run_isolated(
        """
group = spawn('/bin/sh', '-c', 'sleep 60 & sleep 60 & wait')
wait_until(lambda: len(child_pids(group.pid)) == 2, 'children')
children = child_pids(group.pid)
print(os.getpgid(group.pid) == group.pid, {os.getpgid(pid) for pid in children} == {group.pid})
group.signal(signal.SIGKILL)
wait_until(reaped, 'exit')
wait_until(lambda: not any(map(is_alive, children)), 'death of the children')
group.signal(signal.SIGKILL)
"""
    )

    assert printed == "True True"


def test_orphans_are_adopted_and_reaped() -> None:
    printed = run_isolated(
        """
adopt_orphans()
group = spawn('/bin/sh', '-c', 'setsid sleep 60 & exit 0')
wait_until(reaped, 'exit')
wait_until(lambda: list(reaper.orphans()), 'an orphan')
(orphan,) = reaper.orphans()
os.kill(orphan, signal.SIGKILL)
wait_until(lambda: reaper.reap() or not list(reaper.orphans()), 'its end')
print(len(exits), os.path.exists(f'/proc/{orphan}'))
"""
    )

    assert printed == "1 False"


def test_a_running_child_of_ours_is_no_orphan() -> None:
    printed = run_isolated(
        """
adopt_orphans()
group = spawn('/bin/sleep', '60')
print(list(reaper.orphans()))
group.signal(signal.SIGKILL)
"""
    )

    assert printed == "[]"


def test_a_child_has_no_signal_blocked_and_only_the_standard_descriptors() -> None:
    printed = run_isolated(
        """
reader, writer = os.pipe()
os.set_inheritable(writer, True)
spawn('/bin/sh', '-c', 'grep SigBlk /proc/self/status; readlink /proc/self/fd/0; ls /proc/self/fd')
wait_until(reaped, 'exit')
"""
    )

    blocked, stdin, *descriptors = printed.split("\n")
    assert blocked.split() == ["SigBlk:", "0000000000000000"]
    assert stdin == "/dev/null"
    assert descriptors == ["0", "1", "2", "3"]  # the fourth is ls's own, of the folder


def test_peak_memory_is_that_of_the_whole_family() -> None:
    printed = run_isolated(
        """
hog = "x = b'x' * 40_000_000; import time; time.sleep(60)"
group = spawn('/bin/sh', '-c', f'{sys.executable} -c "{hog}" & {sys.executable} -c "{hog}" & wait')
wait_until(lambda: group.peak_memory_bytes() > 80_000_000, 'the memory to be seen')
group.signal(signal.SIGKILL)
print('seen')
"""
    )

    assert printed == "seen"


def test_the_exit_tells_the_peak_memory() -> None:
    printed = run_isolated(
        """
spawn(sys.executable, '-c', "x = b'x' * 60_000_000")
wait_until(reaped, 'exit')
print(60_000_000 < exits[0].peak_memory_bytes < 300_000_000)
"""
    )

    assert printed == "True"


# --- what /proc tells


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["/bin/sleep", "60"], env={"MARK": "seen"})
    yield process
    process.kill()
    process.wait()


def test_children_of_any_thread_are_found() -> None:
    found: list[int] = []

    def start() -> None:
        process = subprocess.Popen(["/bin/sleep", "60"])
        found.append(process.pid)
        done.wait(20)
        process.kill()
        process.wait()

    done = threading.Event()
    thread = threading.Thread(target=start)
    thread.start()
    pid = wait_for(lambda: found[0] if found else None, "the process")

    assert pid in child_pids(os.getpid())
    done.set()
    thread.join()


def test_no_child_is_overlooked_while_another_is_reaped() -> None:
    def sleep() -> subprocess.Popen[bytes]:
        return subprocess.Popen(["/bin/sleep", "60"])

    older, younger = sleep(), sleep()
    overlooked = 0
    for _ in range(600):
        older.kill()
        reaping = threading.Thread(target=older.wait)
        reaping.start()
        while reaping.is_alive():
            overlooked += younger.pid not in child_pids(os.getpid())
        older, younger = younger, sleep()
    for process in (older, younger):
        process.kill()
        process.wait()

    assert overlooked == 0


def test_the_environment_of_a_process_is_read(sleeper: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: b"MARK=seen" in environ_of(sleeper.pid), "its exec")

    assert environ_of(sleeper.pid) == b"MARK=seen\0"


def test_the_environment_is_read_of_a_process_that_is_within_execve() -> None:
    program = 'exec /bin/sh -c "$0" "$0"'
    with subprocess.Popen(["/bin/sh", "-c", program, program], env={"MARK": "seen"}) as process:
        wait_until(lambda: b"MARK=seen" in environ_of(process.pid), "its first execve")
        blocks = {b"MARK=seen" in environ_of(process.pid) for _ in range(3000)}
        process.kill()

    assert blocks == {True}


def test_the_environment_of_a_zombie_is_empty() -> None:
    process = subprocess.Popen(["/bin/true"])
    wait_until(lambda: not is_alive(process.pid), "its end")

    assert environ_of(process.pid) == b""
    process.wait()


def test_what_cannot_be_read_is_empty() -> None:
    assert (child_pids(2**22 + 1), environ_of(2**22 + 1)) == ([], b"")


def test_a_signal_to_a_group_that_is_gone_is_nothing() -> None:
    process = subprocess.Popen(["/bin/true"], process_group=0)
    process.wait()
    wait_until(lambda: not is_alive(process.pid), "its end")

    ProcessGroup(process.pid).signal(signal.SIGTERM)


def test_a_child_that_was_there_before_the_reaper_is_no_orphan(
    sleeper: subprocess.Popen[bytes],
) -> None:
    reaper = Reaper()

    assert sleeper.pid not in list(reaper.orphans())
    assert reaper.has_inherited


def test_a_hidden_environment_is_no_other_processs_of_our_user() -> None:
    code = (
        "import os, ctypes; from rapid.processes import hide_environment; hide_environment(); "
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "0\n"
