"""A response in frames, by RabbitMQ and the broker in memory, with the test as the instance."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pika
import pytest

from lambda_protocol.amqp_connection import connection_parameters
from lambda_protocol.amqp_frames import Properties
from lambda_protocol.environ import BrokerAddress
from lambda_protocol.errors import ServiceException, UnreadableReply
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import Invocation, Outcome
from lambda_protocol.invoke_amqp import DIRECT_REPLY_TO, encode_error, encode_outcome
from lambda_protocol.streamed_amqp import (
    PART_BYTES,
    WINDOW_BYTES,
    End,
    Head,
    encode_end,
    encode_head,
    encode_part,
)
from lambda_server.aside import Aside
from lambda_server.link import SharedLink
from lambda_server.rpc_client import RpcClient
from lambda_server.stream_reading import Windows
from tests.support import LIMIT_S, make_invocation, unique_name, wait_for

MIB = 1_048_576


class Instance:
    """What consumes a function's queue, and takes credit. One thread: the test's."""

    def __init__(self, uri: str) -> None:
        self.ref = FunctionRef(name=unique_name())
        self.connection: Any = pika.BlockingConnection(pika.URLParameters(uri))
        self.channel: Any = self.connection.channel()
        self.channel.queue_declare(self.ref.name)
        self.credit: list[dict[str, Any]] = []  #: headers of what came to our address
        self.channel.basic_consume(DIRECT_REPLY_TO, self._on_credit, auto_ack=True)
        self.call: Any = None  #: properties of the call in hand

    def take(self) -> None:
        """Take the next call."""
        got = wait_for(self._get, "a call in the queue")
        self.call = got[1]

    def send(self, properties: Properties, body: bytes = b"") -> None:
        """Send a frame to the caller."""
        self.channel.basic_publish(
            "",
            self.call.reply_to,
            body,
            pika.BasicProperties(
                content_type=properties.content_type,
                correlation_id=properties.correlation_id,
                reply_to=properties.reply_to,
                headers=dict(properties.headers),
            ),
        )

    def send_head(self, body: bytes, invocation: Invocation) -> None:
        """Send the first frame."""
        head = encode_head(
            self.call.correlation_id,
            invocation,
            content_type="text/x",
            executed_version="3",
            within_s=LIMIT_S,
        )
        self.send(head, body)

    def send_part(self, number: int, body: bytes) -> None:
        """Send a further frame."""
        self.send(encode_part(self.call.correlation_id, number), body)

    def send_end(self, number: int, body: bytes = b"") -> None:
        """Send the last frame."""
        self.send(encode_end(self.call.correlation_id, number, Outcome(payload=body)), body)

    def next_credit(self) -> dict[str, Any]:
        """Wait for what comes to our address."""

        def find() -> dict[str, Any] | None:
            self.connection.process_data_events(0.01)
            return self.credit.pop(0) if self.credit else None

        return wait_for(find, "credit")

    def close(self) -> None:
        """Delete the queue and hang up."""
        self.channel.queue_delete(self.ref.name)
        self.connection.close()

    def _on_credit(self, _channel: object, _method: object, properties: Any, _body: bytes) -> None:
        assert properties.correlation_id
        self.credit.append(properties.headers)

    def _get(self) -> Any:
        got = self.channel.basic_get(self.ref.name, auto_ack=True)
        return None if got[0] is None else got


@pytest.fixture
def instance(either_broker: str) -> Iterator[Instance]:
    instance = Instance(either_broker)
    yield instance
    instance.close()


Begin = Callable[[], tuple[Invocation, Generator[Head | bytes, None, End]]]


@pytest.fixture
def begin(either_broker: str, instance: Instance) -> Iterator[Begin]:
    """Give a factory: a call whose response is wanted while it is written."""
    parameters = connection_parameters(BrokerAddress(uri=either_broker), name="test")
    link = SharedLink(parameters)
    opened: list[SharedLink] = [link]

    def connect() -> SharedLink:
        opened.append(SharedLink(parameters))
        return opened[-1]

    client = RpcClient.over(link, queue_timeout_s=LIMIT_S)
    aside = Aside(connect)

    def begin() -> tuple[Invocation, Generator[Head | bytes, None, End]]:
        invocation = make_invocation(function=instance.ref)
        return invocation, client.stream(invocation, None, aside, WINDOW_BYTES)

    yield begin
    for each in opened:
        each.close()


@pytest.fixture
def stream(begin: Begin, instance: Instance) -> Iterator[Generator[Head | bytes, None, End]]:
    """Give a response that has begun; its head is read, and its first part, ``a``."""
    invocation, frames = begin()
    with ThreadPoolExecutor(1) as thread:
        head = thread.submit(next, frames)
        instance.take()
        instance.send_head(b"a", invocation)
        found = head.result(LIMIT_S)
    assert isinstance(found, Head)
    assert (found.content_type, found.executed_version) == ("text/x", "3")
    assert next(frames) == b"a"
    yield frames
    frames.close()


def outcome_of(frames: Generator[Head | bytes, None, End]) -> Outcome:
    with pytest.raises(StopIteration) as end:
        next(frames)
    found = end.value.value
    assert isinstance(found, End)
    return found.outcome


def test_parts_come_as_they_are_sent(
    stream: Generator[Head | bytes, None, End], instance: Instance
) -> None:
    instance.send_part(1, b"b")
    assert next(stream) == b"b"

    instance.send_end(2, b"rest")

    assert outcome_of(stream) == Outcome(payload=b"rest")


def test_a_reply_without_frames_is_a_whole_response(begin: Begin, instance: Instance) -> None:
    _, frames = begin()
    with ThreadPoolExecutor(1) as thread:
        end = thread.submit(outcome_of, frames)
        instance.take()
        instance.send(encode_outcome(instance.call.correlation_id, Outcome()), b'"old"')

        assert end.result(LIMIT_S).payload == b'"old"'


@pytest.mark.parametrize("number", [0, 2, 7])
def test_a_part_that_is_not_the_next_is_a_fault(
    stream: Generator[Head | bytes, None, End], instance: Instance, number: int
) -> None:
    instance.send_part(number, b"x")

    with pytest.raises(ServiceException, match="lost on its way"):
        next(stream)


def test_an_end_that_is_not_the_next_is_a_fault(
    stream: Generator[Head | bytes, None, End], instance: Instance
) -> None:
    instance.send_end(5)

    with pytest.raises(ServiceException, match="lost on its way"):
        next(stream)


def test_a_second_head_is_a_fault(
    stream: Generator[Head | bytes, None, End], instance: Instance
) -> None:
    instance.send_head(b"again", make_invocation())

    with pytest.raises(ServiceException, match="lost on its way"):
        next(stream)


def test_an_error_in_mid_stream_is_raised(
    stream: Generator[Head | bytes, None, End], instance: Instance
) -> None:
    error = ServiceException("The instance that ran this invocation was lost.")
    instance.send(encode_error(instance.call.correlation_id, error), error.body())

    with pytest.raises(ServiceException, match="was lost"):
        next(stream)


def test_a_part_beyond_every_limit_is_unreadable(
    stream: Generator[Head | bytes, None, End], instance: Instance
) -> None:
    instance.send_part(1, bytes(7 * MIB))

    with pytest.raises(UnreadableReply):
        next(stream)


def test_credit_is_given_for_what_the_reader_has_taken(
    stream: Generator[Head | bytes, None, End], instance: Instance
) -> None:
    assert instance.call.headers["X-Lambda-Credit"] == WINDOW_BYTES
    instance.send_part(1, bytes(MIB))
    instance.send_part(2, b"c")

    assert next(stream) == bytes(MIB)
    assert next(stream) == b"c"  # by asking for it the reader has taken the one before

    assert instance.next_credit() == {
        "X-Lambda-Frame": "credit",
        "X-Lambda-Credit": 1 + MIB + WINDOW_BYTES,
    }


def test_credit_that_may_have_been_lost_is_given_again_in_the_silence(
    stream: Generator[Head | bytes, None, End], instance: Instance
) -> None:
    instance.send_part(1, bytes(MIB))
    instance.send_part(2, b"c")
    assert [next(stream), next(stream)] == [bytes(MIB), b"c"]
    first = instance.next_credit()
    with ThreadPoolExecutor(1) as thread:
        end = thread.submit(outcome_of, stream)

        assert instance.next_credit() == first

        instance.send_end(3)
        end.result(LIMIT_S)


def test_a_reader_that_goes_away_cancels(
    stream: Generator[Head | bytes, None, End], instance: Instance
) -> None:
    stream.close()

    assert instance.next_credit() == {"X-Lambda-Frame": "cancel"}


def test_an_instance_that_is_gone_is_noticed_in_the_silence(
    stream: Generator[Head | bytes, None, End], instance: Instance
) -> None:
    instance.channel.basic_cancel(instance.channel.consumer_tags[0])
    instance.channel.close()
    instance.channel = instance.connection.channel()

    with pytest.raises(ServiceException, match="instance was lost"):
        next(stream)


def test_many_responses_have_less_on_their_way_each() -> None:
    windows = Windows()
    with ExitStack() as stack:
        given = [stack.enter_context(windows.opened()) for _ in range(1000)]

        assert given[:16] == [WINDOW_BYTES] * 16
        assert given[-1] == 2 * PART_BYTES
        assert sum(given) < 512 * MIB
    with windows.opened() as window_bytes:
        assert window_bytes == WINDOW_BYTES
