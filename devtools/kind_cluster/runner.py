"""Runs a plan's steps, one after the other, and shows how far it is."""

from __future__ import annotations

import http.client
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

from devtools import progress
from devtools.commands import CommandError, run
from devtools.kind_cluster.names import CHECKOUT
from devtools.kind_cluster.steps import Action, Command, HttpCall, Step

_PAUSE_S: Final = 1.0
_REQUEST_LIMIT_S: Final = 30.0
_MASK: Final = "***"


def run_steps(steps: Iterable[Step], hidden: Sequence[str] = ()) -> None:
    """Run ``steps``; the first that fails is the last. Raises CommandError.

    What is ``hidden`` is masked in what a failing command has printed.
    """
    for step in steps:
        with progress.Step(step.title) as shown:
            for action in step.actions:
                try:
                    _do(action, shown.tick)
                except CommandError as error:
                    raise CommandError(_masked(str(error), hidden)) from None
            shown.result(step.result)


def script(steps: Iterable[Step]) -> str:
    """Return the steps as a shell script, which says the same."""
    lines = [f"cd {shlex.quote(str(CHECKOUT))}"]
    for step in steps:
        lines += ["", f"# {step.title}", *(str(action) for action in step.actions)]
    return "\n".join(lines)


def _do(action: Action, on_wait: progress.OnWait) -> None:
    if isinstance(action, HttpCall):
        _retry(lambda: _call(action), action.limit_s, on_wait)
    else:
        _retry(lambda: _run(action, on_wait), action.retry_s, on_wait)


def _retry(attempt: Callable[[], None], limit_s: float, on_wait: progress.OnWait) -> None:
    """Make attempts until one succeeds, and raise what the last one did after ``limit_s``."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            return attempt()
        except CommandError:
            if time.monotonic() >= deadline:
                raise
        progress.wait_until(lambda: False, _PAUSE_S, on_wait)


def _run(command: Command, on_wait: progress.OnWait) -> None:
    try:
        run(command.argv, command.limit_s, on_wait, cwd=CHECKOUT, stdin=command.stdin)
    except OSError as error:
        raise CommandError(f"{command.argv[0]} cannot be run: {error}") from error


def _call(call: HttpCall) -> None:
    parts = urlsplit(call.url)
    limit_s = min(call.limit_s, _REQUEST_LIMIT_S)
    connection = http.client.HTTPConnection(parts.netloc, timeout=limit_s)
    try:
        connection.request("GET" if call.payload is None else "POST", parts.path, call.payload)
        response = connection.getresponse()
        answer = response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise CommandError(f"{call.url} does not answer: {error!r}") from error
    finally:
        connection.close()
    if response.status != 200 or response.getheader("X-Amz-Function-Error"):
        raise CommandError(f"{call.url} answered {response.status}: {answer.strip()}")


def _masked(text: str, hidden: Sequence[str]) -> str:
    for value in hidden:
        text = text.replace(value, _MASK)
    return text
