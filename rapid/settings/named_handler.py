"""A handler that is named alone, as in ``rapid app.handler``: the runtime client that runs it.

The client is AWS's own, of the Python or Node.js that is on PATH: rapid has none to lend.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from lambda_protocol.environ import ConfigError

#: Which files have handlers, in the order in which they are looked for. Node's client has the
#: same suffixes. Source: aws-lambda-ric, UserFunction.
_PYTHON: Final = ".py"
_NODE: Final = (".mjs", ".js", ".cjs")
_HANDLER: Final = re.compile(r"\w[\w/-]*(\.\w[\w-]*)*\.[A-Za-z_]\w*", re.ASCII)
_HANDLER_MAX: Final = 128  # characters; Source: API_CreateFunction, Handler
_HAS_CLIENT: Final = (
    "import importlib.util, sys; sys.exit(importlib.util.find_spec('awslambdaric') is None)"
)
_LOOK_LIMIT_S: Final = 10.0


def refuse_source(word: str, folder: Path) -> None:
    """Raise ``ConfigError`` if ``word``, which is no program, is a source file of a handler."""
    file = Path(word)
    if file.suffix not in (_PYTHON, *_NODE):
        return
    handler = f"rapid {file.with_suffix('')}.FUNCTION"
    path = folder / file
    if not _is_file(path):
        raise ConfigError(f"there is no {word} in {folder}; a handler is named as in: {handler}")
    if file.is_absolute():
        handler = f"cd {file.parent} && rapid {file.stem}.FUNCTION"
    itself = f", or if it is a runtime itself: rapid ./{file}" if os.access(path, os.X_OK) else ""
    raise ConfigError(f"{word} is no command; name the handler in it: {handler}{itself}")


def refuse_colon(word: str, folder: Path) -> None:
    """Raise ``ConfigError`` if ``word`` is a handler but for its colon, as in ``app:handler``."""
    handler = word.replace(":", ".")
    if ":" in word and any(_is_file(folder / source) for source in sources_of(handler)):
        raise ConfigError(f"{word} is no command; a handler has a dot: rapid {handler}")


def sources_of(word: str) -> tuple[str, ...]:
    """Return the files in which a handler may be, by their names; none for another word."""
    if len(word) > _HANDLER_MAX or not _HANDLER.fullmatch(word):
        return ()
    folder, slash, name = word.rpartition("/")
    module = folder + slash + name.rpartition(".")[0].replace(".", "/")
    script = folder + slash + name.partition(".")[0]
    return (module + _PYTHON, f"{module}/__init__{_PYTHON}", *(script + end for end in _NODE))


def client_command(word: str, folder: Path) -> tuple[tuple[str, ...], str] | None:
    """Return the command that runs the handler ``word``, and what to log of the choice.

    None if no source file of it is in ``folder``. Raises ``ConfigError`` if the language or
    its runtime client is missing.
    """
    found = [source for source in sources_of(word) if _is_file(folder / source)]
    if not found or _is_file(folder / word):
        return None
    source, others = found[0], found[1:]
    make = _python_client if source.endswith(_PYTHON) else _node_client
    argv = make(word, folder)
    aside = f"; {' and '.join(others)} left aside" if others else ""
    return argv, f"{word} is the handler in {source}{aside}"


def _python_client(handler: str, folder: Path) -> tuple[str, ...]:
    python = shutil.which("python3")
    if python is None:
        raise ConfigError(f"{handler} is in Python; there is no python3 on PATH")
    try:
        look = subprocess.run(  # noqa: S603 - the interpreter that will run the function
            [python, "-c", _HAS_CLIENT],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_LOOK_LIMIT_S,
            check=False,
        )
        is_missing = look.returncode == 1
    except (OSError, subprocess.TimeoutExpired):
        is_missing = False  # the start of the runtime will tell
    if is_missing:
        raise ConfigError(
            f"{handler} needs AWS's runtime client for Python: {python} -m pip install awslambdaric"
        )
    return (python, "-m", "awslambdaric", handler)


def _node_client(handler: str, folder: Path) -> tuple[str, ...]:
    node = shutil.which("node")
    if node is None:
        raise ConfigError(f"{handler} is in JavaScript; there is no node on PATH")
    for place in (folder, *folder.parents):
        client = place / "node_modules" / ".bin" / "aws-lambda-ric"
        if _is_file(client):
            return (node, str(client), handler)
    everywhere = shutil.which("aws-lambda-ric")  # npm install --global
    if everywhere is None:
        raise ConfigError(
            f"{handler} needs AWS's runtime client for Node.js: npm install aws-lambda-ric"
        )
    return (everywhere, handler)


def _is_file(path: Path) -> bool:
    """Return whether there is such a file; a name that no file can have is the name of none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
