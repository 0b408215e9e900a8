"""A plan's steps as data: what is run, what it is told, and how long it may take."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Final

_LIMIT_S: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program to run from the checkout's root."""

    argv: tuple[str, ...]
    stdin: str = field(default="", repr=False)  #: may be secret
    limit_s: float = _LIMIT_S
    retry_s: float = 0.0  #: how long it may fail, and is run again

    def __str__(self) -> str:
        """Return a line for a shell."""
        said = f" <<< {shlex.quote(self.stdin)}" if self.stdin else ""
        return shlex.join(self.argv) + said


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """A request that is made until its answer is 200."""

    url: str
    payload: str | None = None  #: posted, if there is one
    limit_s: float = _LIMIT_S

    def __str__(self) -> str:
        """Return about the same for a shell."""
        posted = f" -d {shlex.quote(self.payload)}" if self.payload is not None else ""
        return f"curl --fail --silent --show-error --max-time {self.limit_s:.0f}{posted} {self.url}"


Action = Command | HttpCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Some actions that the user sees as one."""

    title: str
    actions: tuple[Action, ...]
    result: str = "done"
