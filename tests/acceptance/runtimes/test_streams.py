"""Streamed responses of AWS's runtime clients, read by boto3 and by AWS's other SDKs."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from devtools.ports import LOOPBACK
from tests.acceptance.conformance.doors import Door, boto3_client
from tests.acceptance.runtimes.builds import built
from tests.acceptance.runtimes.caller_rows import CALLERS, Caller
from tests.acceptance.runtimes.conftest import open_function
from tests.acceptance.runtimes.rows import ROWS, Row
from tests.support import LIMIT_S, MISBEHAVE, Rapid, Server, wait_until

#: The SDK for Java streams with another HTTP client than the one it calls with.
_STREAMING_CALLERS: Final = [caller for caller in CALLERS if caller.id != "java"]
_ROWS: Final = {row.id: row for row in ROWS}
_NODE: Final = _ROWS["node"]
#: Handlers that stream. The client for Rust always begins with a prelude.
STREAMING: Final = (
    pytest.param(
        replace(_NODE, command=(*_NODE.command[:-1], "index.stream")), id="node streamifyResponse"
    ),
    pytest.param(_ROWS["go"], id="go io.Reader"),
    pytest.param(_ROWS["rust"], id="rust Response"),
)


@pytest.fixture(params=STREAMING)
def streaming_row(request: pytest.FixtureRequest) -> Row:
    row: Row = request.param
    assert row.recipe is not None
    built(row.recipe)
    return row


@pytest.fixture
def streaming(
    request: pytest.FixtureRequest, streaming_row: Row, broker_uri: str | None
) -> Iterator[Door]:
    with contextlib.ExitStack() as stack:
        environ = {"AWS_LAMBDA_FUNCTION_HANDLER": "stream"} if streaming_row.id != "node" else {}
        yield open_function(request, stack, streaming_row, broker_uri, ready=True, **environ)


def read(door: Door, event: dict[str, Any]) -> Iterator[dict[str, Any]]:
    answer = boto3_client(door.url).invoke_with_response_stream(
        FunctionName=door.function_name, Payload=json.dumps(event)
    )
    yield from answer["EventStream"]


def test_the_first_part_comes_while_the_handler_runs(streaming: Door, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    data, end = b"", None
    for event in read(streaming, {"parts": ["first", "second"], "until": str(gate)}):
        if "PayloadChunk" in event:
            data += event["PayloadChunk"]["Payload"]
            if data.endswith(b"first"):
                gate.touch()
        else:
            end = event["InvokeComplete"]

    assert data.endswith(b"firstsecond")
    assert end == {}


@pytest.mark.parametrize(
    "streaming_row",
    [param for param in STREAMING if "rust" not in str(param.id)],  # it writes it as text
    indirect=True,
)
def test_an_error_in_the_middle_comes_after_what_was_written(
    streaming: Door, tmp_path: Path
) -> None:
    *parts, end = read(streaming, {"parts": ["first"], "fails": True})

    assert b"".join(part["PayloadChunk"]["Payload"] for part in parts) == b"first"
    assert end["InvokeComplete"]["ErrorCode"] == "Unhandled"
    assert "in the middle" in end["InvokeComplete"]["ErrorDetails"]


@pytest.fixture(scope="session")
def writer(request: pytest.FixtureRequest, broker_uri: str | None) -> Iterator[Door]:
    """Give a function that writes what it is told."""
    environ: dict[str, Any] = {} if broker_uri is None else {"RAPID_AMQP_URI": broker_uri}
    with Rapid(MISBEHAVE, **environ) as rapid:
        if broker_uri is None:
            yield Door("rapid", rapid.port, rapid)
            return
        rapid.wait_for_log("consuming")
        server: Server = request.getfixturevalue("broker_server")
        yield Door("broker", server.port, rapid)


@pytest.mark.parametrize("caller", _STREAMING_CALLERS, ids=lambda caller: caller.id)
def test_an_sdk_has_the_first_part_while_the_handler_runs(
    caller: Caller, writer: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function goes on when the caller has made the file.

    It takes a moment before: the SDK for Go closes a connection whose response begins while the SDK
    is not done with writing the request, which AWS is never quick enough for.
    """
    gate = tmp_path / "gate"
    monkeypatch.setenv("FIRST_PART", str(gate))
    event = {"do": "stream", "parts": ["first", "second"], "until": str(gate), "after": 0.05}
    failing = {"do": "raise"}

    streamed, failed = caller.run(
        built(caller.recipe),
        writer.url,
        [("Stream", writer.function_name, json.dumps(each)) for each in (event, failing)],
    )

    assert streamed == ["ok", "200", "", "firstsecond"]
    assert failed == ["ok", "200", "Unhandled", ""]


def test_lambdaurl_answers_a_url_while_its_handler_runs(
    request: pytest.FixtureRequest, broker_uri: str | None, tmp_path: Path
) -> None:
    go, gate = _ROWS["go"], tmp_path / "gate"
    assert go.recipe is not None
    built(go.recipe)
    settings = {
        "AWS_LAMBDA_FUNCTION_HANDLER": "url",
        "RAPID_FUNCTION_URL_AUTH_TYPE": "NONE",
        "RAPID_FUNCTION_URL_INVOKE_MODE": "RESPONSE_STREAM",
    }
    with contextlib.ExitStack() as stack:
        door = open_function(request, stack, go, broker_uri, ready=True, **settings)
        path = f"/lambda-url/{door.function_name}/"
        with door.client() as client:
            wait_until(lambda: client.get(path).status == 400, "the URL to be known")
        connection = http.client.HTTPConnection(LOOPBACK, door.port, timeout=LIMIT_S)
        stack.callback(connection.close)

        connection.request("POST", path, json.dumps({"parts": ["a", "b"], "until": str(gate)}))
        answer = connection.getresponse()
        first = answer.read1()
        gate.touch()

        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/x")
        assert (first, answer.read()) == (b"a", b"b")
