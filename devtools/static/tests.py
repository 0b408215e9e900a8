"""Run the project's tests of rapid against the static executable: ``make test-binary``.

Tests that start rapid as a process start the very file that is shipped. Unit tests import rapid's
modules, for which the file has no door; they run in a second one, of the same objects.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from typing import Final

from devtools.apt import AptError
from devtools.commands import CommandError
from devtools.interrupts import exit_with
from devtools.progress import Step
from devtools.static.__main__ import RESULT, make
from devtools.static.link import link
from devtools.static.sources import SourcesError
from devtools.static.stages import CHECKOUT, HERE, Stage

_UNIT_TESTS: Final = CHECKOUT / "build" / "unit-tests"

#: In the executable of their own: they start no processes.
_UNITS: Final = ("tests/unit/protocol", "tests/unit/rapid")
#: What starts rapid: the shipped file.
_PROCESSES: Final = (
    "tests/integration/rapid",
    "tests/acceptance/static",
    "tests/acceptance/system",
    "tests/acceptance/conformance",
    "tests/acceptance/runtimes",
)


def main(argv: Sequence[str]) -> int:
    """Make the executable and test it; return pytest's exit code."""
    parser = argparse.ArgumentParser(prog="make test-binary", description=__doc__)
    parser.add_argument("--no-pgo", action="store_true", help="test one that was compiled once")
    parser.add_argument("words", nargs="*", help="what to run of it, as pytest takes it")
    options = parser.parse_args(argv)
    try:
        interpreter = make(with_pgo=not options.no_pgo)
        with Step("the unit tests' executable, freeze and link") as step:
            link(interpreter, HERE / "run_tests.py", _UNIT_TESTS, step.tick)
    except (AptError, CommandError, SourcesError) as error:
        print(error, file=sys.stderr)
        return 1
    environ = {
        **os.environ,
        "RAPID_BINARY": str(RESULT),
        "RAPID_TESTS_BINARY": str(_UNIT_TESTS),
        "RAPID_TESTS_PATH": _path(interpreter),
        "RAPID_TESTS_PYTHON": sys.executable,
    }
    # Hypothesis asks the interpreter how it was compiled, which a frozen one cannot tell.
    plugins = [f"-pno:{name}" for name in ("xdist", "cacheprovider", "hypothesispytest")]
    units = [str(_UNIT_TESTS), "--quiet", *plugins]
    processes = [sys.executable, "-m", "pytest", "--quiet", "--numprocesses=2", "--dist=worksteal"]
    if options.words:
        return _run([*processes, *options.words], environ)
    return _run([*units, *_UNITS], environ) or _run([*processes, *_PROCESSES], environ)


def _path(interpreter: Stage) -> str:
    """Return where the unit tests find what is not frozen."""
    library = interpreter.folder / "source" / "Lib"
    return os.pathsep.join([str(library), str(CHECKOUT), sysconfig.get_path("purelib")])


def _run(command: list[str], environ: dict[str, str]) -> int:
    print(f"  {' '.join(command)}", flush=True)
    return subprocess.run(command, env=environ, cwd=CHECKOUT, check=False).returncode


if __name__ == "__main__":
    exit_with(lambda: main(sys.argv[1:]))
