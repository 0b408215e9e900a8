"""Frames of replies in and after an alarm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lambda_protocol.amqp_frames import Properties
from lambda_protocol.invoke_amqp import ReplyAddress
from rapid.broker.reply_channel import ReplyChannel

ADDRESS = ReplyAddress("caller", None)


class Connection:
    """Keeps what is sent, while RabbitMQ reads."""

    frame_max = 131_072

    def __init__(self) -> None:
        self.blocked_reason: str | None = None
        self.sent: list[bytes] = []
        self.while_sending: Callable[[], None] = lambda: None

    def send(self, pieces: list[bytes]) -> None:
        """Keep the body."""
        self.while_sending()
        self.sent.append(b"".join(pieces)[-2:-1])  # before the frame's end


def test_frames_keep_their_order_after_an_alarm() -> None:
    connection: Any = Connection()
    channel: Any = type("Channel", (), {"channel_number": 1})()
    consumer: Any = None
    parameters: Any = None
    deferred: list[Callable[[], None]] = []
    replies = ReplyChannel(
        parameters, connection, channel, consumer, deferred.append, lambda error: {}
    )

    def send(body: bytes) -> None:
        replies.send_frame(1, ADDRESS, Properties(), body)

    send(b"1")
    connection.blocked_reason = "memory"
    send(b"2")
    send(b"3")
    connection.blocked_reason = None
    send(b"4")  # by a runtime's thread, before the consumer's has looked
    # And while that one sends.
    connection.while_sending = lambda: send(b"5") if len(connection.sent) == 1 else None

    for command in deferred:
        command()

    assert connection.sent == [b"1", b"2", b"3", b"4", b"5"]
