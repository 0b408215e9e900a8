"""Init-container mode: put our own executable where the Lambda's container will find it."""

from __future__ import annotations

import errno
import math
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
    """Copy this program's one file to ``target``, link it as ``rapid`` beside it; return both.

    The volume may be in memory, so the file is in it once. Each file is made under another
    name and then renamed, so no reader sees half a file. Raises ``SelfCopyError``.
    """
    source = _own_file()
    copies = [target, target.with_name(ALIAS)]
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            _copy(source, Path(folder) / target.name)
            _link(Path(folder) / target.name, Path(folder) / ALIAS)
            for copy in copies:
                (Path(folder) / copy.name).replace(copy)
    except OSError as error:
        raise SelfCopyError(_reason(source, target.parent, error)) from error
    return copies


def _copy(source: Path, copy: Path) -> None:
    """Copy a file with its mode."""
    shutil.copyfile(source, copy)
    copy.chmod(source.stat().st_mode & 0o777)


def _link(copy: Path, alias: Path) -> None:
    """Give a copy a second name; where the file system has no links, a second copy."""
    try:
        alias.hardlink_to(copy)
    except OSError:
        _copy(copy, alias)


def _reason(source: Path, folder: Path, error: OSError) -> str:
    reason = f"cannot copy {source} to {folder}: {error}"
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return reason
    wanted = math.ceil(source.stat().st_size / 2**20)
    return f"{reason}. The copy takes {wanted} MiB: raise the volume's sizeLimit"


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
