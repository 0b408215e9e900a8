"""Init-container mode: put our own executable where the Lambda's container will find it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

#: Where Kubernetes manifests mount it from. Source: the kind example's manifests.
TARGET: Final = Path("/tmp/lambda-runtime-api-daemon")  # noqa: S108 - the contract's own path
#: The second name, for images that call the daemon by its command.
ALIAS: Final = "rapid"


class SelfCopyError(Exception):
    """The executable could not be copied; the message says why."""


def copy_self(target: Path = TARGET) -> list[Path]:
    """Copy this program's one file to ``target`` and to ``rapid`` beside it; return both.

    Each is written aside and renamed, mode kept, so nobody ever sees half a file.
    Raises ``SelfCopyError``.
    """
    source = _own_file()
    copies = [target, target.with_name(ALIAS)]
    try:
        for copy in copies:
            descriptor, aside = tempfile.mkstemp(prefix=f".{copy.name}.", dir=copy.parent)
            try:
                with os.fdopen(descriptor, "wb") as out, source.open("rb") as own:
                    shutil.copyfileobj(own, out)
                    os.fchmod(out.fileno(), source.stat().st_mode & 0o777)
                Path(aside).replace(copy)
            except BaseException:
                Path(aside).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise SelfCopyError(f"cannot copy {source} to {target.parent}: {error}") from error
    return copies


def _own_file() -> Path:
    """Return the one file we are: the static executable, which knows its path, or a zipapp."""
    if getattr(sys, "frozen", False):
        return Path(sys.executable)
    program = Path(sys.argv[0])
    if program.is_file() and zipfile.is_zipfile(program):
        return program.resolve()
    raise SelfCopyError(
        "KUBERNETES_INIT_CONTAINER is set, but rapid runs from its source, which is many files; "
        "expected the static executable. Unset it, or use the lambda-runtime-api-daemon image"
    )
