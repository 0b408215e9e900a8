"""Freeze a program and link it with the interpreter into one file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

from devtools.commands import run
from devtools.progress import OnWait
from devtools.static.stages import CHECKOUT, HERE, Stage

_LIMIT_S: Final = 300.0


def link(interpreter: Stage, main: Path, result: Path, on_wait: OnWait) -> None:
    """Make ``result`` of the program ``main`` and all that it imports.

    It is written aside and renamed: what runs from the old file goes on. Raises ``CommandError``.
    """
    with tempfile.TemporaryDirectory(dir=interpreter.cache, prefix="link-") as work:
        variables = {
            "CHECKOUT": str(CHECKOUT),
            "HERE": str(HERE),
            "MAIN": str(main),
            "PYTHON": str(interpreter.folder),
            "WORK": work,
        }
        environ = {**interpreter.environ(), **variables}
        run(["sh", HERE / "link.sh"], _LIMIT_S, on_wait, env=environ)
        result.parent.mkdir(parents=True, exist_ok=True)
        aside = result.with_name(f".{result.name}")
        shutil.copy(Path(work) / "program", aside)
        aside.chmod(0o755)
        aside.replace(result)
