"""Server-sent events in a real browser, through a function URL that streams."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from devtools.ports import LOOPBACK
from devtools.processes import BackgroundProcess
from tests.acceptance.runtimes.builds import built
from tests.acceptance.runtimes.conftest import open_command
from tests.acceptance.runtimes.recipes import SSE
from tests.support import give_up, wait_until

#: A browser takes its time when two cores run the whole suite.
_LIMIT_S = 50.0


@pytest.mark.timeout(150)
def test_a_browser_has_the_first_event_before_the_second_is_sent(
    request: pytest.FixtureRequest, broker_uri: str | None, tmp_path: Path
) -> None:
    browser = shutil.which("chromium") or give_up("no chromium on this machine")
    seen, log = tmp_path / "seen", tmp_path / "chromium.log"
    settings: dict[str, Any] = {
        "SEEN": str(seen),
        "RAPID_MAX_CONCURRENCY": "3",
        "RAPID_FUNCTION_URL_AUTH_TYPE": "NONE",
        "RAPID_FUNCTION_URL_INVOKE_MODE": "RESPONSE_STREAM",
    }
    with contextlib.ExitStack() as stack:
        folder = built(SSE)
        command = [str(folder / "bootstrap")]
        door = open_command(request, stack, command, folder, broker_uri, **settings)
        path = f"/lambda-url/{door.function_name}/"
        with door.client() as client:
            wait_until(lambda: client.get(path).status == 200, "the URL to be known")
        opened = BackgroundProcess.spawn(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
             f"--user-data-dir={tmp_path / 'profile'}", f"http://{LOOPBACK}:{door.port}{path}"],
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            cwd=tmp_path,
            log=log,
        )  # fmt: skip
        stack.callback(opened.stop, 10.0)

        for number in (1, 2):
            event = seen.with_name(f"seen-{number}")
            wait_until(event.exists, f"event {number} in the browser", _LIMIT_S)
