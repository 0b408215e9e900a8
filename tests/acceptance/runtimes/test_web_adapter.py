"""An ordinary web application behind AWS's Lambda Web Adapter, and a function URL that streams."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.ports import LOOPBACK, free_ports
from tests.acceptance.conformance.doors import Door
from tests.acceptance.runtimes.builds import built
from tests.acceptance.runtimes.conftest import open_command
from tests.acceptance.runtimes.recipes import WEB_ADAPTER
from tests.support import LIMIT_S, wait_until


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Give the file that the second event waits for."""
    return tmp_path / "gate"


@pytest.fixture
def door(
    request: pytest.FixtureRequest, broker_uri: str | None, tmp_path: Path, gate: Path
) -> Iterator[Door]:
    folder, (port,) = built(WEB_ADAPTER), free_ports(1)
    extensions = tmp_path / "extensions"
    extensions.mkdir()
    (extensions / "lambda-adapter").symlink_to(folder / "target" / "release" / "web-adapter")
    settings: dict[str, Any] = {
        "UNTIL": str(gate),
        "AWS_LWA_PORT": str(port),
        "AWS_LWA_INVOKE_MODE": "response_stream",
        "RAPID_EXTENSIONS_DIR": str(extensions),
        "RAPID_FUNCTION_URL_AUTH_TYPE": "NONE",
        "RAPID_FUNCTION_URL_INVOKE_MODE": "RESPONSE_STREAM",
    }
    with contextlib.ExitStack() as stack:
        command = [str(folder / "application")]
        door = open_command(request, stack, command, folder, broker_uri, **settings)
        with door.client() as client:
            path = f"/lambda-url/{door.function_name}/"
            wait_until(lambda: client.get(path).status == 200, "the URL to be known")
        yield door


def test_the_first_part_comes_while_the_application_writes(door: Door, gate: Path) -> None:
    connection = http.client.HTTPConnection(LOOPBACK, door.port, timeout=LIMIT_S)
    with contextlib.closing(connection):
        connection.request("GET", f"/lambda-url/{door.function_name}/events")
        answer = connection.getresponse()
        first = answer.read1()
        gate.touch()

        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
        assert answer.headers["Set-Cookie"] == "seen=1"
        assert (first, answer.read()) == (b"data: 1\n\n", b"data: 2\n\n")


def test_what_is_posted_reaches_the_application(door: Door) -> None:
    with door.client() as client:
        answer = client.post(f"/lambda-url/{door.function_name}/", "grüße".encode())

    assert (answer.status, answer.body) == (200, "grüße".encode().upper())
