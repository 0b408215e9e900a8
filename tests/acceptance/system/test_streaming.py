"""Responses that are streamed while rapid, the server, the broker or the reader fails.

Nothing hangs, nothing that was cut off looks whole, and the function's slot is free afterwards.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from devtools.ports import LOOPBACK
from devtools.rabbitmq_node import RabbitmqNode
from lambda_protocol.eventstream import Decoder, Message
from tests.acceptance.system.amqp import AmqpClient
from tests.conftest import StartRapid, StartServer
from tests.support import LIMIT_S, MISBEHAVE, Rapid, Server

MIB = 1_048_576


class Stream:
    """One streamed response, and what has been read of it."""

    def __init__(self, door: Door, event: dict[str, Any]) -> None:
        self.connection = http.client.HTTPConnection(LOOPBACK, door.port, timeout=LIMIT_S)
        path = f"/2021-11-15/functions/{door.name}/response-streaming-invocations"
        self.connection.request("POST", path, json.dumps(event))
        self._answer = self.connection.getresponse()
        self._decoder = Decoder()
        self.data = bytearray()
        self.last: Message | None = None  #: InvokeComplete, or an error
        self.is_cut = False  #: the body broke off

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self._answer.close()

    def read(self, most: int = MIB) -> bool:
        """Read what has come; False at the end."""
        try:
            data = self._answer.read1(most)
        except (OSError, http.client.HTTPException):
            self.is_cut = True
            return False
        for message in self._decoder.feed(data):
            if message.headers.get(":event-type") == "PayloadChunk":
                self.data += message.payload
            else:
                assert self.last is None
                self.last = message
        return bool(data)

    def read_until(self, count: int) -> None:
        """Read until so many bytes of the response have come."""
        while len(self.data) < count:
            assert self.read(), (self.last, self.is_cut)

    def read_all(self) -> Self:
        """Read to the end, whatever it is."""
        while self.read():
            pass
        return self

    @property
    def is_whole(self) -> bool:
        """Whether the caller takes it for whole."""
        return not self.is_cut and self.last is not None and self.last.payload == b"{}"

    @property
    def fault(self) -> str | None:
        """The text of an error message, if it ended with one."""
        if self.last is None or self.last.headers[":message-type"] != "error":
            return None
        return self.last.headers[":error-message"]


@dataclass(frozen=True, slots=True)
class Door:
    """Where a function is called."""

    port: int
    function: Rapid
    server: Server | None = None

    @property
    def name(self) -> str:
        """The function's."""
        return self.function.function_name

    def stream(self, **event: Any) -> Stream:
        """Call the function."""
        return Stream(self, {"do": "stream", **event})

    def assert_slot_is_free(self) -> None:
        """Call the function again."""
        with self.stream(parts=["next"]) as stream:
            assert stream.read_all().is_whole
            assert stream.data == b"next"

    def memory(self) -> list[int]:
        """Return what the programs have that the response passes through, bytes."""
        found = [psutil.Process(self.function.pid)]
        if self.server is not None:
            found += psutil.Process(self.server.pid).children()
        return [process.memory_info().rss for process in found]


#: Starts a rapid with these settings, and what leads to it.
Open = Callable[..., Door]


@pytest.fixture(params=["rapid", "direct", "broker"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_door(
    way: str, request: pytest.FixtureRequest, start_rapid: StartRapid, start_server: StartServer
) -> Open:
    def open_(uri: str | None = None, **settings: Any) -> Door:
        if way == "broker":
            uri = uri or request.getfixturevalue("broker")
            rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=uri, **settings)
            server = start_server(AMQP_URI=uri)
            return Door(server.port, rapid, server)
        rapid = start_rapid(MISBEHAVE, **settings)
        if way == "rapid":
            return Door(rapid.port, rapid)
        server = start_server(LAMBDA_ENDPOINTS=rapid.endpoint)
        return Door(server.port, rapid, server)

    return open_


# --- who fails


def test_a_rapid_that_is_killed_cuts_its_stream(open_door: Open, tmp_path: Path) -> None:
    door = open_door()
    with door.stream(parts=["some", "more"], until=str(tmp_path / "never")) as stream:
        stream.read_until(4)

        os.kill(door.function.pid, signal.SIGKILL)

        stream.read_all()
    assert stream.is_cut
    if door.server is not None:
        assert "instance" in str(stream.fault)


def test_another_instance_is_called_after_one_was_killed_in_mid_stream(
    broker: str, start_rapid: StartRapid, start_server: StartServer, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"RAPID_AMQP_URI": broker}
    first = start_rapid(MISBEHAVE, **settings)
    server = start_server(AMQP_URI=broker)
    door = Door(server.port, first, server)
    with door.stream(parts=["some", "more"], until=str(tmp_path / "never")) as stream:
        stream.read_until(4)
        second = start_rapid(MISBEHAVE, AWS_LAMBDA_FUNCTION_NAME=door.name, **settings)

        os.kill(first.pid, signal.SIGKILL)

        stream.read_all()
    assert stream.is_cut
    assert "lost" in str(stream.fault)
    Door(server.port, second, server).assert_slot_is_free()


def test_a_broker_that_is_killed_cuts_the_streams_through_it(
    node: RabbitmqNode, start_rapid: StartRapid, start_server: StartServer, tmp_path: Path
) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=node.uri)
    server = start_server(AMQP_URI=node.uri)
    door, gate = Door(server.port, rapid, server), tmp_path / "gate"
    with door.stream(parts=["some", "more"], until=str(gate)) as stream:
        stream.read_until(4)

        node.kill()

        stream.read_all()
    assert stream.is_cut
    assert stream.data == b"some"
    gate.touch()
    node.start()
    rapid.wait_for_log("consuming", count=2)
    door.assert_slot_is_free()


def test_a_node_of_a_cluster_that_is_killed_cuts_the_streams_through_it(
    cluster: list[RabbitmqNode],
    start_rapid: StartRapid,
    start_server: StartServer,
    tmp_path: Path,
) -> None:
    ours, theirs, _ = cluster
    settings = {"RAPID_AMQP_QUEUE_TYPE": "quorum"}
    rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=theirs.uri, **settings)
    server = start_server(AMQP_URI=ours.uri)
    door, gate = Door(server.port, rapid, server), tmp_path / "gate"
    other = start_rapid(
        MISBEHAVE, AWS_LAMBDA_FUNCTION_NAME=door.name, RAPID_AMQP_URI=ours.uri, **settings
    )
    streams = [door.stream(parts=["some", "more"], until=str(gate)) for _ in range(2)]
    with ExitStack() as stack:
        for stream in map(stack.enter_context, streams):
            stream.read_until(4)

        theirs.kill()
        gate.touch()

        whole = [stream.read_all().is_whole for stream in streams]
    assert sorted(whole) == [False, True]  # one of each instance
    Door(server.port, other, server).assert_slot_is_free()


def test_a_server_that_is_killed_leaves_no_function_waiting(
    broker: str, start_rapid: StartRapid, start_server: StartServer
) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=broker)
    first, second = start_server(AMQP_URI=broker), start_server(AMQP_URI=broker)
    with Door(first.port, rapid).stream(parts=["x" * MIB], count=32) as stream:
        stream.read_until(1)

        for process in (*psutil.Process(first.pid).children(), psutil.Process(first.pid)):
            process.kill()

        assert stream.read_all().is_cut
    Door(second.port, rapid, second).assert_slot_is_free()


# --- readers


@pytest.mark.parametrize("has_read", [1, 8 * MIB])
def test_a_reader_that_goes_away_leaves_the_function_its_slot(
    open_door: Open, has_read: int
) -> None:
    door = open_door()
    with door.stream(parts=["x" * MIB], count=32) as stream:
        stream.read_until(has_read)

    door.assert_slot_is_free()


def test_a_function_writes_no_faster_than_its_reader_reads(open_door: Open, tmp_path: Path) -> None:
    door, wrote = open_door(), tmp_path / "wrote"
    with door.stream(parts=["x" * MIB], count=64, wrote=str(wrote)) as stream:
        stream.read_until(16 * MIB)

        assert not wrote.exists()  # 48 MiB are more than all that is on its way

        assert stream.read_all().is_whole
    assert (len(stream.data), wrote.exists()) == (64 * MIB, True)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_200_mib_pass_in_little_memory(open_door: Open) -> None:
    door = open_door()
    door.assert_slot_is_free()
    idle = most = door.memory()
    with door.stream(parts=["x" * 65_536], count=3200) as stream:
        for number in range(200):
            stream.read_until(number * MIB)
            most = list(map(max, most, door.memory()))
        stream.read_all()
    assert (len(stream.data), stream.is_whole) == (200 * MIB, True)
    assert all(peak - before < 32 * MIB for before, peak in zip(idle, most, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_one_byte_more_than_200_mib_is_too_much(open_door: Open) -> None:
    door = open_door()

    with door.stream(parts=["x" * 65_536], count=3200, tail="y") as stream:
        stream.read_all()

    assert len(stream.data) == 200 * MIB
    assert stream.last is not None
    assert json.loads(stream.last.payload)["ErrorCode"] == "Function.ResponseSizeTooLarge"
    door.assert_slot_is_free()


def test_streams_side_by_side_do_not_mix(open_door: Open) -> None:
    door = open_door(RAPID_MAX_CONCURRENCY="3")

    def read(letter: str) -> bool:
        with door.stream(parts=[letter * 50_000], count=100) as stream:
            return stream.read_all().is_whole and stream.data == letter.encode() * 5_000_000

    with door.stream(parts=["slow" * MIB], count=8) as slow:
        slow.read_until(1)
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(read, "ab")) == [True, True]
        assert slow.read_all().is_whole


# --- programs of before


def test_a_caller_that_knows_no_streams_gets_one_reply(
    broker: str, start_rapid: StartRapid
) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=broker)

    with AmqpClient(broker) as client:
        reply = client.call(rapid.function_name, b'{"do":"stream","parts":["a","b"]}')

    assert reply.body == b"ab"
