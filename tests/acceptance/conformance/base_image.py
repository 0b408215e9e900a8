"""A folder laid out as AWS's base images for functions, with an entrypoint script of our own.

Source: aws-lambda-base-images: /lambda-entrypoint.sh starts the emulator when no Runtime API is
there yet, and /var/runtime/bootstrap honours AWS_LAMBDA_EXEC_WRAPPER.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Final

from tests.support import RAPID, Rapid, run_command

ENTRYPOINT: Final = """\
#!/bin/sh
# Takes the handler; starts the runtime, by the emulator unless a Runtime API is there already.
if [ $# -ne 1 ]; then
    echo "expected one argument, the handler" >&2
    exit 142
fi
export _HANDLER="$1"
if [ -z "${AWS_LAMBDA_RUNTIME_API}" ]; then
    exec @ROOT@/usr/local/bin/aws-lambda-rie @ROOT@/var/runtime/bootstrap
fi
exec @ROOT@/var/runtime/bootstrap
"""
_BOOTSTRAP: Final = """\
#!/bin/sh
# Starts the runtime interface client, by the wrapper if there is one.
set -- @PYTHON@ -m awslambdaric "$_HANDLER"
if [ -n "${AWS_LAMBDA_EXEC_WRAPPER}" ]; then
    if [ ! -f "$AWS_LAMBDA_EXEC_WRAPPER" ]; then
        echo "$AWS_LAMBDA_EXEC_WRAPPER: does not exist"
        exit 127
    fi
    if [ ! -x "$AWS_LAMBDA_EXEC_WRAPPER" ]; then
        echo "$AWS_LAMBDA_EXEC_WRAPPER: is not an executable"
        exit 126
    fi
    exec "$AWS_LAMBDA_EXEC_WRAPPER" "$@"
fi
exec "$@"
"""
#: What stands at /usr/local/bin/aws-lambda-rie.
_RIE: Final = f'#!/bin/sh\nexec {shlex.join(RAPID)} "$@"\n'
#: Makes $1 a root: what it does not hold comes from the machine, folder by folder; then runs the
#: rest in /var/task. In a mount namespace of its own, so nothing outlives it.
_ENTER: Final = r"""
set -e
root=$1
shift
graft() {  # the folder $1, and what of it $root does not hold
    mkdir -p "$root$1"
    for path in "$1"/* "$1"/.[!.]*; do
        case $path in *'*'*|*'[!'*|/proc|/old_root|/lost+found) continue;; esac
        if [ -e "$root$path" ] || [ -L "$root$path" ]; then continue; fi
        if [ -L "$path" ]; then cp -P "$path" "$root$path"
        elif [ -d "$path" ]; then mkdir "$root$path"; mount --rbind "$path" "$root$path"
        elif [ -e "$path" ]; then : > "$root$path"; mount --bind "$path" "$root$path"; fi
    done
}
graft /usr/local/bin
graft /usr/local
graft /usr
graft ""
mkdir "$root/proc"
mount --rbind /proc "$root/proc"
exec chroot "$root" /bin/sh -c 'cd /var/task && exec "$@"' sh "$@"
"""


class BaseImage:
    """The folder; ``in_namespace`` makes it the root of what runs, with the scripts' true paths."""

    def __init__(self, folder: Path, *, in_namespace: bool = False) -> None:
        """Lay out entrypoint, emulator, bootstrap and an empty task folder."""
        self.folder = folder
        self.in_namespace = in_namespace
        self.entrypoint = self._script("lambda-entrypoint.sh", ENTRYPOINT)
        self.rie = self._script("usr/local/bin/aws-lambda-rie", _RIE)
        self.bootstrap = self._script("var/runtime/bootstrap", _BOOTSTRAP)
        for empty in ("var/task", "opt"):
            (folder / empty).mkdir(parents=True)

    def add(self, path: str, text: str) -> None:
        """Add an executable at ``path``, relative to the root."""
        self._script(path, text)

    def program(self, *command: str, **environ: str) -> Rapid:
        """Return a rapid that ``command`` starts; absolute paths are the image's."""
        return _ImageRapid(self._wrapped(command), **environ)

    def _wrapped(self, command: tuple[str, ...]) -> list[str]:
        if self.in_namespace:
            own = ["unshare", "--mount", "sh", "-c", _ENTER, "sh", str(self.folder)]
            return own + list(command)
        words = [f"{self.folder}{word}" if word.startswith("/") else word for word in command]
        return ["env", "-C", str(self.folder / "var/task"), *words]

    def _script(self, path: str, text: str) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        root = "" if self.in_namespace else str(self.folder)
        file.write_text(text.replace("@ROOT@", root).replace("@PYTHON@", sys.executable))
        file.chmod(0o755)
        return file


class _ImageRapid(Rapid):
    """A rapid that is not started by its own command line."""

    def __init__(self, command: list[str], **environ: str) -> None:
        """Run ``command`` instead."""
        super().__init__(flags=(), ready=True, **environ)
        self._command = command


def why_no_namespace() -> str | None:
    """Return why this machine lets us have no mount namespace; None when it does."""
    try:
        run = run_command("unshare", "--mount", "chroot", "/", "true")
    except FileNotFoundError:
        return "no unshare on this machine"
    return None if run.returncode == 0 else f"no mount namespace here: {run.stderr.strip()}"
