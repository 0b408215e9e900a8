"""Make the virtual environment of this checkout, with the project installed editable.

Called by make, with the Python that the environment is to be made from, when a stamp file in
it is older than setup.cfg: ``python3 -m devtools.venv runtime`` or ``... dev``.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from devtools.apt import AptError, install
from devtools.commands import CommandError, run
from devtools.interrupts import exit_with
from devtools.progress import Step

_ENVIRONMENT = Path(".venv")
_PYTHON = _ENVIRONMENT / "bin" / "python"
_LIMIT_S = 900.0  # a slow network; pip has its own limits for one that is gone

#: What pip installs for each stamp file, and which stamps it satisfies.
_TARGETS = {
    "runtime": (".[cluster,local]", ["runtime"]),
    "dev": (".[cluster,dev,examples,local]", ["runtime", "dev"]),
}


def main(target: str) -> int:
    """Bring the environment up to date for ``target``; return the exit status."""
    requirement, stamps = _TARGETS[target]
    label = (
        f"Python {sys.version_info.major}.{sys.version_info.minor} environment in {_ENVIRONMENT}"
    )
    try:
        _need_venv_module()
        with Step(f"{label}, with {'the tools' if target == 'dev' else 'the project'}") as step:
            if not _is_usable():
                run([sys.executable, "-m", "venv", "--clear", _ENVIRONMENT], _LIMIT_S, step.tick)
            pip = f"{_PYTHON} -m pip install --quiet --disable-pip-version-check --editable"
            run([*pip.split(), requirement], _LIMIT_S, step.tick)
    except (AptError, CommandError) as error:
        print(error, file=sys.stderr)
        return 1
    for stamp in stamps:
        (_ENVIRONMENT / f".{stamp}").touch()
    return 0


def _need_venv_module() -> None:
    """Debian keeps these modules in a package of their own."""
    if not all(importlib.util.find_spec(module) for module in ("ensurepip", "venv")):
        install([f"python3.{sys.version_info.minor}-venv"], "to make a virtual environment")


def _is_usable() -> bool:
    """Return whether an environment is whole and its Python, which may have moved, is as ours."""
    if not _PYTHON.exists():
        return False
    # An interrupt may have come before pip did.
    version = "import sys, pip; print(*sys.version_info[:2])"
    found = subprocess.run([_PYTHON, "-c", version], capture_output=True, text=True, check=False)
    return found.stdout.split() == [str(part) for part in sys.version_info[:2]]


if __name__ == "__main__":
    exit_with(lambda: main(*sys.argv[1:]), "Interrupted; the next make goes on with it.")
