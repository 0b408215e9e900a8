"""The program of the tests' own executable: pytest, over rapid's modules as they are frozen.

Linked from the same objects as rapid, with this in the place of ``rapid/__main__.py``; never
shipped. ``-c CODE`` runs code, any other words are pytest's. What is not frozen, pytest and the
tests, comes from the folders of RAPID_TESTS_PATH, the standard library's first; RAPID_TESTS_PYTHON
is what tests take for their interpreter when they start another program.
"""

import os
import sys
import types


def main() -> int:
    """Run what the command line says; return the exit code."""
    sys.path[:] = os.environ["RAPID_TESTS_PATH"].split(os.pathsep)
    # Packages that are frozen in part, as the standard library's are, find their rest below it.
    setattr(sys, "_stdlib_dir", sys.path[0])  # noqa: B010 - no attribute that typing knows
    sys.modules["encodings"].__path__ = [f"{sys.path[0]}/encodings"]
    os.environ["RAPID_INTERPRETER"] = sys.executable
    sys.executable = os.environ["RAPID_TESTS_PYTHON"]
    # psutil is in C, which a static interpreter cannot load. Unit tests start no processes: they
    # only import what would ask for them.
    psutil = types.ModuleType("psutil")
    setattr(psutil, "__getattr__", str)  # noqa: B010 - a name stands for itself
    sys.modules["psutil"] = psutil
    if sys.argv[1] == "-c":
        exec(sys.argv[2], {"__name__": "__main__"})  # noqa: S102 - as python -c
        return 0
    import pytest

    return pytest.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
