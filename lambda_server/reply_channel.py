"""The channel of calls and their replies, and the calls that wait for one."""

from __future__ import annotations

import contextlib
import logging
import threading
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from typing import Any

from lambda_protocol.amqp_connection import AmqpConnection, Channel
from lambda_protocol.amqp_frames import Delivery, Piece, publish_pieces
from lambda_protocol.headers import SEQUENCE
from lambda_protocol.http_peer import HttpPeer
from lambda_protocol.invocation import Invocation
from lambda_protocol.invoke_amqp import (
    DIRECT_REPLY_TO,
    encode_wanted,
    is_question,
    parse_reply_to,
)

logger = logging.getLogger(__name__)


class Waiter:
    """A thread that waits for news of the broker. Others wake it, at any time."""

    __slots__ = ("_lock", "lost_by")

    def __init__(self) -> None:
        """Nothing has come."""
        self._lock = allocate_lock()
        self._lock.acquire()
        self.lost_by: Exception | None = None  #: why nothing will come any more

    def wake(self) -> None:
        """End the sleep, or the next one."""
        with contextlib.suppress(RuntimeError):  # woken already
            self._lock.release()

    def sleep(self, limit_s: float) -> None:
        """Wait until woken, for ``limit_s`` at most."""
        self._lock.acquire(timeout=limit_s)


class WaitingCall(Waiter):
    """A call whose thread waits for its outcome."""

    __slots__ = (
        "_caller",
        "_caller_lock",
        "check_sender",
        "deadline",
        "invocation",
        "is_returned",
        "is_running",
        "is_started",
        "replies",
        "sent_at",
    )

    def __init__(
        self, invocation: Invocation, caller: HttpPeer | None, *, sent_at: float, deadline: float
    ) -> None:
        """Wait until ``deadline``, monotonic seconds as is ``sent_at``."""
        super().__init__()
        self.invocation = invocation
        self._caller = caller
        self._caller_lock = threading.Lock()
        self.sent_at = sent_at
        self.deadline = deadline
        self.is_started = False  #: an instance has it
        self.is_running = False
        #: Raises if the instance that sends the response is gone; None: it has not begun.
        self.check_sender: Callable[[], None] | None = None
        self.is_returned = False  #: RabbitMQ found no queue for it
        self.replies: deque[Delivery] = deque()  #: frames, then the outcome

    def has_caller_left(self) -> bool:
        """Whether the caller is known to have gone. Thread-safe."""
        if self._caller is None:
            return False
        with self._caller_lock:
            return self._caller.has_left()

    def begin_answer(self) -> None:
        """Note that the caller's answer begins: nothing may come in between. Thread-safe."""
        if self._caller is not None:
            with self._caller_lock:
                self._caller.stop_probing()

    @property
    def has_news(self) -> bool:
        """Whether there is a reply, or the call was returned."""
        return bool(self.replies) or self.is_returned


class ReplyChannel:
    """A channel with a consumer of its direct reply-to queue. Calls are told apart by their ids.

    The connection's owner opens and closes it; the rest is thread-safe.
    """

    def __init__(
        self, connection: AmqpConnection, send: Callable[[bytes | list[Piece]], None]
    ) -> None:
        """Open it; raises one of ``BrokerLost``. ``send`` writes whole frames."""
        self._send = send
        self._frame_max = connection.frame_max
        self._lock = threading.Lock()
        self._calls: dict[str, WaitingCall] = {}  # by request id; guarded by _lock
        self._is_retired = False  # guarded by _lock
        self.closed_by: Exception | None = None
        self.channel = connection.open_channel()
        self.number = self.channel.channel_number
        self.channel.add_on_return_callback(self._on_return)
        self.channel.add_on_close_callback(self._on_closed)
        connection.consume(self.channel, DIRECT_REPLY_TO, auto_ack=True)

    @property
    def is_open(self) -> bool:
        """Whether calls may be sent."""
        return self.channel.is_open and not self._is_retired

    @property
    def is_in_use(self) -> bool:
        """Whether a call waits."""
        return bool(self._calls)

    def add(self, call: WaitingCall) -> None:
        """Record a call before it is sent, so that no reply overtakes it."""
        with self._lock:
            self._calls[call.invocation.request_id] = call

    def remove(self, call: WaitingCall) -> bool:
        """Wait no longer for a call; True if the channel is retired and nobody waits any more."""
        with self._lock:
            self._calls.pop(call.invocation.request_id, None)
            return self._is_retired and not self._calls

    def retire(self) -> bool:
        """Take no further calls; True if nobody waits."""
        with self._lock:
            self._is_retired = True
            return not self._calls

    def lose(self, error: Exception) -> None:
        """Tell every call that nothing will come any more."""
        for call in self.waiting():
            call.lost_by = call.lost_by or error
            call.wake()

    def wake(self) -> None:
        """Have every call look around."""
        for call in self.waiting():
            call.wake()

    def take(self, delivery: Delivery) -> None:
        """Hand a reply to its call, or answer a rapid's question; the connection's owner."""
        call = self._calls.get(delivery.properties.correlation_id or "")
        if is_question(delivery):
            self._answer_question(delivery, call)
        elif call is not None:
            call.replies.append(delivery)
            call.wake()
        elif SEQUENCE not in delivery.properties.headers:  # a stream whose reader has gone
            logger.info("late reply dropped")

    def waiting(self) -> list[WaitingCall]:
        """Return the calls that wait."""
        with self._lock:
            return list(self._calls.values())

    def _answer_question(self, question: Delivery, call: WaitingCall | None) -> None:
        """Tell a rapid whether a call that it is about to start is still waited for."""
        address = parse_reply_to(question.properties.reply_to)
        if address is None:
            return
        is_wanted = call is not None and not call.has_caller_left()
        properties = encode_wanted(question.properties.correlation_id, is_wanted=is_wanted)
        with contextlib.suppress(OSError):  # the next poll tells
            self._send(
                publish_pieces(
                    question.channel, address.queue, properties, b"", frame_max=self._frame_max
                )
            )

    def _on_return(self, _channel: Any, _method: Any, properties: Any, _body: bytes) -> None:
        call = self._calls.get(properties.correlation_id)
        if call is not None:
            call.is_returned = True
            call.wake()

    def _on_closed(self, _channel: Channel, reason: Exception) -> None:
        self.closed_by = reason
        self.lose(reason)
