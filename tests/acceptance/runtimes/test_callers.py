"""What AWS's SDKs make of our answers, from a rapid's own port and from a Server with RabbitMQ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.conformance.doors import Door
from tests.acceptance.runtimes.builds import built
from tests.acceptance.runtimes.caller_rows import CALLERS, Caller
from tests.support import MISBEHAVE, Rapid, Server, unique_name, wait_until

behaviour = pytest.mark.behaviour

PAYLOAD = '{"text":"Grüße, 🐈","list":[1,2.5,true,null]}'
ABSENT = unique_name("absent")


@dataclass(frozen=True, slots=True)
class Told:
    """What one program said of its calls."""

    dry_file: Path  #: written by the function, had the dry run run it
    event_file: Path
    call: list[str]
    error: list[str]
    not_found: list[str]
    dry_run: list[str]
    event: list[str]


@pytest.fixture(scope="session", params=CALLERS, ids=lambda caller: caller.id)
def caller(request: pytest.FixtureRequest) -> Caller:
    found: Caller = request.param
    built(found.recipe)
    return found


@pytest.fixture(scope="session")
def callee(request: pytest.FixtureRequest, broker_uri: str | None) -> Iterator[Door]:
    """Give a function under its own name alone."""
    environ = {} if broker_uri is None else {"AMQP_URI": broker_uri}
    with Rapid(
        MISBEHAVE, flags=(), ready=True, RAPID_ANY_FUNCTION_NAME="FALSE", **environ
    ) as rapid:
        if broker_uri is None:
            yield Door("rapid", rapid.port, rapid)
            return
        rapid.wait_for_log("consuming")
        server: Server = request.getfixturevalue("broker_server")
        yield Door("broker", server.port, rapid)


@pytest.fixture(scope="session")
def told(caller: Caller, callee: Door, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("files")
    dry_file, event_file = folder / "dry", folder / "event"

    def writes(file: Path) -> str:
        return json.dumps({"do": "write_tmp", "path": str(file), "text": "ran"})

    name = callee.function_name
    lines = caller.run(
        built(caller.recipe),
        callee.url,
        [
            ("RequestResponse", name, PAYLOAD),
            ("RequestResponse", name, '{"do":"raise"}'),
            ("RequestResponse", ABSENT, "{}"),
            ("DryRun", name, writes(dry_file)),
            ("Event", name, writes(event_file)),
        ],
    )
    return Told(dry_file, event_file, *lines)


@behaviour("call")
def test_a_payload_comes_back(told: Told) -> None:
    assert told.call == ["ok", "200", "", PAYLOAD]


@behaviour("function error")
def test_a_functions_error_is_an_answer(told: Told) -> None:
    *head, payload = told.error

    assert head == ["ok", "200", "Unhandled"]
    assert json.loads(payload) == {"errorType": "ValueError", "errorMessage": "on purpose"}


@behaviour("404")
def test_an_unknown_function_is_the_sdks_own_exception(told: Told) -> None:
    *head, message = told.not_found

    assert head == ["exception", "ResourceNotFoundException", "404"]
    assert f":function:{ABSENT}:$LATEST" in message


@behaviour("DryRun")
def test_a_dry_run_runs_nothing(told: Told) -> None:
    wait_until(told.event_file.exists, "the asynchronous invocation, which came after it")

    assert told.dry_run == ["ok", "204", "", ""]
    assert not told.dry_file.exists()


@behaviour("Event")
def test_an_event_is_accepted_and_runs(told: Told) -> None:
    assert told.event == ["ok", "202", "", ""]
    wait_until(told.event_file.exists, "the asynchronous invocation")
