"""The attacks, one function each: a round of it, which yields what came of each try.

An exception ends a round. Only a fault of RabbitMQ, made on purpose, explains one.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import pika

from lambda_protocol.function_name import FunctionRef
from lambda_protocol.limits import ASYNC_PAYLOAD_BYTES, SYNC_PAYLOAD_BYTES
from lambda_protocol.queues import async_queue_name
from tests.acceptance.soak.stand import Stand
from tests.acceptance.system.amqp import AmqpClient
from tests.acceptance.system.poison import RawPublisher, random_body, random_table, random_text
from tests.framings import READ_AS, Read
from tests.support import LIMIT_S, Client, RawConnection, unique_name, wait_for

#: What came of a try: a status, or words.
Outcome = int | str
Round = Callable[[Stand, random.Random], Iterator[Outcome]]

HOST: Final = b"Host: x\r\n"
#: A slow peer has been let go long before this, seconds.
SLOW_LIMIT_S: Final = 30.0
#: AWS's limit is a string of so many bytes, quotes included.
LARGEST: Final = b'"' + b"x" * (SYNC_PAYLOAD_BYTES - 2) + b'"'
ODD_ERRORS: Final = (
    '{"errorMessage": "\\ud800", "errorType": "\\udfff"}',
    '{"errorMessage": "a\\r\\nX-Amz-Executed-Version: 7", "errorType": "a\\nb"}',
    '{"errorMessage": "\\u0000\\u0085\\u2028", "errorType": "\U0001f4a5"}',
    '{"errorMessage": ["no", {"text": 1}], "errorType": null}',
    '{"errorMessage": "' + "x" * 200_000 + '"}',
    "not json",
    "",
)
ESCAPES: Final = "\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b5n\u202e"


def _invoke(stand: Stand, rng: random.Random, body: bytes, **headers: str) -> Outcome:
    """Return the status of a call through either door; of a fault its words, too."""
    port, path = stand.door(rng)
    with Client(port, 2 * LIMIT_S) as client:
        answer = client.post(path, body, **headers)
    if answer.status < 500:
        return answer.status
    way = "direct" if port == stand.direct.port else "server"
    return f"{answer.status} {way}: {answer.json().get('Message')}"


def _do(stand: Stand, rng: random.Random, headers: dict[str, str], **event: Any) -> Outcome:
    return _invoke(stand, rng, json.dumps(event).encode(), **headers)


def poison(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Publish 20 messages of any bytes, field types and text to both queues."""
    queues = [stand.function, async_queue_name(FunctionRef(name=stand.function))]
    with contextlib.closing(RawPublisher(stand.node.uri)) as publisher:
        for _ in range(20):
            body, table = random_body(rng), random_table(rng)
            publisher.publish(rng.choice(queues), body, random_text(rng), table)
        publisher.flush()
    yield from ["published"] * 20


def too_large_messages(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Call over the limit through RabbitMQ, and publish an event over its own."""
    with AmqpClient(stand.node.uri) as amqp:
        size = rng.choice([SYNC_PAYLOAD_BYTES + 1, 5 * SYNC_PAYLOAD_BYTES])
        reply = amqp.call(stand.function, b'"' + b"x" * (size - 2) + b'"')
        yield int(reply.headers["X-Lambda-Status"])
        amqp.publish(f"{stand.function}.events", b'"' + b"x" * ASYNC_PAYLOAD_BYTES + b'"')
        yield "published"


def bad_replies(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Answer a call, as a rapid gone wrong, with headers that split or break the response."""
    value = rng.choice(["1\r\nSet-Cookie: a=b\r\n\r\nHTTP/1.1 200 OK", "\U0001f4a5", "a\x00b"])
    with AmqpClient(stand.node.uri) as amqp, ThreadPoolExecutor(1) as pool:
        queue = unique_name("rogue")
        amqp.channel.queue_declare(queue, arguments={"x-expires": 60_000})
        answer = pool.submit(
            Client(stand.server.port).post, f"/2015-03-31/functions/{queue}/invocations", b"{}"
        )
        _, properties, _ = wait_for(
            lambda: got if (got := amqp.channel.basic_get(queue, auto_ack=True))[0] else None,
            "the call",
        )
        headers = {"X-Amz-Executed-Version": value}
        amqp.publish(
            properties.reply_to,
            b"{}",
            pika.BasicProperties(correlation_id=properties.correlation_id, headers=headers),
        )
        yield answer.result(LIMIT_S).status


def framings(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Send every framing of the table to an HTTP port: read as it says, or refused."""
    port, _ = stand.door(rng)
    for name, (data, expected) in READ_AS.items():
        with contextlib.suppress(OSError), RawConnection(port) as connection:
            connection.send(data)
            connection.close_sending()
            statuses = re.findall(rb"HTTP/1\.1 (\d{3}) ", connection.read_to_end())
            is_so = _is_read_as(expected, [int(status) for status in statuses])
            yield "as RFC 9112 says" if is_so else f"{name}: {statuses}"


def _is_read_as(expected: Read, statuses: list[int]) -> bool:
    wanted = [each for each in expected if each != "truncated"]  # which may be answered or not
    return len(statuses) in (len(wanted), len(expected)) and all(
        each == status for each, status in zip(wanted, statuses, strict=False) if each in (400, 413)
    )


def made_up_methods(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Ask by methods that nobody has heard of."""
    port, path = stand.door(rng)
    for _ in range(20):
        with RawConnection(port) as connection:
            method = b"BREW%d" % rng.randrange(10**6)
            connection.send(method + b" " + path.encode() + b" HTTP/1.1\r\n" + HOST + b"\r\n")
            yield connection.read_answer().status


def made_up_names(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Call functions that nobody has."""
    with Client(stand.server.port) as client:
        for _ in range(10):
            path = f"/2015-03-31/functions/made-up-{rng.randrange(10**9)}/invocations"
            yield client.post(path, b"{}").status


def slow_heads(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Send the head of 20 requests a byte at a time."""
    yield from _drip(stand, rng, b"POST / HTTP/1.1\r\n" + HOST + b"X-Slow: ")


def slow_bodies(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Send the body of 20 requests a byte at a time."""
    port, path = stand.door(rng)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    yield from _drip(stand, rng, head.encode(), port)


def _drip(
    stand: Stand, rng: random.Random, head: bytes, port: int | None = None
) -> Iterator[Outcome]:
    """Open 20 connections, send ``head``, and then a byte each half second until hung up on."""
    with contextlib.ExitStack() as stack:
        port = port or stand.door(rng)[0]
        held = {stack.enter_context(RawConnection(port)) for _ in range(20)}
        for connection in held:
            connection.send(head)
        deadline = time.monotonic() + SLOW_LIMIT_S
        while held and time.monotonic() < deadline:
            time.sleep(0.5)
            for connection in list(held):
                try:
                    connection.send(b"1")
                except OSError:
                    held.remove(connection)
                    yield "hung up on"
        yield from [f"held for {SLOW_LIMIT_S:g} s"] * len(held)


def idle_connections(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Hold 300 connections for five seconds and say nothing; the last is then answered."""
    port, _ = stand.door(rng)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(RawConnection(port)) for _ in range(300)]
        time.sleep(5)
        connections[-1].send(b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
        yield connections[-1].read_answer().status


def hang_ups(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Ask five times for a second of work, and hang up before the answer."""
    port, path = stand.door(rng)
    body = b'{"do": "sleep", "s": 1}'
    for _ in range(5):
        with RawConnection(port) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            cut = rng.choice([len(head) // 2, len(head) + 5, len(head) + len(body)])
            connection.send((head.encode() + body)[:cut])
            time.sleep(rng.random() / 5)
        yield "hung up"


def large_bodies(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Call with the largest payload there may be, which comes back."""
    yield _invoke(stand, rng, LARGEST)


def too_large_bodies(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Call with a byte more, and with twice of it."""
    yield _invoke(stand, rng, LARGEST + b" ")
    yield _invoke(stand, rng, LARGEST + b" " * SYNC_PAYLOAD_BYTES)


def deep_json(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Call with JSON that is expensive to build: deep, or of a million small objects."""
    depth = 10 ** rng.randrange(3, 7)
    yield _invoke(stand, rng, b"[" * depth + b"]" * depth)
    yield _invoke(stand, rng, b"[" + b'{"":0},' * 800_000 + b"0]")


def log_floods(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Print 100 KB in an invocation, its tail asked for."""
    to = rng.choice(["stdout", "stderr"])
    tail = {"X_Amz_Log_Type": "Tail"}
    yield _do(stand, rng, tail, do="print", text="flood" * 9 + "\n", times=2_000, to=to)


def timeouts(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Leave a process that hides, and never answer the next call."""
    argv = ["env", "-i", "sh", "-c", "sleep 600; exit", stand.orphan_mark]
    yield _do(stand, rng, {}, do="spawn_orphan", argv=argv)
    yield _do(stand, rng, {}, do="sleep", s=60)


def exits(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Let the runtime end without an answer, by itself or by a signal."""
    yield _do(stand, rng, {}, do="exit", code=rng.randrange(256))
    yield _do(stand, rng, {}, do="signal", name=rng.choice(["KILL", "SEGV", "ABRT", "TERM"]))


def failing_events(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Invoke asynchronously what fails with an odd error document."""
    event = {"X_Amz_Invocation_Type": "Event"}
    for body in rng.sample(ODD_ERRORS, 3):
        yield _do(stand, rng, event, do="raise", type="Odd", body=body)


def terminal_escapes(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Let an event fail that would clear the terminal of who looks at its dead letter."""
    error = json.dumps({"errorMessage": ESCAPES, "errorType": ESCAPES})
    event = {"X_Amz_Invocation_Type": "Event"}
    yield _do(stand, rng, event, do="raise", body=error, text=ESCAPES)


def connections_closed(stand: Stand, _rng: random.Random) -> Iterator[Outcome]:
    """Let RabbitMQ close every connection."""
    with stand.fault():
        stand.node.ctl("close_all_connections", "soak")
    yield "back"


def queue_deleted(stand: Stand, rng: random.Random) -> Iterator[Outcome]:
    """Delete one of the function's queues."""
    with stand.fault(), AmqpClient(stand.node.uri) as amqp:
        amqp.delete(stand.function + rng.choice(["", ".events"]))
    yield "back"


@dataclass
class Attack:
    """One attack, how often, and what may come of it; counted by its own thread."""

    round: Round
    pause_s: float
    expected: Sequence[Outcome]
    outcomes: dict[Outcome, int] = field(default_factory=dict)
    surprises: list[str] = field(default_factory=list)  #: beyond what faults explain

    @property
    def name(self) -> str:
        """What it is called in words."""
        return self.round.__name__.replace("_", " ")


def all_attacks() -> list[Attack]:
    """Return every attack, fresh; the pause after a round keeps slots for the healthy caller."""
    return [
        Attack(poison, 1, ["published"]),
        Attack(too_large_messages, 8, [413, "published"]),
        Attack(bad_replies, 2, [502]),
        Attack(framings, 1, ["as RFC 9112 says"]),
        Attack(made_up_methods, 1, [501]),
        Attack(made_up_names, 1, [404]),
        Attack(slow_heads, 2, ["hung up on"]),
        Attack(slow_bodies, 2, ["hung up on"]),
        Attack(idle_connections, 3, [200]),
        Attack(hang_ups, 4, ["hung up"]),
        Attack(large_bodies, 3, [200]),
        Attack(too_large_bodies, 3, [413]),
        Attack(deep_json, 4, [200, 400]),
        Attack(log_floods, 1, [200]),
        Attack(timeouts, 4, [200]),
        Attack(exits, 2, [200]),
        Attack(failing_events, 1, [202]),
        Attack(terminal_escapes, 2, [202]),
        Attack(connections_closed, 30, ["back"]),
        Attack(queue_deleted, 20, ["back"]),
    ]
