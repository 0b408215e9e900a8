"""Events: how many are accepted a second, and how many are run, beside calls."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pika

from bench import launches
from bench.errors import LoadFailed
from bench.load import run_wrk
from bench.subjects import Setup
from devtools.progress import Step, wait_until
from devtools.rabbitmq_node import RabbitmqNode

#: Of the event queue, each on a broker of its own.
QUEUE_TYPES = ("quorum", "classic")
_CONNECTIONS = 16
_DRAIN_LIMIT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRates:
    """One round with one type of queue, all a second."""

    accepted_by_one: float  #: by one connection, with nothing to take the events
    accepted: float  #: by 16
    drained: float  #: by one instance, with nothing else to do
    calls: float  #: by 16 connections, in the same round


def measure_events(
    setup: Setup, folder: Path, *, rounds: int, seconds: int
) -> dict[str, list[EventRates]]:
    """Return the rates of each type of queue, one a round; the rounds are interleaved."""
    rates: dict[str, list[EventRates]] = {name: [] for name in QUEUE_TYPES}
    with ExitStack() as stack:
        with Step("start private RabbitMQs"):
            nodes = {name: stack.enter_context(RabbitmqNode(folder / name)) for name in QUEUE_TYPES}
        for number in range(1, rounds + 1):
            for name, node in nodes.items():
                with Step(f"round {number} of {rounds}: {name}") as step:
                    found = _measure(setup, folder, node.uri, name, seconds)
                    rates[name].append(found)
                    step.result(f"{found.accepted:,.0f} accepted, {found.drained:,.0f} drained")
    return rates


def _measure(setup: Setup, folder: Path, uri: str, queue_type: str, seconds: int) -> EventRates:
    rapid = launches.rapid(
        setup.echo, amqp_uri=uri, settings={"RAPID_AMQP_EVENT_QUEUE_TYPE": queue_type}
    )
    server = launches.server(uri, workers=setup.workers)
    with server.running(folder):
        with rapid.running(folder):
            calls = run_wrk(server.url, connections=_CONNECTIONS, seconds=seconds)
        # Its queues stay, so that events are accepted while nobody takes them.
        accepted = [
            run_wrk(server.url, connections=connections, seconds=seconds, as_events=True)
            for connections in (1, _CONNECTIONS)
        ]
        if any(sum(load.errors.values()) for load in accepted):
            raise LoadFailed(f"events were refused: {[load.errors for load in accepted]}")
        drained = _drain(rapid, folder, uri)
    one, many = (load.answers / load.duration_s for load in accepted)
    return EventRates(
        accepted_by_one=one,
        accepted=many,
        drained=drained,
        calls=calls.answers / calls.duration_s,
    )


def _drain(rapid: launches.Launch, folder: Path, uri: str) -> float:
    """Start an instance and return how many events a second it does until none is left."""
    connection = pika.BlockingConnection(pika.URLParameters(uri))
    channel = connection.channel()
    queue = f"{launches.FUNCTION_NAME}.events"

    def waiting() -> int:
        answer = channel.queue_declare(queue, passive=True)
        return int(answer.method.message_count or 0)

    with rapid.running(folder):
        begun, count = time.monotonic(), waiting()
        if not wait_until(lambda: waiting() == 0, _DRAIN_LIMIT_S):
            raise LoadFailed(f"{waiting()} of {count} events are left after {_DRAIN_LIMIT_S:g} s")
        taken_s = time.monotonic() - begun
    connection.close()
    return count / taken_s


def render_events(rates: Mapping[str, Sequence[EventRates]]) -> str:
    """Return the table, in Markdown: medians, [least..most] beside them."""
    lines = [
        "| event queue | accepted/s, 1 connection | accepted/s, 16 | drained/s | calls/s, 16 |",
        "|---|---|---|---|---|",
    ]
    for name, rounds in rates.items():
        figures = [
            [getattr(one, field) for one in rounds]
            for field in ("accepted_by_one", "accepted", "drained", "calls")
        ]
        cells = [f"{median(all_):,.0f} [{min(all_):,.0f}..{max(all_):,.0f}]" for all_ in figures]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
