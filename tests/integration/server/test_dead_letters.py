"""``lambda-server dead``: the command against a real broker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pika
import pytest

from lambda_protocol.amqp_frames import Properties
from lambda_protocol.async_amqp import encode_dead_letter
from lambda_protocol.environ import BrokerAddress
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import AsyncInvocation, InvocationType
from lambda_server.dead_letters import DeadLetters
from tests.support import make_invocation, run_to_end, unique_name


class Letters:
    """A function's queues, with dead letters as rapid puts them there."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.function = FunctionRef(name=unique_name())
        self.connection: Any = pika.BlockingConnection(pika.URLParameters(uri))
        self.channel = self.connection.channel()
        for ending in ("events", "dead"):
            self.channel.queue_declare(f"{self.function.name}.{ending}", durable=True)

    def add(self, payload: bytes, error: str = "on purpose") -> str:
        """Add a letter; return its request id."""
        invocation = make_invocation(
            function=self.function, payload=payload, type=InvocationType.EVENT
        )
        event = AsyncInvocation(invocation=invocation, first_queued_ms=1_700_000_000_000, attempt=3)
        self.publish(encode_dead_letter(event, error), payload)
        return invocation.request_id

    def publish(self, properties: Properties, body: bytes) -> None:
        self.channel.basic_publish(
            "",
            f"{self.function.name}.dead",
            body,
            pika.BasicProperties(
                headers=dict(properties.headers), correlation_id=properties.correlation_id
            ),
        )

    def taken(self, ending: str) -> list[tuple[Any, bytes]]:
        """Take everything out of a queue."""
        found: list[tuple[Any, bytes]] = []
        while True:
            got: Any = self.channel.basic_get(f"{self.function.name}.{ending}", auto_ack=True)
            method, properties, body = got  # the stubs give every part the wrong type
            if method is None:
                return found
            found.append((properties, body))

    def command(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run ``lambda-server dead``."""
        return run_to_end(
            [sys.executable, "-m", "lambda_server", "dead", *words],
            **{"AMQP_URI": self.uri, "TZ": "UTC", **environ},
        )

    def close(self) -> None:
        for ending in ("events", "dead"):
            self.channel.queue_delete(f"{self.function.name}.{ending}")
        self.connection.close()


@pytest.fixture
def letters(broker: str) -> Iterator[Letters]:
    letters = Letters(broker)
    yield letters
    letters.close()


def test_letters_are_listed_and_stay(letters: Letters) -> None:
    request_id = letters.add(b"{}", error="two\nlines")

    for _ in range(2):
        done = letters.command("list", letters.function.name)

        assert done.returncode == 0, done.stderr
        first, last = done.stdout.splitlines()
        assert first == f"{request_id}  2023-11-14 22:13:20  attempts 3  code 200  two lines"
        assert last == f"{letters.function.name}: 1 dead letters"
    assert len(letters.taken("dead")) == 1


def test_a_list_shows_no_escapes(letters: Letters) -> None:
    headers = {"RequestID": "\x1b[2Jid", "ErrorMessage": "\x1b]0;title\x07\u202e"}
    letters.publish(Properties(headers=headers), b"{}")

    first, _ = letters.command("list", letters.function.name).stdout.splitlines()

    dashes = "-" * 19
    assert first == rf"\x1b[2Jid  {dashes}  attempts 0  code -  \x1b]0;title\x07\u202e"


def test_a_long_list_is_cut_and_says_so(letters: Letters) -> None:
    for _ in range(5):
        letters.add(b"{}")

    shown = letters.command("list", letters.function.name, "--limit", "2").stdout

    assert len(shown.splitlines()) == 3
    assert shown.endswith(f"{letters.function.name}: 5 dead letters, the oldest 2 shown\n")


def test_a_letter_is_shown_whole(letters: Letters) -> None:
    letters.add(b'{"n": 1}')
    request_id = letters.add(b"\xff no JSON")

    done = letters.command("show", letters.function.name, request_id)

    assert json.loads(done.stdout) == {
        "request_id": request_id,
        "first_queued_ms": 1_700_000_000_000,
        "attempts": 3,
        "error_code": 200,
        "error_message": "on purpose",
        "payload": "\ufffd no JSON",
    }
    assert len(letters.taken("dead")) == 2


def test_a_letter_that_is_not_there_is_one_line(letters: Letters) -> None:
    done = letters.command("show", letters.function.name, "nosuch")

    assert done.returncode == 1
    assert done.stderr == f"Error: {letters.function.name} has no dead letter nosuch\n"


def test_redriven_letters_are_events_with_a_fresh_start(letters: Letters) -> None:
    ids = [letters.add(b"[%d]" % n) for n in range(250)]

    done = letters.command("redrive", letters.function.name)

    assert done.returncode == 0, done.stderr
    assert "250 dead letters are invoked again" in done.stdout
    events = letters.taken("events")
    assert [body for _, body in events] == [b"[%d]" % n for n in range(250)]
    assert [properties.correlation_id for properties, _ in events] == ids
    assert {properties.headers["X-Lambda-Attempt"] for properties, _ in events} == {1}
    assert letters.taken("dead") == []


def test_an_interrupted_redrive_loses_nothing(letters: Letters) -> None:
    ids = {letters.add(b"[%d]" % n) for n in range(300)}
    moved = 0

    def on_moved() -> None:
        nonlocal moved
        moved += 1
        if moved == 150:
            raise KeyboardInterrupt

    dead = DeadLetters(BrokerAddress(uri=letters.uri), letters.function)
    with pytest.raises(KeyboardInterrupt):
        dead.redrive(on_moved)
    dead.close()

    events = {properties.correlation_id for properties, _ in letters.taken("events")}
    left = {properties.correlation_id for properties, _ in letters.taken("dead")}
    assert events | left == ids
    assert len(events) >= 150
    assert left


def test_a_letter_that_is_no_invocation_stays(letters: Letters) -> None:
    letters.publish(Properties(headers={"X-Amz-Client-Context": "no base64"}), b"{}")
    letters.add(b"{}")

    done = letters.command("redrive", letters.function.name)

    assert "1 dead letters are invoked again" in done.stdout
    assert (len(letters.taken("events")), len(letters.taken("dead"))) == (1, 1)


def test_without_a_queue_for_events_nothing_is_removed(letters: Letters) -> None:
    letters.add(b"{}")
    letters.channel.queue_delete(f"{letters.function.name}.events")

    done = letters.command("redrive", letters.function.name)

    assert done.returncode == 1
    assert "the broker took no invocation (returned)" in done.stderr
    assert len(letters.taken("dead")) == 1


def test_purged_letters_are_gone_when_that_is_confirmed(letters: Letters) -> None:
    letters.add(b"{}")

    refused = letters.command("purge", letters.function.name)
    assert refused.returncode == 1
    done = letters.command("purge", letters.function.name, "--yes")

    assert (done.returncode, done.stdout) == (0, "1 dead letters removed\n")
    assert letters.taken("dead") == []


@pytest.mark.parametrize("command", ["list", "show", "redrive"])
def test_an_unknown_function_is_one_line(letters: Letters, command: str) -> None:
    done = letters.command(command, "nobody")

    assert done.returncode == 1
    assert done.stderr.startswith("Error: no queue nobody.dead: no rapid of the function nobody")
    assert done.stderr.count("\n") == 1


def test_without_a_broker_the_command_says_what_it_needs(letters: Letters) -> None:
    unset = letters.command("list", "echo", AMQP_URI="")
    away = letters.command("list", "echo", AMQP_URI="amqp://guest:secret@127.0.0.1:1")

    assert "AMQP_URI is not set; expected amqp://host:port/vhost" in unset.stderr
    assert away.returncode == 1
    assert "the broker is not reached" in away.stderr
    assert "secret" not in away.stderr
