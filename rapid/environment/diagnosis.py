"""Why a function did not start, in one line: what was found, and what to do about it.

Nothing here runs for a function that does start.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from lambda_protocol.errors import ErrorType
from rapid.call import Failure
from rapid.environment.executables import why_not_run
from rapid.settings.command import Command
from rapid.settings.named_handler import sources_of

#: The most of the function's own words that go into our line, characters.
_QUOTED: Final = 300

#: What a language says when it has no AWS client, and what gives it one.
_MISSING_CLIENTS: Final = (
    (re.compile(rb"No module named '?awslambdaric"), "{program} -m pip install awslambdaric"),
    (
        re.compile(rb"Cannot find (module|package) '[^']*aws-lambda-ric"),
        "npm install aws-lambda-ric",
    ),
    (
        re.compile(rb"Could not find or load main class com\.amazonaws\.services\.lambda"),
        "put aws-lambda-java-runtime-interface-client on the class path",
    ),
)
_CARRIAGE_RETURN: Final = re.compile(rb"env: .*\\r")


def launch_failure(error_type: ErrorType, program: str, cwd: str | None, error: OSError) -> Failure:
    """Return the failure of a process that cannot be started: AWS's words, then why."""
    reason = (error.strerror or str(error)).lower()
    if cwd is not None and not Path(cwd).is_dir():
        return Failure(ErrorType.INVALID_WORKING_DIR, f"chdir {cwd}: {reason}")
    here = str(Path(cwd or "", program)) if "/" in program else program
    why = why_not_run(here, error)
    message = f"fork/exec {program}: {reason}" + (f": {why}" if why else "")
    return Failure(error_type, message)


def failed_init(failure: Failure, command: Command, handler: str, output: bytes) -> dict[str, str]:
    """Return what the log says of a failed init.

    ``output`` is the last that the processes printed. A hint is given when we know one.
    """
    said = {"error_type": failure.error_type, "error": _message(failure)}
    last_line = output.decode(errors="replace").strip().rpartition("\n")[2]
    if failure.error_type == ErrorType.EXIT_ERROR and last_line:
        said["output"] = last_line[:_QUOTED]
    hint = _hint(failure, command, handler, output)
    if hint is not None:
        said["hint"] = hint
    return said


def _message(failure: Failure) -> str:
    """Return the failure in words; a runtime that reported it had its own."""
    if failure.payload is None:
        return failure.message
    try:
        return str(json.loads(failure.payload)["errorMessage"])[:_QUOTED]
    except (ValueError, LookupError, TypeError, RecursionError):
        return failure.message


def _hint(failure: Failure, command: Command, handler: str, output: bytes) -> str | None:
    match failure.error_type:
        case ErrorType.INVALID_ENTRYPOINT if not command.argv:
            return "name a handler or a command, as in: rapid app.handler, or rapid ./bootstrap"
        case ErrorType.INVALID_ENTRYPOINT if sources := _sources(command):
            return f"if it is a handler: none of {', '.join(sources)} is in {command.cwd}"
        case ErrorType.EXIT_ERROR:
            return _exit_hint(command, output)
        # What AWS's clients for Python, Node.js and Ruby report.
        case "Runtime.MalformedHandlerName":
            return f"the handler is {handler!r}, expected MODULE.FUNCTION"
        case "Runtime.ImportModuleError" | "Runtime.HandlerNotFound":
            return f"the handler is {handler!r}, looked for in {command.cwd}"
    return None


def _sources(command: Command) -> tuple[str, ...]:
    """Return in which files a handler would be that was named in the place of a command."""
    is_alone = len(command.argv) == 1 and not Path(command.argv[0]).exists()
    return sources_of(command.argv[0]) if is_alone else ()


def _exit_hint(command: Command, output: bytes) -> str | None:
    if command.argv[-1:] == ("awslambdaric",):
        return "name the handler: rapid python -m awslambdaric MODULE.FUNCTION"
    if _CARRIAGE_RETURN.search(output):
        return "the script's first line ends in a carriage return, save it with Unix line ends"
    for pattern, remedy in _MISSING_CLIENTS:
        if pattern.search(output):
            return "AWS's runtime client is missing: " + remedy.format(program=command.argv[0])
    return None
