"""How both programs log: one line a record, plain or JSON, extras as data."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Final, Protocol

#: Names aws-lambda-rie and logrus users know, beside Python's own.
_LEVELS: Final = {
    "TRACE": logging.DEBUG,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
    "PANIC": logging.CRITICAL,
    "CRITICAL": logging.CRITICAL,
}
LEVEL_NAMES: Final = tuple(_LEVELS)

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_CONTROLS: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


class TextOutput(Protocol):
    """Where log records go, each in one ``write`` with its line end."""

    def write(self, text: str, /) -> object:
        """Write a record."""


def escape_controls(text: str, *, keeps_lines: bool = True) -> str:
    """Return ``text`` with control characters shown, as ``\\x1b``: a terminal would obey them.

    Characters that turn the direction of text, and lone surrogates, are shown too. Line ends and
    tabs stay if ``keeps_lines``.
    """

    def show(match: re.Match[str]) -> str:
        found = match[0]
        if keeps_lines and found in "\n\t":
            return found
        return found.encode("unicode_escape").decode()

    return _CONTROLS.sub(show, text)


def configure_logging(
    level: str, *, structured: bool, program: str, stream: TextOutput | None = None
) -> None:
    """Send every record of this process to ``stream``, standard error, in one of two formats."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(make_formatter(program, structured=structured))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level_number(level))
    # pika tells every step of its state machine at INFO, and at WARNING what we report ourselves.
    logging.getLogger("pika").setLevel(logging.CRITICAL)


def make_formatter(program: str, *, structured: bool) -> logging.Formatter:
    """Return the formatter of one of the two formats."""
    return JsonFormatter(program) if structured else PlainFormatter(program)


def level_number(name: str) -> int:
    """Return Python's level for one of ``LEVEL_NAMES``, in any case."""
    return _LEVELS[name.upper()]


class PlainFormatter(logging.Formatter):
    """``22 Nov 2026 07:00:00,123 [INFO] (rapid) message key=value``, as aws-lambda-rie writes."""

    def __init__(self, program: str) -> None:
        """Name ``program`` in each line."""
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with a traceback below it if the record has one."""
        when = time.strftime("%d %b %Y %H:%M:%S", time.gmtime(record.created))
        line = (
            f"{when},{int(record.msecs):03d} [{record.levelname}] ({self._program}) "
            f"{record.getMessage()}"
        )
        extras = "".join(f" {name}={value}" for name, value in _extras(record).items())
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return escape_controls(line + extras + trace)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, program, message and the extras."""

    def __init__(self, program: str) -> None:
        """Name ``program`` in each line."""
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback is a member of it."""
        members: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "program": self._program,
            "message": record.getMessage(),
            **_extras(record),
        }
        if record.exc_info:
            members["exception"] = self.formatException(record.exc_info)
        return json.dumps(members, default=str)


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}
