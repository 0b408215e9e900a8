"""The flags of rapid's command line, as aws-lambda-rie's, and the text of ``--help``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lambda_protocol.address import Address
from lambda_protocol.environ import ConfigError, Environ
from lambda_protocol.log_format import LEVEL_NAMES

USAGE: Final = """\
Usage: rapid [FLAGS] [COMMAND [ARGS...]]

Run one AWS Lambda function: start COMMAND as its runtime and serve the Invoke API to callers
and the Runtime API to it. With no COMMAND: the first of /var/task/bootstrap, /opt/bootstrap,
/var/runtime/bootstrap. With two or more words the last one is the handler. A handler alone, as
app.handler, runs under AWS's client of the python3 or node on PATH, if app.py or app.mjs is here.

Flags, before the command:
  --log-level LEVEL                              trace debug info warn error fatal [LOG_LEVEL, info]
  --runtime-interface-emulator-address HOST:PORT Invoke API [INVOKE_API_HOST, PORT: [::]:8080]
  --runtime-api-address HOST:PORT                Runtime API [RUNTIME_API_HOST, RUNTIME_API_PORT:
                                                 127.0.0.1:9001]
  --enable-init-caching                          accepted, as aws-lambda-rie does; changes nothing
  -h, --help                                     this text
  --version                                      the version

Examples: rapid echo.handler
          rapid ./bootstrap echo.handler
"""

_VALUE_FLAGS: Final = (
    "--log-level",
    "--runtime-api-address",
    "--runtime-interface-emulator-address",
)


@dataclass(slots=True)
class Flags:
    """What flags said; None where one was not given."""

    log_level: str | None = None
    invoke_api: Address | None = None
    runtime_api: Address | None = None


def split_flags(argv: Sequence[str]) -> tuple[Flags, Sequence[str]]:
    """Take our flags off the front; the first word that is none of them starts the command."""
    flags = Flags()
    at = 0
    while at < len(argv):
        name, equals, value = argv[at].partition("=")
        if name == "--enable-init-caching":
            at += 1
            continue
        if name not in _VALUE_FLAGS:
            break
        if not equals:
            at += 1
            if at == len(argv):
                raise ConfigError(f"{name} needs a value")
            value = argv[at]
        at += 1
        if name == "--log-level":
            flags.log_level = Environ({name: value}).choice(name, "", LEVEL_NAMES)
        elif name == "--runtime-api-address":
            flags.runtime_api = _address(name, value)
        else:
            flags.invoke_api = _address(name, value)
    return flags, argv[at:]


def _address(flag: str, text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise ConfigError(f"{flag} is {error}") from None
