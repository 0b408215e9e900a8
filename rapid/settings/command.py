"""The runtime's command line: the words given to rapid, or a bootstrap that is found."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rapid.settings.named_handler import client_command, refuse_colon, refuse_source

#: Where a runtime is looked for when no command is given, in this order.
#: Source: aws-lambda-rie, simple_bootstrap.
BOOTSTRAPS: Final = ("var/task/bootstrap", "opt/bootstrap", "var/runtime/bootstrap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The runtime's command line and where it runs."""

    argv: tuple[str, ...]  #: empty when no bootstrap was found
    cwd: str | None  #: by its name, so that it may be made anew; None: it has none
    searched: tuple[str, ...] = ()  #: where a bootstrap was looked for
    note: str = ""  #: how a handler that was named alone is understood


def find_command(words: Sequence[str], root: Path) -> tuple[Command, str]:
    """Return the command and, when it names one, the handler. Source: aws-lambda-rie.

    A single word that is no program may be a handler. Raises ``ConfigError``.
    """
    if not words:
        for candidate in BOOTSTRAPS:
            path = root / candidate
            if path.is_file():
                return Command(argv=(str(path),), cwd=str(root / "var/task")), ""
        # AWS's message names two of the three.
        searched = tuple(str(root / candidate) for candidate in BOOTSTRAPS[:2])
        return Command(argv=(), cwd=None, searched=searched), ""
    folder, program = _working_folder(), shutil.which(words[0])
    if program is None and folder is not None:
        refuse_source(words[0], Path(folder))
        refuse_colon(words[0], Path(folder))
        found = client_command(words[0], Path(folder)) if len(words) == 1 else None
        if found is not None:
            return Command(argv=found[0], cwd=folder, note=found[1]), words[0]
    command = Command(argv=(program or words[0], *words[1:]), cwd=folder)
    return command, words[-1] if len(words) > 1 else ""


def _working_folder() -> str | None:
    """Return the folder rapid was started in; None if it has been deleted."""
    try:
        return str(Path.cwd())
    except OSError:
        return None
