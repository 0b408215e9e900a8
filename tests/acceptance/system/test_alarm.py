"""RabbitMQ takes no messages, or stands still: answers at once, and nothing refused runs later."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from devtools.rabbitmq_node import RabbitmqNode
from tests.acceptance.system.conftest import Ledger
from tests.conftest import StartRapid, StartServer
from tests.support import ECHO, LIMIT_S, Rapid, Server, WebProgram, wait_until

KINDS = ("RequestResponse", "Event", "DryRun")
REASON = "low on memory"
#: How long a program may take to hear of an alarm while it sends nothing, seconds.
HEARD_S = 30.0


@pytest.fixture
def calm(node: RabbitmqNode) -> Iterator[RabbitmqNode]:
    """Give a broker whose alarm is over at the end."""
    yield node
    end_alarm(node)


def begin_alarm(node: RabbitmqNode) -> None:
    node.ctl("set_vm_memory_high_watermark", "0")


def end_alarm(node: RabbitmqNode) -> None:
    node.ctl("set_vm_memory_high_watermark", "0.9")


def is_blocked(program: WebProgram) -> bool:
    lines = program.get("/metrics").body.decode().splitlines()
    (value,) = [line for line in lines if line.startswith("lambda_broker_blocked")]
    return value.endswith(" 1.0")


def wait_for_empty(node: RabbitmqNode, queue: str) -> None:
    """Wait until no message is in a queue, nor with a consumer of it."""

    def is_empty() -> bool:
        rows = [row.split() for row in node.ctl("list_queues", "name", "messages").splitlines()]
        return [queue, "0"] in rows

    wait_until(is_empty, f"the queue {queue} to be empty")


def thread_states(pid: int | None) -> list[str]:
    """Return how the kernel says the threads of a process are: T is stopped."""
    stats = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return [text.rpartition(")")[2].split()[0] for text in stats]


@pytest.fixture
def programs(calm: RabbitmqNode, start_server: StartServer, ledger: Ledger) -> tuple[Rapid, Server]:
    """Give a rapid with one slot and a Lambda Server; calls time out soon."""
    rapid = ledger.start(RAPID_AMQP_URI=calm.uri)
    server = start_server(AMQP_URI=calm.uri, INVOKE_QUEUE_TIMEOUT="5", CONNECT_TIMEOUT="1")
    assert server.invoke(rapid.function_name, "[0]").body == b"[0]"
    return rapid, server


def test_an_alarm_is_told_at_once_by_both_programs_and_leaves_nothing_behind(
    programs: tuple[Rapid, Server], calm: RabbitmqNode
) -> None:
    rapid, server = programs

    begin_alarm(calm)
    answers = [server.invoke(rapid.function_name, X_Amz_Invocation_Type=kind) for kind in KINDS]
    answers.append(rapid.invoke(X_Amz_Invocation_Type="Event"))
    answers.append(server.invoke(rapid.function_name, b'"%s"' % (b"x" * 5_000_000)))

    for answer in answers:
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (503, "ServiceException")
        assert REASON in answer.json()["Message"]
    for program in programs:
        wait_until(lambda program=program: is_blocked(program), "the metric", HEARD_S)  # type: ignore[misc]
        ready = program.get("/readyz")
        assert (ready.status, REASON in ready.json()["status"]) == (503, True)
        assert f"broker_says={REASON}" in program.wait_for_log("RabbitMQ takes no messages")
    assert rapid.invoke("[1]").body == b"[1]"

    end_alarm(calm)

    for program in programs:
        program.wait_ready()
        program.wait_for_log("RabbitMQ takes messages again")
        assert not is_blocked(program)
    for kind, status in zip(KINDS, (200, 202, 204), strict=True):
        answer = server.invoke(rapid.function_name, X_Amz_Invocation_Type=kind)
        assert answer.status == status
    assert rapid.invoke(X_Amz_Invocation_Type="Event").status == 202


@pytest.mark.parametrize("slot_is_taken_by", ["a call", "a direct call"])
def test_what_was_refused_in_an_alarm_never_runs(
    programs: tuple[Rapid, Server],
    calm: RabbitmqNode,
    ledger: Ledger,
    pool: ThreadPoolExecutor,
    slot_is_taken_by: str,
) -> None:
    rapid, server = programs
    name = rapid.function_name
    if slot_is_taken_by == "a call":
        running = pool.submit(server.invoke, name, ledger.held)
    else:  # then rapid holds one of the calls that wait
        running = pool.submit(rapid.invoke, ledger.held)
    ledger.wait_for(2)
    waiting = [pool.submit(server.invoke, name, f'["waiting {n}"]') for n in range(3)]

    begin_alarm(calm)
    refused = [call.result(LIMIT_S) for call in waiting]
    refused += [server.invoke(name, '["sent in the alarm"]') for _ in range(2)]
    refused.append(server.invoke(name, '["an event"]', X_Amz_Invocation_Type="Event"))
    refused.append(rapid.invoke('["an event"]', X_Amz_Invocation_Type="Event"))
    ledger.open()
    if slot_is_taken_by == "a direct call":
        assert running.result(LIMIT_S).status == 200
    end_alarm(calm)

    assert {answer.status for answer in refused} == {503}
    assert running.result(LIMIT_S).status in (200, 503)  # it may not have been told as started
    wait_for_empty(calm, name)
    wait_for_empty(calm, f"{name}.events")
    assert server.invoke(name, "[9]").body == b"[9]"
    assert ledger.events == ["[0]", ledger.held, "[9]"]


def test_a_rapid_that_starts_in_an_alarm_serves_when_it_is_over_or_stops_in_it(
    calm: RabbitmqNode, start_rapid: StartRapid, start_server: StartServer
) -> None:
    begin_alarm(calm)

    rapid = start_rapid(ECHO, RAPID_AMQP_URI=calm.uri, ready=False)
    rapid.wait_for_log("RabbitMQ takes no messages")
    assert rapid.get("/readyz").status == 503
    assert start_rapid(ECHO, RAPID_AMQP_URI=calm.uri, ready=False).stop() == 0
    end_alarm(calm)

    rapid.wait_ready()
    assert start_server(AMQP_URI=calm.uri).invoke(rapid.function_name, "[1]").body == b"[1]"


def test_what_was_answered_while_the_broker_stood_still_never_runs(
    programs: tuple[Rapid, Server], calm: RabbitmqNode, ledger: Ledger, pool: ThreadPoolExecutor
) -> None:
    rapid, server = programs
    name = rapid.function_name
    warm = [pool.submit(server.invoke, name, f"[{n}]") for n in range(8)]  # connections are there
    assert {call.result(LIMIT_S).status for call in warm} == {200}
    assert calm.pid is not None

    os.kill(calm.pid, signal.SIGSTOP)
    wait_until(lambda: set(thread_states(calm.pid)) == {"T"}, "the broker to stand still")
    event: dict[str, Any] = {"X_Amz_Invocation_Type": "Event"}
    calls = [pool.submit(server.invoke, name, '["a call"]') for _ in range(4)]
    calls += [pool.submit(server.invoke, name, '["an event"]', **event) for _ in range(2)]
    calls.append(pool.submit(rapid.invoke, '["an event"]', **event))
    statuses = [call.result(LIMIT_S).status for call in calls]
    os.kill(calm.pid, signal.SIGCONT)

    assert min(statuses) >= 500
    rapid.wait_ready()
    server.wait_ready()
    wait_for_empty(calm, name)
    wait_for_empty(calm, f"{name}.events")
    assert server.invoke(name, "[9]").body == b"[9]"
    assert not [event for event in ledger.events if '"a' in event]
