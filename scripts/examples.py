"""The example functions that ``make up`` starts, and what each needs before it can."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.commands import CommandError, run
from scripts.progress import Step

_CHECKOUT: Final = Path(__file__).resolve().parent.parent
_EXAMPLES: Final = _CHECKOUT / "examples"
_BUILD_LIMIT_S: Final = 120.0
_PIP_LIMIT_S: Final = 600.0


class ExampleUnavailable(Exception):
    """The example cannot be started here; the message says what is missing."""


def _nothing(_folder: Path) -> None:
    """Prepare an example that needs nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A function in Python, which the runtime of echo-lambda runs."""

    name: str
    folder: Path
    handler: str
    prepare: Callable[[Path], None] = _nothing  #: of the folder; raises ``ExampleUnavailable``

    @property
    def command(self) -> list[str]:
        """The runtime's command line; our own Python, as the one on PATH may be too old."""
        return [sys.executable, str(_EXAMPLES / "echo-lambda" / "bootstrap"), self.handler]

    @property
    def settings(self) -> dict[str, str]:
        """What its rapid is told."""
        return {"AWS_LAMBDA_FUNCTION_NAME": self.name, "LAMBDA_TASK_ROOT": str(self.folder)}

    @property
    def path(self) -> str:
        """The path that invokes it."""
        return f"/2015-03-31/functions/{self.name}/invocations"


def prepare_greyscale(folder: Path) -> None:
    """Build the picture module in ``folder``, and install what runs it, unless they are there.

    Raises ``ExampleUnavailable``.
    """
    try:
        make = ["make", "--silent", "-C", str(folder)]
        if subprocess.run([*make, "--question"], capture_output=True, check=False).returncode != 0:
            with Step("image-greyscale-lambda, its WebAssembly module") as step:
                run(make, _BUILD_LIMIT_S, step.tick)
                step.result("built")
        if importlib.util.find_spec("wasmtime") is None:
            with Step("image-greyscale-lambda, what runs WebAssembly") as step:
                pip = [sys.executable, "-m", "pip", "install", "--quiet"]
                run([*pip, "--editable", f"{_CHECKOUT}[examples]"], _PIP_LIMIT_S, step.tick)
                step.result("installed")
    except CommandError as error:
        raise ExampleUnavailable(_last_words(error)) from error


def _last_words(error: CommandError) -> str:
    """Return the line in which a command says what is missing; make's own comes after it."""
    lines = [line for line in str(error).splitlines() if not line.startswith("make")]
    return lines[-1] if lines else str(error)


ECHO: Final = Example(name="echo-lambda", folder=_EXAMPLES / "echo-lambda", handler="echo.handler")
GREYSCALE: Final = Example(
    name="image-greyscale-lambda",
    folder=_EXAMPLES / "image-greyscale",
    handler="greyscale.handler",
    prepare=prepare_greyscale,
)


def available() -> list[Example]:
    """Return the examples that can be started here; tell why another cannot."""
    found = []
    for example in (ECHO, GREYSCALE):
        try:
            example.prepare(example.folder)
        except ExampleUnavailable as reason:
            print(f"  {example.name}: left out, {reason}")
        else:
            found.append(example)
    return found
