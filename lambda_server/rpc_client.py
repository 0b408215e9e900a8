"""AMQP-RPC, one call at a time: publish, then wait for the reply on the same channel."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any, Final

from lambda_protocol.amqp_connection import (
    AmqpConnection,
    Channel,
    ChannelClosed,
    ChannelClosedByBroker,
    Parameters,
    is_missing,
)
from lambda_protocol.amqp_frames import Delivery, encode_publish
from lambda_protocol.errors import (
    LambdaApiError,
    ResourceNotReadyException,
    ServiceException,
    ServiceUnavailable,
    TooManyRequestsException,
)
from lambda_protocol.event_amqp import encode_event, event_queue
from lambda_protocol.function_name import function_not_found
from lambda_protocol.invocation import Event, Invocation, Outcome
from lambda_protocol.invoke_amqp import DIRECT_REPLY_TO, Started, decode_reply, encode_call
from lambda_protocol.limits import REPLY_GRACE_S

logger = logging.getLogger(__name__)


class RpcClient:
    """One broker connection. One thread at a time; raises one of ``BrokerLost`` when it breaks.

    After that it is of no further use.
    """

    def __init__(self, parameters: Parameters, *, queue_timeout_s: float) -> None:
        """Connect and be ready for replies."""
        self._queue_timeout_s = queue_timeout_s
        self._waiting_for: str | None = None
        self._replies: deque[Delivery] = deque()  # of the current call: frames, then the outcome
        self._is_returned = False
        self._closed_by: Exception | None = None  # why the reply channel was
        self._events: Channel | None = None
        self._events_closed: Exception | None = None  # why the last one was
        self._confirms: list[bool] = []
        self._connection = AmqpConnection(parameters, self._on_delivery)
        try:
            self._channel = self._open_channel()
            self._connection.announce_publishing(self._channel)
        except BaseException:
            self._connection.abort()
            raise

    def call(self, invocation: Invocation) -> Outcome:
        """Run ``invocation`` and return its outcome; raises ``LambdaApiError``.

        404 at once when no queue has the function's name; 429 or 502 when nobody took the call
        in time. The waiter is recorded before the call is sent, so no reply can overtake it.
        """
        request_id = invocation.request_id
        properties = encode_call(invocation, queue_timeout_s=self._queue_timeout_s)
        frames = encode_publish(
            self._channel.channel_number,
            invocation.function.queue_name,
            properties,
            invocation.payload,
            frame_max=self._connection.frame_max,
            mandatory=True,
        )
        self._waiting_for, self._is_returned = request_id, False
        self._replies.clear()
        deadline = time.monotonic() + self._queue_timeout_s + REPLY_GRACE_S
        try:
            self._connection.send(frames)
            while True:
                delivery = self._next_reply(deadline)
                if self._is_returned:
                    raise function_not_found(invocation.function)
                if delivery is None:
                    error = self._unanswered(invocation)
                    self._replace_channel()
                    raise error
                answer = decode_reply(delivery)
                if isinstance(answer, Outcome):
                    return answer
                deadline = _deadline_of(answer)
        finally:
            self._waiting_for = None

    def publish_event(self, invocation: Invocation) -> None:
        """Publish an Event and wait for the broker's confirm; raises ``LambdaApiError``.

        404 when the function has no call queue, as for a call. A function whose call queue is on
        a node that is down exists, and its event queue may be reached.
        """
        try:
            self._publish_event(invocation, asks_for_function=True)
        except ChannelClosedByBroker as error:
            if is_missing(error):
                raise function_not_found(invocation.function) from error
            if error.reply_code != _NOT_FOUND:
                raise
            self._publish_event(invocation, asks_for_function=False)

    def _publish_event(self, invocation: Invocation, *, asks_for_function: bool) -> None:
        channel = self._confirming_channel()
        queue = event_queue(invocation.function)
        frames = encode_publish(
            channel.channel_number,
            queue,
            encode_event(Event.accepted(invocation)),
            invocation.payload,
            frame_max=self._connection.frame_max,
            mandatory=True,
        )
        self._is_returned = False
        self._confirms.clear()
        if asks_for_function:
            # No answer is a yes. After a no RabbitMQ has closed the channel, and drops the event.
            channel.queue_declare(invocation.function.queue_name, passive=True)
        self._connection.send(frames)
        deadline = time.monotonic() + self._queue_timeout_s
        while not self._confirms:
            left = deadline - time.monotonic()
            if left <= 0:
                channel.close()  # see _replace_channel
                raise ServiceException("The broker did not confirm the event in time.")
            self._connection.poll(left)
            if channel.is_closed:
                raise self._events_closed or ChannelClosed(0, "the events channel was closed")
        if self._is_returned:
            raise ServiceUnavailable(
                f"The function {invocation.function.name} takes no asynchronous invocations: "
                f"its queue {queue} does not exist."
            )
        if not self._confirms[0]:
            raise ServiceException("The broker refused the event.")

    def consumer_count(self, queue: str) -> int | None:
        """Return how many instances consume ``queue``; None when there is no such queue."""
        channel = self._connection.open_channel()
        try:
            answer: Any = self._connection.call(channel, "queue_declare", queue=queue, passive=True)
        except ChannelClosedByBroker as error:
            if error.reply_code == _NOT_FOUND:
                return None
            raise
        channel.close()
        return int(answer.method.consumer_count)

    def keep_alive(self) -> None:
        """Read what has come and send the heartbeats that are due, without waiting."""
        if self._connection.has_news():
            self._connection.poll(0)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._connection.shut_down()

    def _open_channel(self) -> Channel:
        channel = self._connection.open_channel()
        channel.add_on_return_callback(self._on_return)
        channel.add_on_close_callback(self._on_closed)
        self._connection.consume(channel, DIRECT_REPLY_TO, auto_ack=True)
        return channel

    def _replace_channel(self) -> None:
        """Go on with a fresh channel after a call that vanished.

        RabbitMQ 3.10 binds a channel to the leader of a quorum queue; when that one's node was
        dying just then, it never looks for another, and all that is published there is lost.
        """
        self._channel.close()
        self._channel = self._open_channel()

    def _next_reply(self, deadline: float) -> Delivery | None:
        """Wait for a frame of the current call; None when it was returned or time is up."""
        while not self._replies and not self._is_returned:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._connection.poll(left)
            if self._channel.is_closed:
                raise self._closed_by or ChannelClosed(0, "the reply channel was closed")
        return self._replies.popleft() if self._replies else None

    def _unanswered(self, invocation: Invocation) -> LambdaApiError:
        """Return why nobody answered: all are busy, or nobody is there."""
        count = self.consumer_count(invocation.function.queue_name)
        if count is None:
            return function_not_found(invocation.function)
        if count == 0:
            return ResourceNotReadyException(
                f"No instance of the function {invocation.function.name} is running."
            )
        return TooManyRequestsException()

    def _on_delivery(self, delivery: Delivery) -> None:
        if delivery.properties.correlation_id == self._waiting_for:
            self._replies.append(delivery)
        else:
            logger.info("late reply dropped")

    def _on_return(self, _channel: Any, _method: Any, properties: Any, _body: bytes) -> None:
        if properties.correlation_id == self._waiting_for or self._waiting_for is None:
            self._is_returned = True

    def _on_closed(self, _channel: Channel, reason: Exception) -> None:
        self._closed_by = reason

    def _on_events_closed(self, _channel: Channel, reason: Exception) -> None:
        self._events_closed = reason

    def _confirming_channel(self) -> Channel:
        if self._events is None or not self._events.is_open:
            channel = self._connection.open_channel()
            channel.add_on_return_callback(self._on_return)
            channel.add_on_close_callback(self._on_events_closed)
            self._connection.call(
                channel,
                "confirm_delivery",
                ack_nack_callback=lambda frame: self._confirms.append(
                    frame.method.NAME == "Basic.Ack"
                ),
            )
            self._events = channel
        return self._events


_NOT_FOUND: Final = 404


def _deadline_of(frame: Started) -> float:
    return time.monotonic() + frame.within_s + REPLY_GRACE_S
