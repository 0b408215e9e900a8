"""AMQP-RPC, one call at a time: publish, then wait for the reply on the same channel."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from lambda_protocol.amqp_connection import (
    AmqpConnection,
    Channel,
    ChannelClosed,
    Parameters,
    broker_blocked,
)
from lambda_protocol.amqp_frames import Delivery, publish_pieces
from lambda_protocol.errors import (
    LambdaApiError,
    ResourceNotReadyException,
    ServiceException,
    TooManyRequestsException,
)
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.http_peer import HttpPeer
from lambda_protocol.invocation import Invocation, Outcome
from lambda_protocol.invoke_amqp import (
    DIRECT_REPLY_TO,
    decode_reply,
    encode_call,
    encode_wanted,
    is_question,
    parse_reply_to,
)
from lambda_protocol.limits import REPLY_GRACE_S
from lambda_server.async_publisher import AsyncPublisher
from lambda_server.caller import CallerGoneError
from lambda_server.queue_state import (
    LOOK_AROUND_S,
    Queues,
    QueueStates,
    refusal,
    unreachable,
)

logger = logging.getLogger(__name__)

#: More than a socket takes at once: RabbitMQ is asked first whether it reads, bytes.
PROBE_BYTES: Final = 64 * 1024
_Error = TypeVar("_Error", bound=Exception)


@dataclass(slots=True, kw_only=True)
class _WaitingCall:
    """The call that is waited for."""

    invocation: Invocation
    caller: HttpPeer | None
    sent_at: float  #: monotonic seconds, as is the deadline
    deadline: float
    is_started: bool = False  #: an instance has it
    is_running: bool = False


class RpcClient:
    """One broker connection. One thread at a time; raises one of ``BrokerLost`` when it breaks.

    After that it is of no further use.
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        queue_timeout_s: float,
        queue_states: QueueStates | None = None,
        on_alarm: Callable[[str | None], None] = lambda _reason: None,
    ) -> None:
        """Connect and be ready for replies; clients of one broker share ``queue_states``.

        ``on_alarm`` hears why RabbitMQ reads nothing any more, and None when it reads.
        """
        self._queue_timeout_s = queue_timeout_s
        self._waiting: _WaitingCall | None = None
        self._replies: deque[Delivery] = deque()  # of the current call: frames, then the outcome
        self._is_returned = False
        self._closed_by: Exception | None = None  # why the reply channel was
        self._connection = AmqpConnection(parameters, self._on_delivery, on_alarm=on_alarm)
        self.queues = Queues(self._connection, queue_states or QueueStates())
        self._async_publisher = AsyncPublisher(
            self._connection, self.queues, probe=self.probe, queue_timeout_s=queue_timeout_s
        )
        try:
            self._channel = self._open_channel()
            self._connection.check_publishing(self._channel)
        except BaseException:
            self._connection.abort()
            raise

    def call(self, invocation: Invocation, caller: HttpPeer | None = None) -> Outcome:
        """Run ``invocation`` and return its outcome; raises ``LambdaApiError``.

        404 at once when no queue has the function's name, 503 when there is one that cannot be
        reached; 429 or 502 when no instance took the call in time. Raises ``CallerGoneError`` when
        ``caller`` left. The waiter is recorded before the call is sent, so no reply overtakes it.
        """
        channel = self._open_replies()
        properties = encode_call(invocation, queue_timeout_s=self._queue_timeout_s)
        frames = publish_pieces(
            channel.channel_number,
            invocation.function.queue_name,
            properties,
            invocation.payload,
            frame_max=self._connection.frame_max,
            mandatory=True,
        )
        now = time.monotonic()
        call = self._waiting = _WaitingCall(
            invocation=invocation,
            caller=caller,
            sent_at=now,
            deadline=now + self._queue_timeout_s + REPLY_GRACE_S,
        )
        self._is_returned = False
        self._replies.clear()
        try:
            if len(invocation.payload) > PROBE_BYTES:
                self.require_reading()
            self._connection.send(frames)
            while True:
                delivery = self._next_reply(call)
                if self._is_returned:
                    raise self._unroutable(invocation)
                if delivery is None and self.blocked_reason is not None:
                    raise ServiceException(
                        "The call has started, and its answer did not come in time: RabbitMQ "
                        f"takes no messages now: {self.blocked_reason}."
                    )
                if delivery is None:
                    raise self._discard(self._unanswered(invocation))
                answer = decode_reply(delivery)
                if isinstance(answer, Outcome):
                    return answer
                call.is_started, call.is_running = True, answer.is_running
                call.deadline = time.monotonic() + answer.within_s + REPLY_GRACE_S
        finally:
            self._waiting = None

    def publish_async(self, invocation: Invocation) -> None:
        """Publish an asynchronous invocation; see :meth:`AsyncPublisher.publish`."""
        self._async_publisher.publish(invocation)

    def require_function(self, function: FunctionRef) -> None:
        """Check that a call of ``function`` would find its queue; raises ``LambdaApiError``."""
        self.probe()
        error = refusal(function, self.queues.ask(function.queue_name))
        if error is not None:
            raise error

    @property
    def blocked_reason(self) -> str | None:
        """Why RabbitMQ reads nothing from this connection, as far as was heard; None: it reads."""
        return self._connection.blocked_reason

    def require_reading(self) -> None:
        """Return when RabbitMQ has taken a message; raises ``ServiceUnavailable`` in an alarm."""
        self._connection.check_publishing(self._open_replies())
        if self.blocked_reason is not None:
            raise broker_blocked(self.blocked_reason)

    def probe(self) -> None:
        """Have RabbitMQ say soon whether it has an alarm, for ``blocked_reason``."""
        self._connection.probe(self._open_replies())

    def keep_alive(self) -> None:
        """Read what has come and send the heartbeats that are due, without waiting.

        RabbitMQ may have closed the channel for replies after the last call had its answer.
        """
        if self._connection.has_news():
            self._connection.poll(0)
        if self._channel.is_closed:
            raise self._closed_by or ChannelClosed(0, "the reply channel was closed")

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._connection.shut_down()

    def _open_replies(self) -> Channel:
        """Return the channel for replies, a new one if the last call's was given up with it."""
        if not self._channel.is_open:
            self._channel = self._open_channel()
        return self._channel

    def _open_channel(self) -> Channel:
        channel = self._connection.open_channel()
        channel.add_on_return_callback(self._on_return)
        channel.add_on_close_callback(self._on_closed)
        self._connection.consume(channel, DIRECT_REPLY_TO, auto_ack=True)
        return channel

    def _discard(self, error: _Error) -> _Error:
        """Wait no longer for a call that is not answered; returns ``error``.

        Its channel is closed, and the next call opens another one. So the call's reply address
        exists no more, by which rapid knows that it must not start the call any more.
        There is another reason. RabbitMQ 3.10 binds a channel to the leader of a quorum queue. If
        that one's node was just dying, the channel looks for no other leader, and all that is
        published there is lost.
        """
        self._waiting = None
        self._channel.close()
        return error

    def _next_reply(self, call: _WaitingCall) -> Delivery | None:
        """Wait for a frame of ``call``; None when it was returned or time is up."""
        while not self._replies and not self._is_returned:
            left = call.deadline - time.monotonic()
            if left <= 0:
                return None
            self._connection.poll(min(left, LOOK_AROUND_S))
            if self._channel.is_closed:
                raise self._closed_by or ChannelClosed(0, "the reply channel was closed")
            if not self._replies and not self._is_returned:
                if self.blocked_reason is not None and not call.is_running:
                    raise broker_blocked(self.blocked_reason)
                self._look_around(call)
        return self._replies.popleft() if self._replies else None

    def _look_around(self, call: _WaitingCall) -> None:
        """End the wait of a call whose caller has left, or whose queue cannot be reached."""
        if call.caller is not None and call.caller.has_left():
            raise self._discard(CallerGoneError())
        if call.is_running or time.monotonic() - call.sent_at < LOOK_AROUND_S:
            return
        self.probe()
        if call.is_started:
            return
        function = call.invocation.function
        if self.queues.is_unreachable(function.queue_name):
            raise self._discard(unreachable(function))

    def _unroutable(self, invocation: Invocation) -> LambdaApiError:
        """Return why RabbitMQ returned a call: there is no queue, or it cannot be reached."""
        function = invocation.function
        error = refusal(function, self.queues.state(function.queue_name))
        # What was known may be a second old; it is not what the call has met.
        error = error or refusal(function, self.queues.ask(function.queue_name))
        return error or unreachable(function)

    def _unanswered(self, invocation: Invocation) -> LambdaApiError:
        """Return why no instance answered: all are busy, or there is none."""
        function = invocation.function
        state = self.queues.state(function.queue_name)
        error = refusal(function, state)
        if error is not None:
            return error
        if state.consumers == 0:
            return ResourceNotReadyException(
                f"No instance of the function {function.name} is running."
            )
        return TooManyRequestsException()

    def _on_delivery(self, delivery: Delivery) -> None:
        if is_question(delivery):
            self._answer_question(delivery)
        elif self._is_of_call(delivery.properties.correlation_id):
            self._replies.append(delivery)
        else:
            logger.info("late reply dropped")

    def _answer_question(self, question: Delivery) -> None:
        """Tell a rapid whether a call that it is about to start is still waited for."""
        address = parse_reply_to(question.properties.reply_to)
        if address is None:
            return
        correlation_id = question.properties.correlation_id
        caller = self._waiting.caller if self._waiting is not None else None
        is_wanted = self._is_of_call(correlation_id) and not (caller and caller.has_left())
        frames = publish_pieces(
            question.channel,
            address.queue,
            encode_wanted(correlation_id, is_wanted=is_wanted),
            b"",
            frame_max=self._connection.frame_max,
        )
        with contextlib.suppress(OSError):  # the next poll tells
            self._connection.send(frames)

    def _is_of_call(self, correlation_id: str | None) -> bool:
        call = self._waiting
        return call is not None and correlation_id == call.invocation.request_id

    def _on_return(self, _channel: Any, _method: Any, properties: Any, _body: bytes) -> None:
        if self._waiting is None or self._is_of_call(properties.correlation_id):
            self._is_returned = True

    def _on_closed(self, _channel: Channel, reason: Exception) -> None:
        self._closed_by = reason
