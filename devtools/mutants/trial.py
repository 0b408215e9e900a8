"""Run a mutant in a copy of the tree, against the tests that run its line."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from devtools.mutants.measure import ROOT
from devtools.mutants.source import Mutant

#: A test that takes longer hangs, seconds; and so does a run that takes so much longer than its
#: tests took, each of which may take three times as long on a busy machine.
_TEST_LIMIT_S: Final = 20
_RUN_LIMIT_S: Final = 60.0
_SLOWER: Final = 3
_ATTEMPTS: Final = 3
#: Exit statuses of pytest: all passed, and no test left to run.
_PASSED: Final = (0, 5)
#: Found in the environment of all that a trial started; tests hand on what begins like this.
_MARK: Final = "COVERAGE_MUTANT"


class Tree:
    """A copy of the files of the repository. One thread at a time."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        """Copy into ``folder``; ``environ`` is what tests find there beside our own."""
        self._folder = folder
        self._environ = {**os.environ, **environ}
        # A file's time tells Python whether its compiled form is current; no two are the same.
        self._times = itertools.count(int(time.time()) + 60, 2)
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.check_output(listed, cwd=ROOT, text=True).split("\0"):
            if name and (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
        (folder / ".venv").symlink_to(ROOT / ".venv")

    def kills(self, mutant: Mutant, tests: Sequence[str], seconds: float) -> bool:
        """Return whether a test fails with the mutant, twice: once may be an accident.

        Without the mutant the tests take ``seconds``.
        """
        path = self._folder / Path(*mutant.module.split(".")).with_suffix(".py")
        source = path.read_bytes()
        self._write(path, mutant.apply(source))
        try:
            return self._fail_again_and_again(tests, _RUN_LIMIT_S + _SLOWER * seconds)
        finally:
            self._write(path, source)

    def _fail_again_and_again(self, tests: Sequence[str], limit_s: float) -> bool:
        names = self._folder / "tests-of-mutant"
        names.write_text("".join(f"{test}\n" for test in tests))
        for _ in range(_ATTEMPTS):
            shutil.rmtree(self._folder / ".pytest_cache", ignore_errors=True)
            if self._pytest(limit_s, "--exitfirst", f"@{names}"):
                return False
            again = ("--last-failed", "--last-failed-no-failures=all")
            if not self._pytest(limit_s, *again, f"@{names}"):
                return True
        return False

    def _pytest(self, limit_s: float, *arguments: str) -> bool:
        """Return whether all tests passed, within the limit; leave no process."""
        mark = uuid.uuid4().hex
        command = [sys.executable, "-m", "pytest", "--quiet", "--tb=no", "--no-header"]
        command += [f"--timeout={_TEST_LIMIT_S}", *arguments]
        process = subprocess.Popen(
            command,
            cwd=self._folder,
            env={**self._environ, _MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(limit_s) in _PASSED
        except subprocess.TimeoutExpired:
            return False
        finally:
            while pids := _marked(mark):
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)

    def _write(self, path: Path, source: bytes) -> None:
        path.write_bytes(source)
        now = next(self._times)
        os.utime(path, (now, now))


def _marked(mark: str) -> list[int]:
    """Return the processes with ``mark`` in their environment."""
    found = []
    wanted = f"{_MARK}={mark}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes():
                found.append(int(path.parent.name))
    return found
