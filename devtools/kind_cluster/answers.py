"""Ask a tool something: commands that are over soon and change nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from devtools.commands import CommandError
from devtools.kind_cluster.names import CHECKOUT

_LIMIT_S: Final = 30.0
_SHOWN_LINES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a command ended. What it printed may hold secrets."""

    status: int
    out: str = field(repr=False)
    error: str = field(repr=False)


def ask(command: Sequence[str], limit_s: float = _LIMIT_S) -> Answer:
    """Run ``command``; raises CommandError if that cannot be, or takes too long."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=False,
            cwd=CHECKOUT,
        )
    except FileNotFoundError as error:
        raise CommandError(f"{command[0]} is not installed, or not on PATH") from error
    except OSError as error:
        raise CommandError(f"{command[0]} cannot be run: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{' '.join(command)}: no answer within {limit_s:.0f} s") from error
    return Answer(status=done.returncode, out=done.stdout, error=done.stderr)


def read(command: Sequence[str], limit_s: float = _LIMIT_S) -> str:
    """Return what ``command`` prints; raises CommandError if it fails, with what it said."""
    answer = ask(command, limit_s)
    if answer.status != 0:
        said = answer.error.strip().splitlines()[-_SHOWN_LINES:]
        failed = f"{' '.join(command)}: failed with status {answer.status}"
        raise CommandError("\n".join([failed, *said]))
    return answer.out
