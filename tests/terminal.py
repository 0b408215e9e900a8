"""A shell on a terminal of its own, typed into as a person does, Ctrl-C included."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_PROMPT: Final = re.compile(r"<exit code (\d+)>")
_CTRL_C: Final = b"\x03"
_START_LIMIT_S: Final = 20.0


class Terminal:
    """An interactive bash. One thread."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        """Start bash in ``folder``."""
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "--noediting", "-i"],
            cwd=folder,
            env={**environ, "PS1": "<exit code $?>", "PS2": "", "TERM": "dumb"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._read_to_prompt(_START_LIMIT_S)
        self.run("stty -echo; set -o pipefail", _START_LIMIT_S)

    def run(self, command: str, limit_s: float) -> tuple[int, str]:
        """Type a command, and return its exit code and what it printed, once it has ended."""
        self.type(command)
        return self._read_to_prompt(limit_s)

    def type(self, command: str) -> None:
        """Type a command that does not end by itself."""
        os.write(self._master, command.encode() + b"\n")

    def interrupt(self, limit_s: float) -> tuple[int, str]:
        """Press Ctrl-C; return the exit code, and what was printed since the command was typed."""
        os.write(self._master, _CTRL_C)
        return self._read_to_prompt(limit_s)

    def close(self) -> None:
        """Hang up, as closing a terminal's window does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._master)

    def _read_to_prompt(self, limit_s: float) -> tuple[int, str]:
        deadline = time.monotonic() + limit_s
        text = ""
        while (prompt := _PROMPT.search(text)) is None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._master], [], [], left)[0]:
                raise TimeoutError(f"no prompt within {limit_s:g} s after: {text[-4000:]}")
            text += os.read(self._master, 65_536).decode(errors="replace").replace("\r", "")
        return int(prompt[1]), text[: prompt.start()]
