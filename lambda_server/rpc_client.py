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
    ChannelClosedByBroker,
    Parameters,
    broker_blocked,
    is_missing,
)
from lambda_protocol.amqp_frames import Delivery, publish_pieces
from lambda_protocol.amqp_stream import NotSentError
from lambda_protocol.async_amqp import encode_async
from lambda_protocol.confirmed_publisher import Confirm, ConfirmedPublisher
from lambda_protocol.errors import (
    LambdaApiError,
    ResourceNotReadyException,
    ServiceException,
    ServiceUnavailable,
    TooManyRequestsException,
)
from lambda_protocol.function_name import FunctionRef, function_not_found
from lambda_protocol.http_peer import HttpPeer
from lambda_protocol.invocation import AsyncInvocation, Invocation, Outcome
from lambda_protocol.invoke_amqp import (
    DIRECT_REPLY_TO,
    decode_reply,
    encode_call,
    encode_wanted,
    is_question,
    parse_reply_to,
)
from lambda_protocol.limits import REPLY_GRACE_S
from lambda_protocol.queues import async_queue_name
from lambda_server.caller import CallerGoneError
from lambda_server.queue_state import UNKNOWN, QueueState, QueueStates, ask_queue_state

logger = logging.getLogger(__name__)

#: A call that has waited for so long looks after its caller and its queue as often, seconds.
LOOK_AROUND_S: Final = 1.0

#: More than a socket takes at once: RabbitMQ is asked first whether it reads, bytes.
PROBE_BYTES: Final = 64 * 1024
#: How long RabbitMQ may take to confirm what it read before an alarm began, seconds.
CONFIRM_IN_ALARM_S: Final = 2.0

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
        self._queue_states = QueueStates() if queue_states is None else queue_states
        self._waiting: _WaitingCall | None = None
        self._replies: deque[Delivery] = deque()  # of the current call: frames, then the outcome
        self._is_returned = False
        self._closed_by: Exception | None = None  # why the reply channel was
        self._publisher: ConfirmedPublisher | None = None
        self._async_closed: Exception | None = None  # why the last one was
        self._connection = AmqpConnection(parameters, self._on_delivery, on_alarm=on_alarm)
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
        if not self._channel.is_open:
            self._channel = self._open_channel()
        properties = encode_call(invocation, queue_timeout_s=self._queue_timeout_s)
        frames = publish_pieces(
            self._channel.channel_number,
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
        """Publish an Event and wait for the broker's confirm; raises ``LambdaApiError``.

        404 when the function has no call queue, as for a call. RabbitMQ is asked for it first: an
        event in the socket of a broker that reads nothing would run long after it was refused.
        """
        function, queue = invocation.function, async_queue_name(invocation.function)
        channel = self._async_publisher().channel
        try:
            self.probe()  # without it RabbitMQ answers in an alarm, too
            self._connection.call(channel, "queue_declare", queue=function.queue_name, passive=True)
        except ChannelClosedByBroker as error:
            if is_missing(error):
                raise function_not_found(function) from error
            # The call queue is on a node that is down, say. The async queue may be reached.
        confirms: list[Confirm] = []
        publisher = self._async_publisher()
        publisher.publish(
            "",
            queue,
            encode_async(AsyncInvocation.accepted(invocation)),
            invocation.payload,
            confirms.append,
        )
        match self._await_confirm(publisher, function, confirms):
            case Confirm.NOT_SENT:
                raise NotSentError("the broker connection is closed")
            case Confirm.LOST:
                raise ConnectionError("the broker connection was lost")
            case Confirm.RETURNED if self._ask(queue).fault is not None:
                raise _unreachable(function)
            case Confirm.RETURNED:
                raise ServiceUnavailable(
                    f"The function {function.name} takes no asynchronous invocations: "
                    f"its queue {queue} does not exist."
                )
            case Confirm.REFUSED:
                raise ServiceUnavailable("The broker refused the invocation.")

    def _await_confirm(
        self, publisher: ConfirmedPublisher, function: FunctionRef, confirms: list[Confirm]
    ) -> Confirm:
        sent_at = time.monotonic()
        channel = publisher.channel
        while not confirms:
            waited_s = time.monotonic() - sent_at
            is_blocked = self.blocked_reason is not None
            if waited_s >= (CONFIRM_IN_ALARM_S if is_blocked else self._queue_timeout_s):
                if not is_blocked:
                    channel.close()  # see _discard
                raise ServiceException(
                    "RabbitMQ did not confirm the invocation in time; it may have it."
                )
            queue = async_queue_name(function)
            if waited_s >= LOOK_AROUND_S and not is_blocked and self._is_unreachable(queue):
                channel.close()
                raise _unreachable(function)
            self._connection.poll(min(self._queue_timeout_s - waited_s, LOOK_AROUND_S))
            if channel.is_closed:
                raise self._async_closed or ChannelClosed(0, "the async channel was closed")
        return confirms[0]

    def require_function(self, function: FunctionRef) -> None:
        """Check that a call of ``function`` would find its queue; raises ``LambdaApiError``."""
        self.probe()
        error = _refusal(function, self._ask(function.queue_name))
        if error is not None:
            raise error

    def queue_state(self, queue: str) -> QueueState:
        """Return what RabbitMQ says of ``queue`` now."""
        return ask_queue_state(self._connection, queue)

    @property
    def blocked_reason(self) -> str | None:
        """Why RabbitMQ reads nothing from this connection, as far as was heard; None: it reads."""
        return self._connection.blocked_reason

    def require_reading(self) -> None:
        """Return when RabbitMQ has taken a message; raises ``ServiceUnavailable`` in an alarm."""
        self._connection.check_publishing(self._channel)
        if self.blocked_reason is not None:
            raise broker_blocked(self.blocked_reason)

    def probe(self) -> None:
        """Have RabbitMQ say soon whether it has an alarm, for ``blocked_reason``."""
        self._connection.probe(self._channel)

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
        if self._is_unreachable(function.queue_name):
            raise self._discard(_unreachable(function))

    def _unroutable(self, invocation: Invocation) -> LambdaApiError:
        """Return why RabbitMQ returned a call: there is no queue, or it cannot be reached."""
        function = invocation.function
        error = _refusal(function, self._state(function.queue_name))
        # What was known may be a second old; it is not what the call has met.
        return error or _refusal(function, self._ask(function.queue_name)) or _unreachable(function)

    def _unanswered(self, invocation: Invocation) -> LambdaApiError:
        """Return why no instance answered: all are busy, or there is none."""
        function = invocation.function
        state = self._state(function.queue_name)
        error = _refusal(function, state)
        if error is not None:
            return error
        if state.consumers == 0:
            return ResourceNotReadyException(
                f"No instance of the function {function.name} is running."
            )
        return TooManyRequestsException()

    def _state(self, queue: str) -> QueueState:
        """Return the state of a queue, at most a second old."""
        state = self._queue_states.fresh(queue, lambda: self._ask(queue))
        return self._ask(queue) if state is UNKNOWN else state

    def _is_unreachable(self, queue: str) -> bool:
        """Whether a queue is known to be on a node that is down. Does not wait for RabbitMQ."""
        try:
            state = self._queue_states.fresh(queue, lambda: self._ask(queue), wait_s=0.0)
        except TimeoutError:
            return False
        return state.fault is not None

    def _ask(self, queue: str) -> QueueState:
        state = self.queue_state(queue)
        if state.fault is not None:
            logger.warning("queue not reached", extra={"queue": queue, "broker_says": state.fault})
        return state

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

    def _on_async_closed(self, _channel: Channel, reason: Exception) -> None:
        self._async_closed = reason

    def _async_publisher(self) -> ConfirmedPublisher:
        if self._publisher is None or not self._publisher.channel.is_open:
            channel = self._connection.open_channel()
            channel.add_on_close_callback(self._on_async_closed)
            self._publisher = ConfirmedPublisher(self._connection, channel)
        return self._publisher


def _refusal(function: FunctionRef, state: QueueState) -> LambdaApiError | None:
    """Return the API error for a queue in this state. None: the queue takes calls."""
    if not state.exists:
        return function_not_found(function)
    return None if state.fault is None else _unreachable(function)


def _unreachable(function: FunctionRef) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"The queue of the function {function.name} cannot be reached: try again later."
    )
