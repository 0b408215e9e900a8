"""Files of ``--env-file``: variables as ``NAME=VALUE`` lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from lambda_protocol.environ import ConfigError

#: Linux starts no program with more than a few MiB of variables.
_BYTES_MAX: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMMENT: Final = re.compile(r"\s#")


def read_env_files(names: Iterable[str]) -> dict[str, str]:
    """Return the variables of some files; of two with one name the last counts.

    Empty lines, lines that begin with ``#`` and ``export`` before a name are skipped. A value may
    stand in single or double quotes, which are not part of it; without them it ends before white
    space and ``#``. Raises ``ConfigError``, which never shows a value.
    """
    return {variable: value for name in names for variable, value in _variables(name)}


def _variables(name: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_read(name).split("\n"), 1):
        line = line.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        variable, equals, text = line.partition("=")
        value = _value(text)
        if not equals or not _NAME.fullmatch(variable.strip()) or value is None:
            raise ConfigError(f"--env-file {name}, line {number}: expected NAME=VALUE")
        yield variable.strip(), value


def _read(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            data = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"--env-file {name} cannot be read: {error.strerror}") from None
    if len(data) > _BYTES_MAX:
        raise ConfigError(f"--env-file {name} is too large; expected {_BYTES_MAX} bytes at most")
    if b"\0" in data:
        raise ConfigError(f"--env-file {name} has a NUL byte; expected NAME=VALUE lines")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"--env-file {name} is no UTF-8 text") from None


def _value(text: str) -> str | None:
    """Return what stands after ``NAME=``; None when a quote does not end."""
    stripped = text.strip()
    if stripped[:1] not in ("'", '"'):
        return _COMMENT.split(text, 1)[0].strip()
    value, quote, rest = stripped[1:].partition(stripped[0])
    return value if quote and (not rest or _COMMENT.match(rest)) else None
