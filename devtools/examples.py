"""The example functions that ``make up`` starts, and what each needs before it can."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devtools.commands import CommandError, run
from devtools.progress import Step

_CHECKOUT: Final = Path(__file__).resolve().parent.parent
_EXAMPLES: Final = _CHECKOUT / "examples"
_PIP_LIMIT_S: Final = 600.0


class ExampleUnavailable(Exception):
    """The example cannot be started here; the message says what is missing."""


def _nothing() -> None:
    """Prepare an example that needs nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A function in Python, which the runtime of echo-lambda runs."""

    name: str
    folder: Path
    handler: str
    prepare: Callable[[], None] = _nothing  #: raises ``ExampleUnavailable``

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


def install_wasmtime() -> None:
    """Install what runs WebAssembly, unless it is there. Raises ``ExampleUnavailable``."""
    if importlib.util.find_spec("wasmtime") is not None:
        return
    try:
        with Step("wasmtime, for image-greyscale-lambda") as step:
            pip = [sys.executable, "-m", "pip", "install", "--quiet"]
            run([*pip, "--editable", f"{_CHECKOUT}[examples]"], _PIP_LIMIT_S, step.tick)
            step.result("installed")
    except CommandError as error:
        raise ExampleUnavailable(str(error).splitlines()[-1]) from error


ECHO: Final = Example(name="echo-lambda", folder=_EXAMPLES / "echo-lambda", handler="echo.handler")
GREYSCALE: Final = Example(
    name="image-greyscale-lambda",
    folder=_EXAMPLES / "image-greyscale",
    handler="greyscale.handler",
    prepare=install_wasmtime,
)


def available() -> list[Example]:
    """Return the examples that can be started here; tell why another cannot."""
    found = []
    for example in (ECHO, GREYSCALE):
        try:
            example.prepare()
        except ExampleUnavailable as reason:
            print(f"  {example.name}: left out, {reason}")
        else:
            found.append(example)
    return found
