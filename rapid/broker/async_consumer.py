"""Consumes the asynchronous invocations of one function from RabbitMQ: a message is an attempt."""

from __future__ import annotations

import functools
import itertools
import logging
import time

from lambda_protocol.amqp_connection import ChannelClosed
from lambda_protocol.amqp_frames import Delivery
from lambda_protocol.async_amqp import decode_async, encode_async
from lambda_protocol.clock import now_ms
from lambda_protocol.errors import ErrorType, LambdaApiError, error_payload
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import (
    UNHANDLED,
    AsyncInvocation,
    Invocation,
    InvocationType,
    Outcome,
)
from lambda_protocol.queues import async_queue, dead_letter_queue
from rapid.broker.acceptance import Acceptance
from rapid.broker.async_channel import AsyncChannel
from rapid.broker.async_transport import AsyncCall, AsyncTransport
from rapid.broker.commands import Commands
from rapid.broker.reply_channel import ReplyChannel
from rapid.broker.slots import Slots
from rapid.invocations.attempts import Attempts
from rapid.invocations.destinations import SendByHttp
from rapid.metrics import Metrics
from rapid.scheduling.scheduler import Scheduler
from rapid.settings.config import AsyncSettings

logger = logging.getLogger(__name__)


class AsyncConsumer:
    """The consumer. One thread, amqp-consumer, but for what says otherwise."""

    def __init__(
        self,
        *,
        function: FunctionRef,
        queue_type: str,
        longest_s: float,
        checks_payload: bool,
        settings: AsyncSettings,
        scheduler: Scheduler,
        slots: Slots,
        metrics: Metrics,
        send_by_http: SendByHttp,
        commands: Commands,
    ) -> None:
        """``longest_s`` is how long an attempt may take."""
        self._longest_s = longest_s
        self._function = function
        self._async_queue = async_queue(function, queue_type)
        self._dead_letter_queue = dead_letter_queue(function, queue_type)
        self._queue = self._async_queue.name
        self._queue_type = queue_type
        self._checks_payload = checks_payload
        self._transport = AsyncTransport(
            queue=self._queue,
            dead_letters=self._dead_letter_queue.name,
            queue_type=queue_type,
            commands=commands,
            metrics=metrics,
            send_by_http=send_by_http,
        )
        self._attempts = Attempts(
            self._transport,
            policy=settings.retry_policy,
            on_success=settings.on_success,
            on_failure=settings.on_failure,
            metrics=metrics,
        )
        self.acceptance = Acceptance(self._queue, commands)
        self._scheduler = scheduler
        self._slots = slots
        self._metrics = metrics
        self._commands = commands
        self._channel: AsyncChannel | None = None
        self._keys = itertools.count()

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
        self.acceptance.open(opened)
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
            self._transport.defer(channel, delivery, discard)
            return
        call = self._attempt(channel, delivery, async_invocation)
        self._slots.on_async_taken(call.key)
        self._transport.attend(channel, delivery, lambda: self._begin(call))

    def _begin(self, call: AsyncCall) -> None:
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
            self._transport.defer(call.channel, call.delivery, lambda: self._attempts.expire(call))
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
            lambda call: isinstance(call, AsyncCall) and call.received_at <= oldest
        )
        for call in taken:
            assert isinstance(call, AsyncCall)
            self._slots.on_async_done(call.key)
            self._transport.publish(
                call, "", self._queue, encode_async(call.async_invocation), call.invocation.payload
            )
        if taken:
            self._slots.on_handed_back(asynchronous=True)

    def on_blocked(self, reason: str, blocked_s: float) -> None:
        """Accept nothing while RabbitMQ reads nothing, for so long now."""
        self.acceptance.on_blocked(reason, blocked_s)

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
            for call in self._scheduler.withdraw(lambda call: isinstance(call, AsyncCall)):
                assert isinstance(call, AsyncCall)
                self._slots.on_async_done(call.key)
            channel.fail()
        self.acceptance.lose()

    # --- the end of an attempt

    def on_outcome(self, call: AsyncCall, outcome: Outcome | LambdaApiError) -> None:
        """Do what follows an attempt. Any thread."""
        duration_s = time.monotonic() - call.started_at if call.started_at else None
        if self._slots.on_async_done(call.key, duration_s):
            self._commands.wake()  # so that the prefetch counts are looked at
        has_succeeded = isinstance(outcome, Outcome) and outcome.function_error is None
        if has_succeeded and self._attempts.on_success is None:
            self._transport.finish(call)
        else:
            self._transport.defer(call.channel, call.delivery, lambda: self._end(call, outcome))

    def _end(self, call: AsyncCall, outcome: Outcome | LambdaApiError) -> None:
        if not call.channel.is_lost:  # else RabbitMQ has the message again
            self._attempts.end(call, outcome)

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
        call = self._attempt(channel, delivery, accepted)
        self._transport.publish_dead_letter(call, message)

    def _attempt(
        self, channel: AsyncChannel, delivery: Delivery, async_invocation: AsyncInvocation
    ) -> AsyncCall:
        return AsyncCall(
            channel, delivery, async_invocation, key=next(self._keys), on_outcome=self.on_outcome
        )


def _lost(async_invocation: AsyncInvocation) -> Outcome:
    """Return the outcome of an attempt whose instance was lost: it counts as the function's."""
    message = f"RequestId: {async_invocation.invocation.request_id} Error: The instance was lost"
    return Outcome(payload=error_payload(ErrorType.EXIT_ERROR, message), function_error=UNHANDLED)
