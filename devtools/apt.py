"""Install Debian packages, as root or through sudo, without starting the services they bring."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from devtools.commands import CommandError, run
from devtools.progress import Step

_LIMIT_S = 600.0

# A service is started by a package's scripts unless policy-rc.d says no (101). Where the machine
# has a policy of its own, that one stays.
_INSTALL = """
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\\nexit 101\\n' > "$policy"
    chmod 755 "$policy"
fi
DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
    -o DPkg::Lock::Timeout=120 "$@"
"""


class AptError(Exception):
    """The packages cannot be installed from here; the message says what to do by hand."""


def install(packages: Sequence[str], reason: str) -> None:
    """Install ``packages``; ``reason`` completes the sentence "they are needed ...".

    Raises AptError without apt-get, without the rights, or when apt-get fails.
    """
    by_hand = f"{' and '.join(packages)} needed {reason}"
    if shutil.which("apt-get") is None:
        raise AptError(f"{by_hand}: there is no apt-get here, install it by hand")
    as_root = _as_root()
    if as_root is None:
        raise AptError(f"{by_hand}: run `sudo apt-get install {' '.join(packages)}`")
    command = [*as_root, "sh", "-c", _INSTALL, "install", *packages]
    with Step(f"apt-get install {' '.join(packages)}") as step:
        try:
            try:
                run(command, _LIMIT_S, step.tick)
            except CommandError:  # no package lists here yet, or old ones
                run([*as_root, "apt-get", "update"], _LIMIT_S, step.tick)
                run(command, _LIMIT_S, step.tick)
        except CommandError as error:
            raise AptError(f"{by_hand}: {error}") from error


def _as_root() -> list[str] | None:
    """Return what to put before a command that needs root, or None if nothing helps."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        return None
    asks_nothing = subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False)
    return ["sudo", "-n"] if asks_nothing.returncode == 0 else None
