"""Responses that go to their AMQP callers while they are written, and the credit for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeGuard

from lambda_protocol.amqp_connection import AmqpConnection, Channel
from lambda_protocol.amqp_frames import Delivery, Properties
from lambda_protocol.errors import LambdaApiError, ServiceException
from lambda_protocol.invocation import Outcome
from lambda_protocol.invoke_amqp import DIRECT_REPLY_TO, IncomingCall, ReplyAddress, encode_error
from lambda_protocol.streamed_amqp import (
    GATHER_S,
    PART_BYTES,
    decode_credit,
    encode_end,
    encode_head,
    encode_part,
    encode_whole,
)
from rapid.broker.reply_channel import ReplyChannel
from rapid.call import Call

#: How often a caller that gives no credit is asked whether it still waits, seconds.
_ASK_EVERY_S: Final = 1.0
#: How long the end waits for a frame that is being sent, seconds: the connection is lost before.
_SENT_WITHIN_S: Final = 60.0


class Streams:
    """The streams of one connection, on a channel of their own, to which callers give credit.

    Thread-safe, but for what says otherwise.
    """

    def __init__(self, reply_channel: ReplyChannel, version: str) -> None:
        """Open the channel on use; ``version`` is the function's."""
        self.reply_channel = reply_channel
        self.version = version
        self.is_lost = False  #: with the connection
        self._channel: Channel | None = None
        self._lock = threading.Lock()
        self._by_id: dict[str, StreamedReply] = {}  # by request id; guarded by _lock

    @property
    def number(self) -> int:
        """The channel's; 0 before it is open."""
        return 0 if self._channel is None else int(self._channel.channel_number)

    def open(self, connection: AmqpConnection) -> None:
        """Open the channel, unless it is; raises one of ``BrokerLost``. The consumer's thread."""
        if self._channel is None:
            channel = connection.open_channel()
            connection.consume(channel, DIRECT_REPLY_TO, auto_ack=True)
            channel.add_on_close_callback(lambda _channel, reason: self.reply_channel.lose(reason))
            self._channel = channel

    def add(self, reply: StreamedReply) -> None:
        """Give ``reply`` the credit that comes for it."""
        with self._lock:
            self._by_id[reply.request_id] = reply

    def remove(self, reply: StreamedReply) -> None:
        """Forget a reply that has ended. Idempotent."""
        with self._lock:
            self._by_id.pop(reply.request_id, None)

    def on_delivery(self, delivery: Delivery) -> None:
        """Take credit, or a cancel. The consumer's thread."""
        reply = self._by_id.get(delivery.properties.correlation_id or "")
        if reply is not None:
            total_bytes = decode_credit(delivery)
            if total_bytes is None:
                reply.cancel()
            else:
                reply.give_credit(total_bytes)

    def lose(self) -> None:
        """Let go whoever waits for credit: the connection is lost."""
        self.is_lost = True
        with self._lock:
            replies = list(self._by_id.values())
            self._by_id.clear()
        for reply in replies:
            reply.cancel()


class StreamedReply:
    """The reply to one call, in frames; a :class:`rapid.response_sink.ResponseSink`."""

    def __init__(
        self,
        streams: Streams,
        call: Call,
        delivery: Delivery,
        incoming: IncomingCall,
        address: ReplyAddress,
        *,
        ask_caller: Callable[[], None],
    ) -> None:
        """Reply to ``call``; ``ask_caller`` has :meth:`cancel` called if nobody waits for it."""
        assert incoming.credit_bytes is not None
        self.request_id = incoming.invocation.request_id
        self._streams = streams
        self._call = call
        self._delivery = delivery
        self._incoming = incoming
        self._address = address
        self._ask_caller = ask_caller
        self._changed = threading.Condition(threading.Lock())
        # guarded by _changed:
        self._content_type = "application/json"
        self._gathered = bytearray()  # to be sent
        self._gathered_at = 0.0  # since when, monotonic seconds
        self._has_written = False
        self._number = 0  # of the next frame
        self._sent_bytes = 0
        self._credit_bytes = incoming.credit_bytes
        self._can_send = False  # the address was reached
        self._is_over = False  # nothing more is written: the outcome is here, or the caller is gone
        self._is_cancelled = False
        self._is_sending = False  # a frame, without the lock
        self._writer = 0  # the thread that writes
        self._failure: Outcome | None = None  # waits for the address, behind what was written

    # --- the runtime's connection (ResponseSink)

    @property
    def patience_s(self) -> float | None:
        """How long what is gathered waits for more."""
        return GATHER_S if self._gathered else None

    def begin(self, content_type: str) -> None:
        """Note what the runtime says of the response."""
        self._content_type = content_type

    def write(self, data: bytes) -> None:
        """Send the first part at once, later ones when enough has gathered, or for long enough."""
        with self._changed:
            if self._is_over:
                return
            now = time.monotonic()
            if not self._gathered:
                self._gathered_at = now
            self._gathered += data
            is_due = len(self._gathered) >= PART_BYTES or now - self._gathered_at >= GATHER_S
            self._writer = threading.get_ident()
            if is_due or not self._number:
                self._send_gathered_locked(may_wait=self._has_written)
            self._has_written = True

    def flush(self) -> None:
        """Send what is gathered; waits for the address, and for credit."""
        with self._changed:
            self._send_gathered_locked(may_wait=True)

    # --- the consumer's thread, the poller's, the confirmer's

    def on_reached(self, is_reached: bool) -> None:
        """Note whether the caller's address can be sent to."""
        with self._changed:
            self._can_send = is_reached
            self._changed.notify_all()
            failure, self._failure = self._failure, None
        if not is_reached:
            self.cancel()
        if failure is not None:
            self.end(failure)

    def give_credit(self, total_bytes: int) -> None:
        """Let so many bytes be sent in all."""
        with self._changed:
            self._credit_bytes = max(self._credit_bytes, total_bytes)
            self._changed.notify_all()

    def cancel(self) -> None:
        """Drop what comes: the caller is gone."""
        with self._changed:
            self._is_cancelled = self._is_over = True
            self._changed.notify_all()

    # --- any thread

    def end(self, outcome: Outcome | LambdaApiError) -> None:
        """Send the last frame."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
            if self._has_to_wait(outcome):
                self._failure = outcome
                return
            may_wait = not self._number or threading.get_ident() == self._writer
        if may_wait:
            self._finish(outcome)
        else:  # the socket may hold up the writer; this thread, the clock's say, it must not
            self._streams.reply_channel.defer(lambda: self._finish(outcome))

    # --- inside

    def _finish(self, outcome: Outcome | LambdaApiError) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_sending, _SENT_WITHIN_S)
            if self._is_cancelled and isinstance(outcome, Outcome):
                outcome = ServiceException("The response could not be sent to its caller.")
            self._end_locked(outcome)
        self._streams.remove(self)

    def _has_to_wait(self, outcome: Outcome | LambdaApiError) -> TypeGuard[Outcome]:
        """Whether what was written before a failure cannot be sent yet."""
        return (
            isinstance(outcome, Outcome)
            and outcome.function_error is not None
            and bool(self._gathered)
            and not (self._can_send or self._is_cancelled)
        )

    def _send_gathered_locked(self, *, may_wait: bool) -> None:
        while self._gathered and not self._is_over:
            room = self._credit_bytes - self._sent_bytes
            if self._can_send and room > 0:
                self._send_part_locked(min(PART_BYTES, room))
            elif not may_wait or self._streams.is_lost:
                return
            elif not self._changed.wait(_ASK_EVERY_S) and self._can_send:
                self._ask_caller()

    def _send_part_locked(self, most_bytes: int) -> None:
        data = bytes(self._gathered[:most_bytes])
        del self._gathered[:most_bytes]
        correlation_id = self._incoming.correlation_id
        if self._number:
            properties = encode_part(correlation_id, self._number)
        else:
            self._streams.add(self)
            properties = encode_head(
                correlation_id,
                self._incoming.invocation,
                content_type=self._content_type,
                executed_version=self._streams.version,
                within_s=self._call.deadline - time.monotonic(),
            )
        self._number += 1
        self._sent_bytes += len(data)
        self._is_sending = True
        self._changed.release()  # the socket may hold up the writer, and nobody else
        try:
            self._send_frame(properties, data)
        finally:
            self._changed.acquire()
            self._is_sending = False
            self._changed.notify_all()

    def _end_locked(self, outcome: Outcome | LambdaApiError) -> None:
        correlation_id, channel = self._incoming.correlation_id, self._streams.reply_channel
        if isinstance(outcome, LambdaApiError):
            properties, body = encode_error(correlation_id, outcome), outcome.body()
        elif outcome.function_error is not None:
            while self._gathered and self._can_send:  # it was written before the function failed
                self._send_part_locked(PART_BYTES)
            body = outcome.payload
        else:
            body = bytes(self._gathered) + outcome.payload
        self._gathered.clear()
        if not self._number:
            if isinstance(outcome, Outcome):
                properties = encode_whole(correlation_id, outcome, self._content_type)
            channel.reply(self._delivery, self._incoming.reply_to, properties, body)
            return
        if isinstance(outcome, Outcome):
            properties = encode_end(correlation_id, self._number, outcome)
        self._send_frame(properties, body, last_of=self._delivery)

    def _send_frame(
        self, properties: Properties, body: bytes, last_of: Delivery | None = None
    ) -> None:
        self._streams.reply_channel.send_frame(
            self._streams.number, self._address, properties, body, last_of=last_of
        )
