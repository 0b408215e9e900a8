"""Child processes: started in groups of their own, signalled as groups, reaped in one place."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import resource  # os.wait4 imports it, and must not have to where no descriptor is left
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

#: Go's names for signals, which AWS's error messages use. Source: recorded answers of Lambda.
_SIGNAL_NAMES: Final = {
    signal.SIGHUP: "hangup",
    signal.SIGINT: "interrupt",
    signal.SIGQUIT: "quit",
    signal.SIGILL: "illegal instruction",
    signal.SIGTRAP: "trace/breakpoint trap",
    signal.SIGABRT: "aborted",
    signal.SIGBUS: "bus error",
    signal.SIGFPE: "floating point exception",
    signal.SIGKILL: "killed",
    signal.SIGUSR1: "user defined signal 1",
    signal.SIGSEGV: "segmentation fault",
    signal.SIGUSR2: "user defined signal 2",
    signal.SIGPIPE: "broken pipe",
    signal.SIGALRM: "alarm clock",
    signal.SIGTERM: "terminated",
}


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended, as ``wait4`` told it."""

    wait_status: int
    peak_memory_bytes: int = 0

    @property
    def signal(self) -> int | None:
        """The signal that killed it, or None."""
        return os.WTERMSIG(self.wait_status) if os.WIFSIGNALED(self.wait_status) else None

    @property
    def code(self) -> int | None:
        """The exit code, or None when a signal killed it."""
        return os.WEXITSTATUS(self.wait_status) if os.WIFEXITED(self.wait_status) else None

    def __str__(self) -> str:
        """Return Go's text: ``exit status 1``, ``signal: killed``."""
        number = self.signal
        if number is None:
            return f"exit status {self.code}"
        try:
            name = _SIGNAL_NAMES[signal.Signals(number)]
        except (ValueError, KeyError):
            name = f"signal {number}"
        core = " (core dumped)" if os.WCOREDUMP(self.wait_status) else ""
        return f"signal: {name}{core}"


OnExit = Callable[[ExitStatus], None]


class Reaper:
    """The only caller of ``wait`` in rapid: a second one would see exits as successes.

    Thread-safe.
    """

    def __init__(self, descriptor_limit: int | None = None) -> None:
        """Know no children but those that the program before us left, as an entrypoint does.

        Children inherit ``descriptor_limit`` as their soft limit of open files, not ours:
        ``select`` fails for descriptors over 1,024.
        """
        self._descriptor_limit = descriptor_limit
        self._lock = threading.Lock()
        # guarded by _lock:
        self._on_exit: dict[int, OnExit] = {}  # by pid
        self._owners: dict[int, str] = {}  # by pid
        self._inherited = set(child_pids(os.getpid()))

    def spawn(
        self,
        argv: Sequence[str],
        *,
        environ: Mapping[str, str],
        cwd: str | None,
        stdout: int,
        stderr: int,
        on_exit: OnExit,
        owner: str = "",
        pass_fds: Sequence[int] = (),
    ) -> ProcessGroup:
        """Start ``argv`` as the leader of a new process group; raises ``OSError``.

        ``owner`` is the Runtime API of its environment.
        ``pass_fds`` are descriptors it inherits under their own numbers.
        ``on_exit`` runs once, in the reaping thread, without any lock of ours held.
        """
        with self._lock:  # so that the exit cannot be reaped before it can be told
            with inherited_descriptor_limit(self._descriptor_limit) as limit_process:
                process = subprocess.Popen(  # noqa: S603 - running the user's command is the job
                    argv,
                    env=dict(environ),
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    pass_fds=pass_fds,
                    process_group=0,
                )
                limit_process(process.pid)
            process.returncode = 0  # tells subprocess that nobody has to wait for it
            self._on_exit[process.pid] = on_exit
            self._owners[process.pid] = owner
        return ProcessGroup(process.pid)

    def reap(self) -> None:
        """Collect every child that has ended, orphans we inherited included; never blocks."""
        while True:
            with self._lock:
                try:
                    pid, wait_status, usage = os.wait4(-1, os.WNOHANG)
                except ChildProcessError:
                    return
                if pid == 0:
                    return
                on_exit = self._on_exit.pop(pid, None)
                self._owners.pop(pid, None)
                self._inherited.discard(pid)
            if on_exit is None:
                logger.debug("orphan reaped", extra={"pid": pid})
                continue
            try:
                on_exit(ExitStatus(wait_status, usage.ru_maxrss * 1024))
            except Exception:
                logger.exception("exit of a process mishandled", extra={"pid": pid})

    def kill_all(self) -> int:
        """Kill the group of every child that has not been reaped; return how many there were."""
        with self._lock:
            left = list(self._on_exit)
        for pid in left:
            ProcessGroup(pid).signal(signal.SIGKILL)
        return len(left)

    def owners(self) -> dict[int, str]:
        """Return the owner of each process that we started and that has not been reaped."""
        with self._lock:
            return dict(self._owners)

    @property
    def has_inherited(self) -> bool:
        """Whether a child lives that was there before us."""
        with self._lock:
            return bool(self._inherited)

    def orphans(self, is_spared: Callable[[int], bool] = lambda pid: False) -> Iterator[int]:
        """Yield our children that we did not start, each with all that descends from it.

        They left their group, and came to us when their parent died. A process for which
        ``is_spared`` holds is left out, with its descendants.
        """
        for pid in child_pids(os.getpid()):
            with self._lock:
                is_known = pid in self._on_exit or pid in self._inherited
            if not is_known:
                yield from _tree(pid, is_spared)


@contextlib.contextmanager
def inherited_descriptor_limit(soft: int | None) -> Iterator[Callable[[int], None]]:
    """Have a process that is started meanwhile inherit ``soft`` as its limit of open files.

    Our own limit is that low for the moment. If more is open than that allows for, a pipe for the
    start could not be opened, so the limit is set right after the start: call what is given with
    the process id. Source: getrlimit(2), prlimit.
    """
    ours, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft is None or soft == ours:
        yield _ignore
        return
    lowest_free = os.dup(0)
    os.close(lowest_free)
    if lowest_free + _START_DESCRIPTORS > soft:

        def limit_process(pid: int) -> None:
            with contextlib.suppress(OSError):  # it has ended, or is another user's by now
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))

        yield limit_process
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        yield _ignore
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (ours, hard))


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """A process and whatever it started without leaving the group."""

    pid: int

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, if any of it is left."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def pids(self) -> Iterator[int]:
        """Yield the process and its descendants, each before its own children are looked for."""
        yield from _tree(self.pid)

    def peak_memory_bytes(self) -> int:
        """Return the peak resident memory of the process and its descendants, summed."""
        return sum(map(_peak_memory_bytes, self.pids()))


def adopt_orphans() -> None:
    """Let orphans of our children come to us, not to init, when we are not PID 1 ourselves.

    Source: prctl(2), PR_SET_CHILD_SUBREAPER.
    """
    if os.getpid() != 1:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def hide_environment() -> None:
    """Keep our ``/proc/PID/environ`` from other processes of our user: a password may be in it.

    Root still reads it. Source: prctl(2), PR_SET_DUMPABLE.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def child_pids(pid: int) -> list[int]:
    """Return the direct children of ``pid``, of all its threads; empty when there is no /proc.

    The kernel skips a child when one that it has shown is reaped under the reader, so what two
    reads agree on is whole. Source: proc_pid_task_tid_children(5).
    """
    children = _read_children(pid)
    for _ in range(_READS):
        before, children = children, _read_children(pid)
        if children == before:
            break
    return children


#: How often a file of the kernel's is read for an answer that holds, and the pause for execve.
_READS: Final = 20
_EXECVE_S: Final = 0.001


def environ_of(pid: int, *, reads: int = _READS) -> bytes:
    """Return the environment block a process was started with; empty when it cannot be read.

    It has none for a moment within execve, and none for good as a zombie.
    """
    for read in range(reads):
        if read:
            time.sleep(_EXECVE_S)
        try:
            block = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return b""
        if block or _is_zombie(pid):
            return block
    return b""


#: How many descriptors a start needs, and connections may take meanwhile.
_START_DESCRIPTORS: Final = 64

_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36


def _ignore(_pid: int) -> None:
    """Do nothing: the process has the right limit."""


def _prctl(option: int, value: int) -> None:
    try:
        if "_prctl" in sys.builtin_module_names:  # the static executable, which has no ctypes
            importlib.import_module("_prctl").prctl(option, value)
        else:
            import ctypes

            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        logger.warning("prctl cannot be called here", extra={"option": option})


def _tree(pid: int, is_spared: Callable[[int], bool] = lambda pid: False) -> Iterator[int]:
    if is_spared(pid):
        return
    yield pid
    for child in _read_children(pid):
        yield from _tree(child, is_spared)


def _read_children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/task") as tasks:
        for task in tasks:
            children += map(int, _read_proc(f"{task.path}/children").split())
    return children


def _is_zombie(pid: int) -> bool:
    return b"\nState:\tZ" in _read_proc(f"/proc/{pid}/status")


def _peak_memory_bytes(pid: int) -> int:
    _, _, rest = _read_proc(f"/proc/{pid}/status").partition(b"\nVmHWM:")
    return int(rest.split(None, 1)[0]) * 1024 if rest else 0


def _read_proc(path: str) -> bytes:
    """Return a small file of the kernel's, or nothing; a third of the time ``Path`` takes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 65_536)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
