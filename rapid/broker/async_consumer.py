"""Consumes the asynchronous invocations of one function from RabbitMQ.

A message is acknowledged only when its invocation needs no further attempt, or when RabbitMQ has
confirmed what follows: the next attempt, a record for a destination, or a dead letter.
"""

from __future__ import annotations

import functools
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from lambda_protocol.amqp_connection import BrokerLost, ChannelClosed, broker_blocked
from lambda_protocol.amqp_frames import PERSISTENT, Delivery, Properties
from lambda_protocol.async_amqp import (
    decode_async,
    encode_async,
    encode_dead_letter,
)
from lambda_protocol.clock import now_ms
from lambda_protocol.confirmed_publisher import Confirm
from lambda_protocol.errors import ErrorType, LambdaApiError, ServiceException, error_payload
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import (
    UNHANDLED,
    AsyncInvocation,
    Invocation,
    InvocationType,
    Outcome,
)
from lambda_protocol.limits import ASYNC_PAYLOAD_BYTES
from lambda_protocol.queues import async_queue, async_queue_name, dead_letter_queue
from rapid.broker.async_channel import AsyncChannel
from rapid.broker.reply_channel import ReplyChannel
from rapid.broker.slots import Slots
from rapid.invocations.attempts import Attempt, Attempts
from rapid.invocations.destinations import (
    AmqpDestination,
    Destination,
    FunctionDestination,
    HttpDestination,
    OnDelivered,
    SendByHttp,
    record_invocation,
)
from rapid.invocations.retry_policy import Condition, Retry, RetryPolicy, error_message
from rapid.metrics import Metrics
from rapid.scheduling.scheduler import Scheduler

logger = logging.getLogger(__name__)

#: How long RabbitMQ may take to confirm what it read before an alarm began, seconds.
CONFIRM_IN_ALARM_S: Final = 2.0

#: Gets None when RabbitMQ has an invocation, or why it has not.
OnAccepted = Callable[[LambdaApiError | None], None]


class AsyncConsumer:
    """The consumer. One thread, amqp-consumer, but for what says otherwise."""

    def __init__(
        self,
        *,
        function: FunctionRef,
        queue_type: str,
        longest_s: float,
        checks_payload: bool,
        policy: RetryPolicy,
        on_success: Destination | None,
        on_failure: Destination | None,
        scheduler: Scheduler,
        slots: Slots,
        metrics: Metrics,
        send_by_http: SendByHttp,
        defer: Callable[[Callable[[], None]], None],
    ) -> None:
        """``longest_s`` is how long an attempt may take.

        ``defer`` runs something soon in the consumer's thread, one after the other.
        """
        self._longest_s = longest_s
        self._function = function
        self._async_queue = async_queue(function, queue_type)
        self._dead_letter_queue = dead_letter_queue(function, queue_type)
        self._queue, self._dead = self._async_queue.name, self._dead_letter_queue.name
        self._queue_type = queue_type
        self._checks_payload = checks_payload
        self._attempts = Attempts(
            self, policy=policy, on_success=on_success, on_failure=on_failure, metrics=metrics
        )
        self._scheduler = scheduler
        self._slots = slots
        self._metrics = metrics
        self._send_by_http = send_by_http
        self._defer = defer
        self._channel: AsyncChannel | None = None
        self._keys = itertools.count()
        # From the Invoke API, on their way to the consumer's thread.
        self._entering: deque[tuple[Invocation, OnAccepted]] = deque()
        self._unconfirmed: dict[int, OnAccepted] = {}  # of those that are published, by key

    # --- for the connection

    @property
    def is_open(self) -> bool:
        """Whether asynchronous invocations are taken and accepted."""
        return self._channel is not None

    @property
    def is_drained(self) -> bool:
        """Whether no asynchronous invocation comes any more."""
        return self._channel is None or self._channel.consumer.is_closed

    @property
    def poll_limit_s(self) -> float:
        """How long what is under way may be left alone."""
        return 3600.0 if self._channel is None else self._channel.consumer.poll_limit_s

    def open(self, reply_channel: ReplyChannel) -> int:
        """Declare what asynchronous invocations need on a channel of their own; return its number.

        Raises one of ``BrokerLost``.
        """
        pika_channel = reply_channel.connection.open_channel()
        for queue in (self._dead_letter_queue, self._async_queue):
            reply_channel.declare(pika_channel, queue, settings="RAPID_AMQP_EVENT_QUEUE_TYPE")
        pika_channel.add_on_cancel_callback(
            lambda _frame: reply_channel.lose("the event queue was deleted")
        )
        pika_channel.add_on_close_callback(lambda _, reason: reply_channel.lose(reason))
        opened = AsyncChannel(
            reply_channel,
            pika_channel,
            self._async_queue,
            longest_s=self._longest_s,
        )
        # The first delay is declared at once: a missing permission shows before an asynchronous
        # invocation needs it.
        opened.retry_exchange(self._attempts.policy.backoff_s[0], self._queue_type)
        self._channel = opened
        return int(pika_channel.channel_number)

    def set_prefetch(self, *, is_draining: bool) -> None:
        """Consume with the prefetch count that the free slots allow.

        Raises ``ChannelClosed`` if RabbitMQ has not confirmed a message for too long.
        """
        channel = self._channel
        assert channel is not None
        if channel.is_overdue():
            raise ChannelClosed(0, "the broker does not confirm what was published")
        channel.consumer.set_prefetch(0 if is_draining else self._slots.async_prefetch())

    def on_delivery(self, delivery: Delivery) -> None:
        """Take a message. What has to talk to RabbitMQ comes after this, in the same thread."""
        channel = self._channel
        assert channel is not None
        channel.consumer.on_delivery(delivery)
        try:
            async_invocation = decode_async(
                delivery, self._function, check_payload=self._checks_payload
            )
        except LambdaApiError as error:
            discard = functools.partial(self._discard_unreadable, channel, delivery, error.message)
            self._defer_for(channel, delivery, discard)
            return
        call = _AsyncCall(self, channel, delivery, async_invocation, next(self._keys))
        self._slots.on_async_taken(call.key)
        self._attend(channel, delivery, lambda: self._begin(call))

    def _begin(self, call: _AsyncCall) -> None:
        """Run an attempt, unless the message says that none may be made."""
        async_invocation, now = call.async_invocation, now_ms()
        # Redelivered: the instance before died. It may have run the invocation, so the attempt
        # counts.
        if call.delivery.redelivered and not call.channel.consumer.may_get_back:
            call.on_outcome(_lost(async_invocation))
            return
        if async_invocation.attempt == 1 and async_invocation.backoffs == 0:
            self._metrics.on_async_received()
        if self._attempts.policy.is_too_old(async_invocation, now):
            self._slots.on_async_done(call.key)
            self._defer_for(call.channel, call.delivery, lambda: self._attempts.expire(call))
            return
        self._metrics.on_async_age(async_invocation.age_s(now))
        try:
            self._scheduler.submit(call)
        except LambdaApiError as error:
            call.on_outcome(error)
        except Exception:
            self._slots.on_async_done(call.key)
            raise

    def hand_back(self, waited_s: float) -> None:
        """Publish what has waited unstarted for ``waited_s`` as fresh messages.

        RabbitMQ marks a message that it takes back as redelivered, and its attempt would count.
        """
        oldest = time.monotonic() - waited_s
        taken = self._scheduler.withdraw(
            lambda call: isinstance(call, _AsyncCall) and call.received_at <= oldest
        )
        for call in taken:
            assert isinstance(call, _AsyncCall)
            self._slots.on_async_done(call.key)
            self._publish(
                call, "", self._queue, encode_async(call.async_invocation), call.invocation.payload
            )
        if taken:
            self._slots.on_handed_back(asynchronous=True)

    def on_blocked(self, reason: str, blocked_s: float) -> None:
        """Refuse what has not been published, while RabbitMQ reads nothing, for so long now.

        What was published just before may be confirmed yet.
        """
        while self._entering:
            _, on_accepted = self._entering.popleft()
            on_accepted(broker_blocked(reason))
        if blocked_s >= CONFIRM_IN_ALARM_S:
            unconfirmed, self._unconfirmed = self._unconfirmed, {}
            for on_accepted in unconfirmed.values():
                on_accepted(
                    ServiceException("RabbitMQ did not confirm the invocation; it may have it.")
                )

    def on_unblocked(self) -> None:
        """Go on: what was published may be confirmed from now on."""
        if self._channel is not None:
            self._channel.restart_clock()

    @property
    def pending(self) -> int:
        """How many messages the broker has not confirmed yet."""
        return 0 if self._channel is None else self._channel.pending

    def lose(self) -> None:
        """Forget a connection that is gone: the broker delivers again what was in hand."""
        channel, self._channel = self._channel, None
        if channel is not None:
            for call in self._scheduler.withdraw(lambda call: isinstance(call, _AsyncCall)):
                assert isinstance(call, _AsyncCall)
                self._slots.on_async_done(call.key)
            channel.fail()
        self._publish_entering()  # which tells them that there is no way in

    # --- for the Invoke API

    def accept(self, invocation: Invocation, on_accepted: OnAccepted) -> None:
        """Publish ``invocation`` to its queue; ``on_accepted`` gets the result. Any thread.

        Raises ``ServiceException`` when the broker is away or takes no messages.
        """
        channel = self._channel
        if channel is None:
            raise ServiceException("The broker is not reachable.")
        if channel.blocked_reason is not None:
            raise broker_blocked(channel.blocked_reason)
        self._entering.append((invocation, on_accepted))
        self._defer(self._publish_entering)

    def _publish_entering(self) -> None:
        channel = self._channel
        if channel is not None and self._entering:
            channel.ask()  # else RabbitMQ could read, later, an invocation that was answered 500
            if channel.blocked_reason is not None:
                return  # the consumer refuses them
        while self._entering:
            invocation, on_accepted = self._entering.popleft()
            if channel is None:
                on_accepted(ServiceException("The connection to the broker was lost."))
                continue
            key = next(self._keys)  # a caller may give two the same request id
            self._unconfirmed[key] = on_accepted
            channel.publisher.publish(
                "",
                self._queue,
                encode_async(AsyncInvocation.accepted(invocation)),
                invocation.payload,
                functools.partial(self._on_entered, key),
            )

    def _on_entered(self, key: int, confirm: Confirm) -> None:
        on_accepted = self._unconfirmed.pop(key, None)
        if on_accepted is None:
            return
        if confirm is Confirm.TAKEN:
            on_accepted(None)
        else:
            on_accepted(ServiceException("The broker did not take the invocation."))

    # --- the end of an attempt

    def on_outcome(self, call: _AsyncCall, outcome: Outcome | LambdaApiError) -> None:
        """Do what follows an attempt. Any thread."""
        duration_s = time.monotonic() - call.started_at if call.started_at else None
        if self._slots.on_async_done(call.key, duration_s):
            self._defer(_nothing)  # so that the prefetch counts are looked at
        has_succeeded = isinstance(outcome, Outcome) and outcome.function_error is None
        if has_succeeded and self._attempts.on_success is None:
            self.finish(call)
        else:
            self._defer_for(call.channel, call.delivery, lambda: self._end(call, outcome))

    def _end(self, call: _AsyncCall, outcome: Outcome | LambdaApiError) -> None:
        if call.channel is self._channel:  # else RabbitMQ has the message again
            self._attempts.end(call, outcome)

    def _defer_for(
        self, channel: AsyncChannel, delivery: Delivery, action: Callable[[], None]
    ) -> None:
        """Have the consumer's thread do something with one message. Any thread."""
        self._defer(lambda: self._attend(channel, delivery, action))

    def _attend(
        self, channel: AsyncChannel, delivery: Delivery, action: Callable[[], None]
    ) -> None:
        """Do something with one message; a fault of ours makes it a dead letter, and no more.

        RabbitMQ itself moves the message then, so that nothing of it has to be read or written.
        """
        try:
            action()
        except BrokerLost:
            raise
        except Exception:
            correlation_id = delivery.properties.correlation_id
            logger.exception(
                "asynchronous invocation failed", extra={"correlation_id": correlation_id}
            )
            self._metrics.on_dead_letter()
            channel.reject(delivery)

    # --- the transport of attempts

    def retry(self, attempt: _AsyncCall, step: Retry) -> None:
        """Publish the next attempt to the exchange that delays it, then acknowledge this one."""
        exchange = attempt.channel.retry_exchange(step.delay_s, self._queue_type)
        properties = encode_async(step.async_invocation)
        self._publish(attempt, exchange, self._queue, properties, attempt.invocation.payload)

    def send_record(
        self,
        attempt: _AsyncCall,
        destination: Destination,
        record: bytes,
        on_delivered: OnDelivered,
    ) -> None:
        """Deliver a record by HTTP, or publish it."""
        channel = attempt.channel
        match destination:
            case HttpDestination():

                def on_posted(is_delivered: bool) -> None:
                    self._defer_for(channel, attempt.delivery, lambda: on_delivered(is_delivered))

                self._send_by_http(destination, record, on_posted)
            case FunctionDestination() if len(record) > ASYNC_PAYLOAD_BYTES:
                on_delivered(False)
            case FunctionDestination(function):
                invocation = record_invocation(record, function, attempt.invocation)
                properties = encode_async(AsyncInvocation.accepted(invocation))
                channel.publisher.publish(
                    "",
                    async_queue_name(function),
                    properties,
                    record,
                    lambda confirm: on_delivered(confirm is Confirm.TAKEN),
                )
            case AmqpDestination(exchange, routing_key):
                if channel.has_exchange(exchange):
                    properties = _record_properties(attempt.invocation)
                    channel.publish_record(
                        exchange,
                        routing_key,
                        properties,
                        record,
                        lambda confirm: on_delivered(confirm is Confirm.TAKEN),
                    )
                else:
                    on_delivered(False)

    def dead_letter(
        self, attempt: _AsyncCall, condition: Condition, outcome: Outcome | None
    ) -> None:
        """Publish the payload to the dead-letter queue, then acknowledge the message."""
        if attempt.channel is self._channel:
            self._publish_dead_letter(attempt, error_message(condition, outcome))

    def finish(self, attempt: _AsyncCall) -> None:
        """Acknowledge the message. Any thread."""
        attempt.channel.acknowledge(attempt.delivery)

    def _publish_dead_letter(self, call: _AsyncCall, message: str) -> None:
        self._metrics.on_dead_letter()
        properties = encode_dead_letter(call.async_invocation, message)
        self._publish(call, "", self._dead, properties, call.invocation.payload)

    def _discard_unreadable(self, channel: AsyncChannel, delivery: Delivery, message: str) -> None:
        """Move a message that is no invocation to the dead-letter queue, as it came."""
        if channel is not self._channel:
            return
        if delivery.body_size > len(delivery.body):  # too large to be here
            logger.warning("message refused", extra={"reason": message})
            self._metrics.on_dead_letter()
            channel.reject(delivery)
            return
        invocation = Invocation(
            request_id=delivery.properties.correlation_id or "",
            function=self._function,
            payload=delivery.body,
            type=InvocationType.EVENT,
            trace_id="",
        )
        accepted = AsyncInvocation.accepted(invocation)
        call = _AsyncCall(self, channel, delivery, accepted, next(self._keys))
        self._publish_dead_letter(call, message)

    def _publish(
        self,
        call: _AsyncCall,
        exchange: str,
        routing_key: str,
        properties: Properties,
        body: bytes,
    ) -> None:
        """Publish what follows an attempt; acknowledge its message when RabbitMQ has confirmed."""

        def on_confirm(confirm: Confirm) -> None:
            if confirm is Confirm.TAKEN:
                self.finish(call)
            elif call.channel is self._channel:
                # Nothing is lost: the message is not acknowledged, so it comes again.
                call.channel.lose(f"the broker took no message for {exchange or routing_key}")

        call.channel.publisher.publish(exchange, routing_key, properties, body, on_confirm)


class _AsyncCall(Attempt):
    """An attempt, with what the acknowledgement of its message needs."""

    __slots__ = ("channel", "delivery", "key")

    def __init__(
        self,
        consumer: AsyncConsumer,
        channel: AsyncChannel,
        delivery: Delivery,
        async_invocation: AsyncInvocation,
        key: int,
    ) -> None:
        self.channel = channel
        self.delivery = delivery
        self.key = key
        super().__init__(async_invocation, lambda outcome: consumer.on_outcome(self, outcome))


def _lost(async_invocation: AsyncInvocation) -> Outcome:
    """Return the outcome of an attempt whose instance was lost: it counts as the function's."""
    message = f"RequestId: {async_invocation.invocation.request_id} Error: The instance was lost"
    return Outcome(payload=error_payload(ErrorType.EXIT_ERROR, message), function_error=UNHANDLED)


def _record_properties(cause: Invocation) -> Properties:
    return Properties(
        content_type="application/json",
        delivery_mode=PERSISTENT,
        correlation_id=cause.request_id,
        timestamp=int(time.time()),
    )


def _nothing() -> None:
    """Wake the consumer's thread."""
