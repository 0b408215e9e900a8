"""The flags of rapid's command line, aws-lambda-rie's among them, and the text of ``--help``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from lambda_protocol.address import Address
from lambda_protocol.environ import ConfigError
from rapid.settings.names import nearest

USAGE: Final = """\
Usage: rapid [FLAGS] [COMMAND [ARGS...]]

Run one AWS Lambda function until Ctrl-C. COMMAND starts the runtime. rapid serves the Invoke API
to callers, and the Runtime API to the runtime.

COMMAND is one of:
  PROGRAM [ARGS...] HANDLER  the runtime, as ./bootstrap app.handler; the last word is the handler
  PROGRAM                    the runtime, without a handler
  HANDLER                    as app.handler: AWS's runtime client for Python or Node.js. If the
                             folder has app.py, python3 on PATH runs it; if app.mjs, node
Without COMMAND, rapid starts the first of these files: /var/task/bootstrap, /opt/bootstrap,
/var/runtime/bootstrap.

Flags stand before COMMAND. Brackets contain the variable that a flag overrides, and the default:
  --port PORT           of the Invoke API [RAPID_PORT, 8080]
  --name NAME           of the function [AWS_LAMBDA_FUNCTION_NAME, the handler's module]
  --timeout SECONDS     the longest invocation [AWS_LAMBDA_FUNCTION_TIMEOUT, 300]
  --memory MB           of the function [AWS_LAMBDA_FUNCTION_MEMORY_SIZE, 3008]
  --env-file FILE       lines NAME=VALUE: variables of the function, and settings RAPID_*
  --log-level LEVEL     trace debug info warn error fatal [RAPID_LOG_LEVEL, info]
  --runtime-interface-emulator-address HOST:PORT
                        of the Invoke API [RAPID_INVOKE_API_HOST, RAPID_PORT, [::]:8080]
  --runtime-api-address HOST:PORT
                        of the Runtime API [RAPID_RUNTIME_API_HOST, RAPID_RUNTIME_API_PORT,
                        127.0.0.1:9001]
  --enable-init-caching no effect; aws-lambda-rie has this flag
  -h, --help            this text
  --version             the version

Examples: rapid echo.handler
          rapid --port 9000 ./bootstrap echo.handler

docs/reference/settings.md in the repository has all settings.
"""

#: The setting that each flag with a value goes before.
_SETTINGS: Final = {
    "--log-level": "RAPID_LOG_LEVEL",
    "--memory": "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "--name": "AWS_LAMBDA_FUNCTION_NAME",
    "--port": "RAPID_PORT",
    "--timeout": "AWS_LAMBDA_FUNCTION_TIMEOUT",
}
_ADDRESSES: Final = {
    "--runtime-api-address": ("RAPID_RUNTIME_API_HOST", "RAPID_RUNTIME_API_PORT"),
    "--runtime-interface-emulator-address": ("RAPID_INVOKE_API_HOST", "RAPID_PORT"),
}
_ENV_FILE: Final = "--env-file"
_WITH_VALUE: Final = (*_SETTINGS, *_ADDRESSES, _ENV_FILE)
_WITHOUT_VALUE: Final = {
    "-h": "help",
    "--help": "help",
    "--version": "version",
    "--enable-init-caching": "",
}


@dataclass(slots=True)
class CommandLine:
    """A command line, taken apart."""

    flags: dict[str, tuple[str, str]] = field(default_factory=dict)  #: setting → flag, its value
    env_files: list[str] = field(default_factory=list)
    asks_for: str = ""  #: ``help`` or ``version``, instead of running
    words: Sequence[str] = ()  #: the command


def parse_command_line(argv: Sequence[str]) -> CommandLine:
    """Take the flags off the front; the first word that is none is the command.

    No command begins with ``-``, so such a word is a flag or a mistake. ``--`` ends the flags.
    Raises ``ConfigError``.
    """
    line = CommandLine()
    at = 0
    while at < len(argv) and argv[at].startswith("-"):
        word = argv[at]
        name, equals, value = word.partition("=")
        at += 1
        if word == "--":
            break
        if word in _WITHOUT_VALUE:
            line.asks_for = line.asks_for or _WITHOUT_VALUE[word]
        elif name not in _WITH_VALUE:
            raise ConfigError(_unknown(word))
        else:
            if not equals and at < len(argv) and not argv[at].startswith("-"):
                value = argv[at]
                at += 1
            if not value:
                raise ConfigError(f"{name} needs a value; --help lists the flags")
            _take(line, name, value)
    line.words = argv[at:]
    if line.words and line.words[0].startswith("-"):
        raise ConfigError(_unknown(line.words[0]))
    return line


def _take(line: CommandLine, name: str, value: str) -> None:
    if name == _ENV_FILE:
        line.env_files.append(value)
    elif name in _SETTINGS:
        line.flags[_SETTINGS[name]] = (name, value)
    else:
        try:
            address = Address.parse(value)
        except ValueError as error:
            raise ConfigError(f"{name} is {error}") from None
        for setting, part in zip(_ADDRESSES[name], address, strict=True):
            line.flags[setting] = (name, str(part))


def _unknown(word: str) -> str:
    flag = nearest(word.partition("=")[0], (*_WITH_VALUE, *_WITHOUT_VALUE))
    return (
        f"{word[:64]!r} is no flag of rapid, and no command begins with '-'; "
        f"the nearest flag is {flag}, --help lists all"
    )
