"""The program: ``rapid [FLAGS] [COMMAND [ARGS...]]``."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from lambda_protocol.allocator import give_back_large_blocks
from lambda_protocol.environ import ConfigError
from lambda_protocol.log_format import configure_logging
from rapid import __version__
from rapid.logs.output import TextStream, open_outputs
from rapid.settings.command_line import USAGE, parse_command_line
from rapid.settings.config import Config
from rapid.settings.names import is_init_container

logger = logging.getLogger(__name__)

#: How long the last lines wait for a reader of standard output or error, seconds.
FLUSH_LIMIT_S: Final = 1.0


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run rapid and return its exit code: 0 stopped, 1 failed, 2 told something impossible."""
    try:
        asked = parse_command_line(argv).asks_for
        if asked:
            sys.stdout.write(USAGE if asked == "help" else f"rapid {__version__}\n")
            return 0
        if is_init_container(environ):
            return _copy_self()
        return _serve(Config.from_environ(argv, environ))
    except ConfigError as error:
        return _complain(str(error), 2)
    except OSError as error:
        return _complain(f"cannot listen on {error.strerror}", 1)
    except RuntimeError as error:
        return _complain(f"cannot start: {error}; is the limit of processes too low?", 1)


def main_entry() -> None:
    """Run as the console script ``rapid``."""
    sys.exit(main(sys.argv[1:], os.environ))


def _serve(config: Config) -> int:
    give_back_large_blocks()
    outputs = open_outputs()
    try:
        configure_logging(
            config.log_level,
            structured=config.logs_structured,
            program="rapid",
            stream=TextStream(outputs.stderr),
        )
        for note in config.notes:
            logger.log(note.level, note.message)
        from rapid.daemon import Daemon

        return Daemon(config, outputs).run()
    finally:
        outputs.flush(FLUSH_LIMIT_S)


def _copy_self() -> int:
    from rapid.self_copy import SelfCopyError, copy_self

    try:
        copies = copy_self()
    except SelfCopyError as error:
        return _complain(str(error), 1)
    sys.stdout.write(f"rapid: copied to {' and '.join(map(str, copies))}\n")
    return 0


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"rapid: {message}\n")
    return code


if __name__ == "__main__":
    main_entry()
