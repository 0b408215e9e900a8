"""Runs the tests of this folder on a real Kubernetes node: ``make node-check``.

What needs the internet (packages, programs, images) is prepared first, outside of the node.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Final

from devtools.apt import AptError, install
from devtools.commands import CommandError
from devtools.interrupts import exit_with
from devtools.progress import Step
from tests.acceptance.containers.engine import Images, NotHere
from tests.acceptance.node import machine
from tests.acceptance.node.images import build_images, storage
from tests.acceptance.node.programs import (
    CONTROL_PLANE,
    KEDA,
    NODE,
    ToolMissing,
    build_programs,
    known_programs,
)
from tests.support import ROOT

#: The story first, and its end last.
_PARTS: Final = ("story", "admission", "behaviour", "scaling", "down")
_PACKAGES: Final = {
    "containerd": "containerd",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
    "curl": "curl",
    "iproute2": "ip",
    "nftables": "nft",
    "runc": "runc",
}


def main() -> int:
    """Prepare, run pytest in private namespaces, and return its exit status."""
    # As Ctrl-C does, so that all that was made is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = cache() / f"run-{os.getpid()}"
    try:
        has_keda = _prepare()
    except (machine.NotHere, NotHere, AptError, CommandError, ToolMissing) as reason:
        loud = "!" * 78 if os.environ.get("CI") == "true" else ""
        print(f"{loud}\nNO NODE WAS STARTED: {reason}\n{loud}", file=sys.stderr)
        return 0
    folder.mkdir()
    command = [sys.executable, "-m", "pytest", "--capture=no", "--timeout=900", "-p", "no:xdist"]
    command += ["-p", "no:cacheprovider", "--quiet", "--durations=15"]
    command += [*(f"tests/acceptance/node/test_{part}.py" for part in _PARTS), *sys.argv[1:]]
    try:
        with machine.cgroup(os.getpid()) as cgroup:
            environ = {
                **os.environ,
                "NODE_FOLDER": str(folder),
                "NODE_CGROUP": cgroup,
                "NODE_HAS_KEDA": "yes" if has_keda else "",
            }
            return machine.run_enclosed(command, environ=environ, cwd=ROOT)
    finally:
        with Step("What the node left"):
            shutil.rmtree(folder)


def cache() -> Path:
    """Return the folder that outlives a run."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return home / "lambda-node"


def _prepare() -> bool:
    """Install and build what a node needs; return whether KEDA is among it.

    KEDA takes minutes to build: without the variable KEDA it is used only if it is built already.
    """
    cache().mkdir(parents=True, exist_ok=True)
    missing = [name for name, program in _PACKAGES.items() if shutil.which(program) is None]
    if missing and os.geteuid() == 0:
        install(missing, "to run a Kubernetes node")
    machine.check(cache())
    machine.remove_leftovers(cache())
    has_keda = bool(os.environ.get("KEDA")) or not known_programs().missing(KEDA)
    programs = build_programs([*CONTROL_PLANE, *NODE, *(KEDA if has_keda else ())])
    images = Images(storage())
    build_images(images, programs, has_keda=has_keda)
    return has_keda


if __name__ == "__main__":
    exit_with(main)
