"""Another Debian release in a folder, made by debootstrap, whose programs run here by wrappers.

So tests meet versions that this machine does not have. Roots are kept in the user's cache.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devtools.apt import AptError, install
from devtools.commands import CommandError, run
from devtools.kustomize import cache
from devtools.progress import OnWait, Step
from devtools.static.sources import SourcesError, archive

_LIMIT_S: Final = 900.0

#: debootstrap's steps for every release of now; it may be older than the name of the newest.
_SCRIPT: Final = Path("/usr/share/debootstrap/scripts/sid")
#: Enters a root in a mount namespace of its own, which ends with the program. The program keeps the
#: process id, the environment and the current folder, and meets this machine's network, processes,
#: temporary files and home folder.
_WRAPPER: Final = """\
#!/bin/sh
exec unshare --mount sh -c '
    set -e
    root=$1
    program=$2
    shift 2
    for path in /proc /dev /sys /tmp /etc/ssl {cache} "$HOME" "$PWD"; do
        if [ -d "$path" ] && [ "$path" != / ]; then
            mkdir -p "$root$path"
            mount --rbind "$path" "$root$path"
        fi
    done
    for path in /etc/resolv.conf /etc/hosts; do
        if [ -f "$path" ]; then
            [ -e "$root$path" ] || touch "$root$path"
            mount --bind "$path" "$root$path"
        fi
    done
    exec chroot "$root" /usr/bin/env --chdir="$PWD" "$program" "$@"
' sh {root} {program} "$@"
"""
#: Installs packages in a root; no service is started.
_INSTALL: Final = """\
printf '#!/bin/sh\\nexit 101\\n' > "$1/usr/sbin/policy-rc.d"
chmod 755 "$1/usr/sbin/policy-rc.d"
cp /etc/resolv.conf "$1/etc/resolv.conf"
mount --rbind /proc "$1/proc"
mount --rbind /dev "$1/dev"
root=$1
shift
DEBIAN_FRONTEND=noninteractive exec chroot "$root" apt-get --quiet install --yes \\
    --no-install-recommends -o Dpkg::Options::=--force-unsafe-io "$@"
"""


class RootError(Exception):
    """The root cannot be made on this machine; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianRoot:
    """One release with some packages."""

    release: str
    packages: Sequence[str]
    programs: Mapping[str, str]  #: name of the wrapper → path of the program in the root

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return cache() / f"debian-{self.release}"

    def program(self, name: str) -> Path:
        """Return the wrapper of a program."""
        return self.folder / "bin" / name

    def wrap(self, name: str, program: str | Path) -> Path:
        """Write the wrapper ``name`` of a program, and return it."""
        wrapper = self.program(name)
        wrapper.parent.mkdir(exist_ok=True)
        places = {"root": self.folder / "root", "program": program, "cache": cache()}
        quoted = {key: shlex.quote(str(place)) for key, place in places.items()}
        wrapper.write_text(_WRAPPER.format(**quoted))
        wrapper.chmod(0o755)
        return wrapper

    def make(self) -> None:
        """Make it, unless it is there with these packages. Raises RootError."""
        stamp = self.folder / "packages"
        wanted = " ".join(self.packages)
        if not (stamp.exists() and stamp.read_text() == wanted):
            self._make_root()
            stamp.write_text(wanted)
        for name, program in self.programs.items():
            self.wrap(name, program)

    def _make_root(self) -> None:
        if os.geteuid() != 0:
            raise RootError("debootstrap needs root")
        shutil.rmtree(self.folder, ignore_errors=True)
        root = self.folder / "root"
        root.mkdir(parents=True)
        try:
            if shutil.which("debootstrap") is None:
                install(["debootstrap"], f"to make a root of Debian {self.release}")
            with Step(f"Debian {self.release}, by debootstrap") as step:
                self._debootstrap(root, step.tick)
        except (AptError, CommandError, SourcesError) as error:
            raise RootError(str(error)) from error

    def _debootstrap(self, root: Path, on_wait: OnWait) -> None:
        mirror = f"{archive()}debian"
        command = ("debootstrap", "--variant=minbase", self.release, root, mirror, _SCRIPT)
        run(command, _LIMIT_S, on_wait)
        # apt, unlike debootstrap, knows packages that others provide.
        enter = ("unshare", "--mount", "sh", "-ec", _INSTALL, "sh")
        run([*enter, root, *self.packages], _LIMIT_S, on_wait)
