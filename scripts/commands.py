"""Run a command to its end without its chatter, which is shown only when it fails."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.progress import OnWait, wait_until

_SHOWN_LINES = 15


class CommandError(Exception):
    """A command failed or took too long; the message holds the end of its output."""


def run(
    command: Sequence[str | Path],
    limit_s: float,
    on_wait: OnWait | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run ``command``, ``limit_s`` seconds at most. Raises CommandError."""
    words = [str(part) for part in command]
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
        ) as process:
            try:
                has_ended = wait_until(lambda: process.poll() is not None, limit_s, on_wait)
            finally:
                process.kill()
        if has_ended and process.returncode == 0:
            return
        output.seek(0)
        shown = output.read().decode(errors="replace").strip().splitlines()[-_SHOWN_LINES:]
    ending = f"failed with status {process.returncode}" if has_ended else "took too long"
    raise CommandError("\n".join([f"{' '.join(words)}: {ending}", *shown]))
