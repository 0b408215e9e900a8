"""Run a command to its end without its chatter, which is shown only when it fails."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from devtools.progress import OnWait, wait_until

_SHOWN_LINES = 15


class CommandError(Exception):
    """A command failed or took too long; the message holds the end of its output."""


def run(
    command: Sequence[str | Path],
    limit_s: float,
    on_wait: OnWait | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str = "",
) -> None:
    """Run ``command``, ``limit_s`` seconds at most. Raises CommandError.

    ``stdin`` is what the command reads there; a page or two, as a pipe takes it at once.
    """
    words = [str(part) for part in command]
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
        ) as process:
            try:
                _feed(process, stdin)
                has_ended = wait_until(lambda: process.poll() is not None, limit_s, on_wait)
            finally:
                process.kill()
        if has_ended and process.returncode == 0:
            return
        output.seek(0)
        shown = output.read().decode(errors="replace").strip().splitlines()[-_SHOWN_LINES:]
    ending = f"failed with status {process.returncode}" if has_ended else "took too long"
    raise CommandError("\n".join([f"{' '.join(words)}: {ending}", *shown]))


def _feed(process: subprocess.Popen[bytes], text: str) -> None:
    """Write ``text`` to the standard input of a process, and end it there."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it reads nothing, or has ended already
        process.stdin.write(text.encode())
        process.stdin.flush()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
