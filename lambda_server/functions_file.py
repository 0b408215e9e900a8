"""The file of ``lambda-server dev``: which functions there are, and how each is started."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lambda_protocol.environ import ConfigError

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_KEYS: Final = {
    *("command", "cwd", "timeout", "memory", "concurrency", "handler", "environment", "event"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One table of the functions file."""

    name: str
    command: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str] = field(default_factory=dict)  #: settings of its rapid included
    event: str = "{}"  #: JSON; what a call to try it may send


def read_functions(path: Path) -> list[Function]:
    """Return the functions that a TOML file declares; raises ``ConfigError``.

    ``[functions.NAME]`` with ``command`` (a list; the last word is the handler, as for rapid),
    and optionally ``cwd`` (relative to the file), ``timeout`` (seconds), ``memory`` (MB),
    ``concurrency`` (runtimes), ``handler``, ``environment`` (a table of strings) and ``event``
    (an event to try it with).
    """
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    tables = document.get("functions")
    if not isinstance(tables, dict) or not tables:
        raise ConfigError(f"{path} declares no function; expected a table [functions.NAME]")
    return [_function(path, name, table) for name, table in tables.items()]


def _function(path: Path, name: str, table: Any) -> Function:
    where = f"{path}, [functions.{name}]"
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: expected a name of letters, digits, - and _, at most 64")
    if not isinstance(table, dict) or set(table) - _KEYS:
        found = sorted(set(table) - _KEYS) if isinstance(table, dict) else table
        raise ConfigError(f"{where} has {found}; expected some of {sorted(_KEYS)}")
    command = table.get("command")
    if not isinstance(command, list) or not command or not all(map(_is_text, command)):
        raise ConfigError(f"{where}: command is {command!r}; expected a list of strings")
    cwd = table.get("cwd", ".")
    if not _is_text(cwd):
        raise ConfigError(f"{where}: cwd is {cwd!r}; expected a folder")
    environment = table.get("environment", {})
    if not isinstance(environment, dict) or not all(map(_is_text, environment.values())):
        raise ConfigError(f"{where}: environment is no table of strings")
    try:
        event = json.dumps(table.get("event", {}), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise ConfigError(f"{where}: event is no JSON; it has a date, nan or inf") from None
    settings = {
        variable: str(table[key])
        for key, variable in (
            ("timeout", "AWS_LAMBDA_FUNCTION_TIMEOUT"),
            ("memory", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE"),
            ("concurrency", "RAPID_MAX_CONCURRENCY"),
            ("handler", "AWS_LAMBDA_FUNCTION_HANDLER"),
        )
        if key in table
    }
    return Function(
        name=name,
        command=tuple(command),
        cwd=(path.parent / cwd).resolve(),
        environment={**environment, **settings},
        event=event,
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)
