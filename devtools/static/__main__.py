"""Make ``dist/lambda-runtime-api-daemon``: rapid as one static executable.

Everything that is slow to make is kept outside the checkout and made again only when what goes into
it changes, so that after a change of rapid's code the executable is there in seconds.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from devtools.apt import AptError, install
from devtools.commands import CommandError
from devtools.interrupts import exit_with
from devtools.progress import Step
from devtools.static.link import link
from devtools.static.sources import RELEASE, SourcesError, fetch
from devtools.static.stages import CHECKOUT, HERE, Stage

RESULT: Final = CHECKOUT / "dist" / "lambda-runtime-api-daemon"

#: Program → the Debian package that brings it.
_TOOLS: Final = {
    "apt-get": "apt",
    "dpkg-source": "dpkg-dev",
    "gcc": "gcc",
    "make": "make",
    "patch": "patch",
    "perl": "perl",
    "strip": "binutils",
    "xz": "xz-utils",
}
_KEPT: Final = "kept from before"
_KERNEL_HEADERS: Final = Path("/usr/include/linux/prctl.h")


def main(argv: Sequence[str]) -> int:
    """Make the executable; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/build-rapid", description=__doc__)
    parser.add_argument(
        "--no-pgo", action="store_true", help="compile once: quicker to make, slower to run"
    )
    parser.add_argument("--update", action="store_true", help="ask the archive for newer sources")
    options = parser.parse_args(argv)
    try:
        make(with_pgo=not options.no_pgo, update=options.update)
    except (AptError, CommandError, SourcesError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def make(*, with_pgo: bool, update: bool = False) -> Stage:
    """Make the executable; return the interpreter in it.

    Raises ``AptError``, ``SourcesError`` or ``CommandError``.
    """
    need_tools()
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one build at a time; another finds what this one made
        interpreter = build_interpreter(cache, with_pgo=with_pgo, update=update)
    with Step(f"{RESULT.relative_to(CHECKOUT)}, freeze and link") as step:
        link(interpreter, CHECKOUT / "rapid" / "__main__.py", RESULT, step.tick)
        step.result(f"{RESULT.stat().st_size / 1e6:.1f} MB")
    return interpreter


def cache_folder() -> Path:
    """Return where the parts are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lambda-static"


def need_tools() -> None:
    """Install what is missing; raises ``AptError`` with one line."""
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    if not _KERNEL_HEADERS.exists():
        missing.append("linux-libc-dev")
    if missing:
        install(missing, "to build rapid as one file")


def build_interpreter(cache: Path, *, with_pgo: bool, update: bool = False) -> Stage:
    """Return the stage of the interpreter, which is built. Raises ``CommandError``."""
    sources = cache / "sources"
    with Step(f"sources, from Debian {RELEASE}") as step:
        if update or not sources.exists():
            notes = fetch(sources, step.tick)
        else:
            notes = []
            step.result(_KEPT)
    for note in notes:
        print(f"  {note}")

    stage = functools.partial(Stage, cache=cache, sources=sources)
    musl = stage(name="musl", package="musl")
    zlib = stage(name="zlib", package="zlib", needs=(musl,))
    openssl = stage(name="openssl", package="openssl", needs=(musl,))
    python = stage(
        name="python",
        package="python3.13",
        needs=(musl, zlib, openssl),
        settings={"PGO": "1" if with_pgo else "0"},
        inputs=(HERE / "training.py",) if with_pgo else (),
    )
    for part in (musl, zlib, openssl, python):
        label = f"{part.name}, compiled twice for PGO" if part is python and with_pgo else part.name
        with Step(label) as step:
            if part.is_built():
                step.result(_KEPT)
            else:
                part.build(step.tick)
    return python


if __name__ == "__main__":
    exit_with(lambda: main(sys.argv[1:]))
