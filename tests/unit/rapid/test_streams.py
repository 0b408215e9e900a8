"""A reply in frames: how parts gather, wait for credit, and end. The test plays the channel."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lambda_protocol.amqp_frames import Delivery, Properties
from lambda_protocol.errors import ServiceException
from lambda_protocol.invocation import UNHANDLED, Outcome
from lambda_protocol.invoke_amqp import IncomingCall, ReplyAddress
from lambda_protocol.streamed_amqp import PART_BYTES, encode_cancel, encode_credit
from rapid.broker import streams as streams_module
from rapid.broker.streams import StreamedReply, Streams
from rapid.call import Call
from tests.support import LIMIT_S, make_invocation, wait_until

CREDIT = 3 * PART_BYTES
ADDRESS = ReplyAddress("caller", None)


class Channel:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.frames: list[tuple[str | None, int | None, bytes]] = []  #: frame, number, body
        self.whole: list[tuple[Properties, bytes]] = []
        self.acknowledged = 0

    def send_frame(
        self, _channel: int, address: ReplyAddress, properties: Properties, body: bytes,
        *, last_of: Delivery | None = None,
    ) -> None:  # fmt: skip
        """Keep a frame."""
        assert address is ADDRESS
        headers: Any = properties.headers
        self.frames.append((headers.get("X-Lambda-Frame"), headers.get("X-Lambda-Sequence"), body))
        self.acknowledged += last_of is not None

    def defer(self, command: Callable[[], None]) -> None:
        """Run ``command`` at once, as the consumer's thread does soon."""
        command()

    def reply(self, _delivery: Delivery, _to: str, properties: Properties, body: bytes) -> None:
        """Keep the one reply."""
        self.whole.append((properties, body))
        self.acknowledged += 1


@pytest.fixture
def channel() -> Channel:
    return Channel()


@pytest.fixture
def registry(channel: Channel) -> Streams:
    return Streams(channel, "3")  # type: ignore[arg-type]


Make = Callable[[], StreamedReply]


@pytest.fixture
def asked() -> threading.Event:
    return threading.Event()


@pytest.fixture
def reply(registry: Streams, asked: threading.Event) -> StreamedReply:
    invocation = make_invocation()
    incoming = IncomingCall(
        invocation=invocation,
        reply_to="caller",
        correlation_id="c",
        understands_frames=True,
        sent_s=None,
        credit_bytes=CREDIT,
    )
    call = Call(invocation, lambda outcome: None)
    delivery: Any = object()
    reply = StreamedReply(registry, call, delivery, incoming, ADDRESS, ask_caller=asked.set)
    reply.begin("text/x")
    return reply


def credit_for(reply: StreamedReply, properties: Properties) -> Delivery:
    assert properties.correlation_id == reply.request_id
    return Delivery(
        channel=1, delivery_tag=1, redelivered=False, routing_key="", properties=properties,
        body=b"", body_size=0,
    )  # fmt: skip


def test_the_first_part_is_sent_at_once(reply: StreamedReply, channel: Channel) -> None:
    reply.on_reached(True)

    reply.write(b"a")

    assert channel.frames == [("head", 0, b"a")]
    assert reply.patience_s is None


def test_later_parts_gather_and_a_pause_sends_them(reply: StreamedReply, channel: Channel) -> None:
    reply.on_reached(True)
    reply.write(b"a")
    reply.write(b"b")
    reply.write(b"c")
    assert reply.patience_s is not None

    reply.flush()

    assert channel.frames[1:] == [("chunk", 1, b"bc")]
    assert reply.patience_s is None


def test_much_is_sent_at_once(reply: StreamedReply, channel: Channel) -> None:
    reply.on_reached(True)
    reply.write(b"a")

    reply.write(bytes(PART_BYTES + 1))

    assert [len(body) for _, _, body in channel.frames] == [1, PART_BYTES, 1]


def test_what_is_kept_for_too_long_is_sent(
    reply: StreamedReply, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply.on_reached(True)
    reply.write(b"a")
    reply.write(b"b")
    monkeypatch.setattr(streams_module, "GATHER_S", 0.0)

    reply.write(b"c")

    assert channel.frames[1:] == [("chunk", 1, b"bc")]


def test_a_writer_without_credit_waits_for_it(
    reply: StreamedReply, registry: Streams, channel: Channel
) -> None:
    reply.on_reached(True)
    reply.write(b"a")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(reply.write, bytes(CREDIT + 9))
        wait_until(lambda: sum(len(body) for *_, body in channel.frames) == CREDIT, "all credit")
        assert not writing.done()

        credit = encode_credit(reply.request_id, CREDIT + 10)
        registry.on_delivery(credit_for(reply, credit))

        writing.result(LIMIT_S)
    assert sum(len(body) for *_, body in channel.frames) == CREDIT + 10


def test_less_credit_than_before_takes_nothing_back(
    reply: StreamedReply, registry: Streams, channel: Channel
) -> None:
    reply.on_reached(True)
    reply.write(b"a")
    registry.on_delivery(credit_for(reply, encode_credit(reply.request_id, 1)))

    reply.write(bytes(PART_BYTES))

    assert len(channel.frames) == 2


def test_a_caller_that_gives_no_credit_is_asked_whether_it_waits(
    reply: StreamedReply,
    asked: threading.Event,
    channel: Channel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams_module, "_ASK_EVERY_S", 0.001)
    reply.on_reached(True)
    reply.write(b"a")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(reply.write, bytes(CREDIT))
        assert asked.wait(LIMIT_S)

        reply.cancel()

        writing.result(LIMIT_S)
    sent = len(channel.frames)
    reply.write(b"dropped")
    reply.flush()
    assert len(channel.frames) == sent


def test_a_cancel_of_the_reader_lets_the_writer_go(
    reply: StreamedReply, registry: Streams, channel: Channel
) -> None:
    reply.on_reached(True)
    reply.write(b"a")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(reply.write, bytes(CREDIT))

        registry.on_delivery(credit_for(reply, encode_cancel(reply.request_id)))

        writing.result(LIMIT_S)
    reply.end(Outcome())
    assert channel.acknowledged == 1


def test_the_loss_of_the_connection_lets_the_writer_go(
    reply: StreamedReply, registry: Streams
) -> None:
    reply.on_reached(True)
    reply.write(b"a")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(reply.write, bytes(CREDIT))

        registry.lose()

        writing.result(LIMIT_S)


def test_an_address_that_is_not_reached_yet_holds_back_all_but_the_first_write(
    reply: StreamedReply, channel: Channel
) -> None:
    reply.write(b"a")  # the poller's thread may write the first part: it never waits
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(reply.write, b"b")
        assert channel.frames == []

        reply.on_reached(True)

        second.result(LIMIT_S)
    assert channel.frames == [("head", 0, b"ab")]


def test_a_response_that_ends_before_the_address_is_reached_is_one_reply(
    reply: StreamedReply, channel: Channel
) -> None:
    reply.write(b"a")

    reply.end(Outcome(payload=b"b"))

    ((properties, body),) = channel.whole
    assert (properties.content_type, body, channel.frames) == ("text/x", b"ab", [])


def test_a_response_whose_caller_cannot_be_reached_is_a_fault(
    reply: StreamedReply, channel: Channel
) -> None:
    reply.write(b"a")
    reply.on_reached(False)

    reply.end(Outcome(payload=b"b"))

    ((properties, _),) = channel.whole
    assert properties.headers["X-Lambda-Error-Type"] == "ServiceException"


def test_a_failure_waits_for_the_address_behind_what_was_written(
    reply: StreamedReply, channel: Channel
) -> None:
    reply.write(b"a")
    reply.end(Outcome(payload=b"{}", function_error=UNHANDLED))
    assert (channel.frames, channel.whole) == ([], [])

    reply.on_reached(True)

    assert channel.frames == [("head", 0, b"a"), ("end", 1, b"{}")]
    assert channel.acknowledged == 1


def test_a_failure_whose_caller_cannot_be_reached_is_told_nevertheless(
    reply: StreamedReply, channel: Channel
) -> None:
    reply.write(b"a")
    reply.end(Outcome(payload=b"{}", function_error=UNHANDLED))

    reply.on_reached(False)

    assert channel.acknowledged == 1


def test_a_whole_response_is_one_reply(reply: StreamedReply, channel: Channel) -> None:
    reply.on_reached(True)

    reply.end(Outcome(payload=b"all"))

    assert [body for _, body in channel.whole] == [b"all"]
    assert channel.acknowledged == 1


def test_the_end_has_what_is_left(reply: StreamedReply, channel: Channel) -> None:
    reply.on_reached(True)
    reply.write(b"a")
    reply.write(b"b")

    reply.end(Outcome(payload=b"c"))

    assert channel.frames[1:] == [("end", 1, b"bc")]
    assert channel.acknowledged == 1


def test_a_failure_comes_after_what_was_written(reply: StreamedReply, channel: Channel) -> None:
    reply.on_reached(True)
    reply.write(b"a")
    reply.write(b"b")

    reply.end(Outcome(payload=b"{}", function_error=UNHANDLED))

    assert channel.frames[1:] == [("chunk", 1, b"b"), ("end", 2, b"{}")]


def test_a_fault_in_mid_stream_is_an_error(reply: StreamedReply, channel: Channel) -> None:
    reply.on_reached(True)
    reply.write(b"a")

    reply.end(ServiceException("stopping"))

    assert channel.frames[1][:2] == (None, None)
    assert b"stopping" in channel.frames[1][2]


def test_an_end_by_another_thread_lets_the_writer_go(
    reply: StreamedReply, channel: Channel
) -> None:
    reply.on_reached(True)
    reply.write(b"a")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(reply.write, bytes(CREDIT))

        reply.end(Outcome(payload=b"{}", function_error=UNHANDLED))

        writing.result(LIMIT_S)
    assert channel.frames[-1][0] == "end"


def test_an_end_does_not_wait_for_a_writer_that_the_socket_holds_up(
    reply: StreamedReply, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_held, is_free = threading.Event(), threading.Event()
    deferred: list[Callable[[], None]] = []
    send_frame = channel.send_frame

    def hold(*arguments: Any, **options: Any) -> None:
        is_held.set()
        assert is_free.wait(LIMIT_S)
        send_frame(*arguments, **options)

    reply.on_reached(True)
    reply.write(b"a")
    monkeypatch.setattr(channel, "send_frame", hold)
    monkeypatch.setattr(channel, "defer", deferred.append)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(reply.write, bytes(PART_BYTES))
        assert is_held.wait(LIMIT_S)

        reply.end(Outcome(payload=b"{}", function_error=UNHANDLED))  # the clock's thread

        is_free.set()
        writing.result(LIMIT_S)
    for command in deferred:
        command()
    assert [kind for kind, *_ in channel.frames] == ["head", "chunk", "end"]
