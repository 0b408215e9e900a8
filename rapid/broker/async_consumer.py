"""Events from RabbitMQ: tried as often as the policy says, and lost at no point on the way.

An event is acknowledged only when it is done with or the broker has confirmed whatever follows
it: the next attempt, a record for a destination, or a dead letter.
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
from lambda_protocol.errors import ErrorType, LambdaApiError, ServiceException, error_payload
from lambda_protocol.event_amqp import (
    dead_letter_queue,
    dead_letter_queue_arguments,
    decode_event,
    encode_dead_letter,
    encode_event,
    event_queue,
    event_queue_arguments,
)
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import UNHANDLED, Event, Invocation, InvocationType, Outcome
from lambda_protocol.limits import EVENT_PAYLOAD_BYTES
from rapid.broker.async_channel import EventLink
from rapid.broker.reply_channel import AmqpLink
from rapid.broker.slots import Load
from rapid.call import Call
from rapid.invocations.destinations import (
    AmqpDestination,
    Destination,
    FunctionDestination,
    HttpDestination,
    SendByHttp,
    record_invocation,
)
from rapid.invocations.retry_policy import (
    Condition,
    Discard,
    Done,
    Retry,
    RetryPolicy,
    destination_record,
    error_message,
)
from rapid.metrics import Metrics
from rapid.scheduler import Scheduler

logger = logging.getLogger(__name__)

#: How long RabbitMQ may take to confirm what it read before an alarm began, seconds.
CONFIRM_IN_ALARM_S: Final = 2.0

#: Hears that an event is safe, or why it is not.
OnAccepted = Callable[[LambdaApiError | None], None]


class EventConsumer:
    """The events of one function. One thread, amqp-consumer, but for what says otherwise."""

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
        load: Load,
        metrics: Metrics,
        send_by_http: SendByHttp,
        defer: Callable[[Callable[[], None]], None],
    ) -> None:
        """``longest_s`` is how long an attempt may take.

        ``defer`` runs something soon in the consumer's thread, one after the other.
        """
        self._longest_s = longest_s
        self._function = function
        self._queue = event_queue(function)
        self._dead = dead_letter_queue(function)
        self._queue_type = queue_type
        self._checks_payload = checks_payload
        self._policy = policy
        self._on_success = on_success
        self._on_failure = on_failure
        self._scheduler = scheduler
        self._load = load
        self._metrics = metrics
        self._send_by_http = send_by_http
        self._defer = defer
        self._link: EventLink | None = None
        self._keys = itertools.count()
        # From the Invoke API, on their way to the consumer's thread.
        self._entering: deque[tuple[Invocation, OnAccepted]] = deque()
        self._unconfirmed: dict[int, OnAccepted] = {}  # of those that are published, by key

    # --- for the connection

    @property
    def is_open(self) -> bool:
        """Whether events are taken and accepted."""
        return self._link is not None

    @property
    def is_drained(self) -> bool:
        """Whether no event comes any more."""
        return self._link is None or self._link.window.is_closed

    @property
    def poll_limit_s(self) -> float:
        """How long what is under way may be left alone."""
        return 3600.0 if self._link is None else self._link.window.poll_limit_s

    def open(self, link: AmqpLink) -> int:
        """Declare what events need on a channel of their own; return its number.

        Raises one of ``BrokerLost``.
        """
        channel = link.connection.open_channel()
        for queue, arguments in (
            (self._dead, dead_letter_queue_arguments(self._queue_type)),
            (self._queue, event_queue_arguments(self._function, self._queue_type)),
        ):
            link.declare(channel, queue, arguments, settings="RAPID_AMQP_EVENT_QUEUE_TYPE")
        channel.add_on_cancel_callback(lambda _frame: link.lose("the event queue was deleted"))
        channel.add_on_close_callback(lambda _channel, reason: link.lose(reason))
        opened = EventLink(
            link, channel, self._queue, queue_type=self._queue_type, longest_s=self._longest_s
        )
        # The first delay is declared at once: a missing permission shows before an event needs it.
        opened.retry_exchange(self._policy.backoff_s[0], self._queue_type)
        self._link = opened
        return int(channel.channel_number)

    def adapt(self, *, is_draining: bool) -> None:
        """Take as many events as there is room for; raises when the broker owes a confirm."""
        link = self._link
        assert link is not None
        if link.is_overdue():
            raise ChannelClosed(0, "the broker does not confirm what was published")
        link.window.adapt(0 if is_draining else self._load.event_prefetch())

    def on_delivery(self, delivery: Delivery) -> None:
        """Take an event; what has to talk to the broker is put off until this was heard."""
        link = self._link
        assert link is not None
        link.window.on_delivery(delivery)
        try:
            event = decode_event(delivery, self._function, check_payload=self._checks_payload)
        except LambdaApiError as error:
            bury = functools.partial(self._bury_unreadable, link, delivery, error.message)
            self._defer_for(link, delivery, bury)
            return
        call = _EventCall(self, link, delivery, event, next(self._keys))
        self._load.on_event_taken(call.key)
        self._attend(link, delivery, lambda: self._begin(call))

    def _begin(self, call: _EventCall) -> None:
        """Run an event that was taken, or do what follows if that makes no sense any more."""
        link, delivery, event = call.link, call.delivery, call.event
        now_ms = _now_ms()
        # Whoever had it is gone, and cannot tell what it did with it.
        if delivery.redelivered and not link.window.may_get_back:
            call.on_outcome(_lost(event))
            return
        if event.attempt == 1 and event.backoffs == 0:
            self._metrics.on_event_received()
        if self._policy.is_too_old(event, now_ms):
            self._load.on_event_done(call.key)
            condition = Condition.EVENT_AGE_EXCEEDED
            self._defer_for(
                link, delivery, lambda: self._give_up(call, condition, None, event.attempt - 1)
            )
            return
        self._metrics.on_event_age(event.age_s(now_ms))
        try:
            self._scheduler.submit(call)
        except LambdaApiError as error:
            call.on_outcome(error)
        except Exception:
            self._load.on_event_done(call.key)
            raise

    def hand_back(self, waited_s: float) -> None:
        """Publish events that have not begun afresh: a redelivered one would count as begun."""
        oldest = time.monotonic() - waited_s
        taken = self._scheduler.withdraw(
            lambda call: isinstance(call, _EventCall) and call.received_at <= oldest
        )
        for call in taken:
            assert isinstance(call, _EventCall)
            self._load.on_event_done(call.key)
            self._publish(call, "", self._queue, encode_event(call.event), call.invocation.payload)
        if taken:
            self._load.on_handed_back(events=True)

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
                on_accepted(ServiceException("RabbitMQ did not confirm the event; it may have it."))

    def on_unblocked(self) -> None:
        """Go on: what was published may be confirmed from now on."""
        if self._link is not None:
            self._link.restart_clock()

    @property
    def pending(self) -> int:
        """How many messages the broker has not confirmed yet."""
        return 0 if self._link is None else self._link.pending

    def lose(self) -> None:
        """Forget a connection that is gone: the broker delivers again what was in hand."""
        link, self._link = self._link, None
        if link is not None:
            for call in self._scheduler.withdraw(lambda call: isinstance(call, _EventCall)):
                assert isinstance(call, _EventCall)
                self._load.on_event_done(call.key)
            link.fail()
        self._publish_entering()  # which tells them that there is no way in

    # --- for the Invoke API

    def accept(self, invocation: Invocation, on_accepted: OnAccepted) -> None:
        """Put an event into its queue; ``on_accepted`` hears when it is safe. Any thread.

        Raises ``ServiceException`` when the broker is away or takes no messages.
        """
        link = self._link
        if link is None:
            raise ServiceException("The broker is not reachable.")
        if link.blocked_reason is not None:
            raise broker_blocked(link.blocked_reason)
        self._entering.append((invocation, on_accepted))
        self._defer(self._publish_entering)

    def _publish_entering(self) -> None:
        link = self._link
        if link is not None and self._entering:
            link.ask()  # else an event that is answered 500 could still be read, and run
            if link.blocked_reason is not None:
                return  # the consumer refuses them
        while self._entering:
            invocation, on_accepted = self._entering.popleft()
            if link is None:
                on_accepted(ServiceException("The connection to the broker was lost."))
                continue
            key = next(self._keys)  # a caller may give two the same request id
            self._unconfirmed[key] = on_accepted
            link.publisher.publish(
                "",
                self._queue,
                encode_event(Event.accepted(invocation)),
                invocation.payload,
                functools.partial(self._on_entered, key),
            )

    def _on_entered(self, key: int, is_safe: bool) -> None:
        on_accepted = self._unconfirmed.pop(key, None)
        if on_accepted is not None:
            on_accepted(None if is_safe else ServiceException("The broker did not take the event."))

    # --- what becomes of an event

    def on_outcome(self, call: _EventCall, outcome: Outcome | LambdaApiError) -> None:
        """Do what follows an attempt. Any thread."""
        duration_s = time.monotonic() - call.started_at if call.started_at else None
        if self._load.on_event_done(call.key, duration_s):
            self._defer(_nothing)  # so that the load is looked at
        has_succeeded = isinstance(outcome, Outcome) and outcome.function_error is None
        if has_succeeded and self._on_success is None:
            call.acknowledge()
        else:
            self._defer_for(call.link, call.delivery, lambda: self._settle(call, outcome))

    def _defer_for(self, link: EventLink, delivery: Delivery, action: Callable[[], None]) -> None:
        """Have the consumer's thread do something with one message. Any thread."""
        self._defer(lambda: self._attend(link, delivery, action))

    def _attend(self, link: EventLink, delivery: Delivery, action: Callable[[], None]) -> None:
        """Do something with one message; a fault of ours makes it a dead letter, and no more.

        RabbitMQ itself moves the message then, so that nothing of it has to be read or written.
        """
        try:
            action()
        except BrokerLost:
            raise
        except Exception:
            correlation_id = delivery.properties.correlation_id
            logger.exception("event failed", extra={"correlation_id": correlation_id})
            self._metrics.on_dead_letter()
            link.reject(delivery)

    def _settle(self, call: _EventCall, outcome: Outcome | LambdaApiError) -> None:
        if call.link is not self._link:
            return  # the broker has it again
        event, answer = call.event, outcome if isinstance(outcome, Outcome) else None
        attempts = event.attempt if answer is not None else event.attempt - 1
        match self._policy.next_step(event, outcome, _now_ms()):
            case Done():
                assert self._on_success is not None
                self._tell(call, self._on_success, Condition.SUCCESS, answer, attempts)
            case Retry() as step:
                self._metrics.on_event_retried()
                self._retry(call, step)
            case Discard(condition):
                self._give_up(call, condition, answer, attempts)

    def _retry(self, call: _EventCall, step: Retry) -> None:
        exchange = call.link.retry_exchange(step.delay_s, self._queue_type)
        logger.info(
            "event is tried again",
            extra={
                "request_id": step.event.invocation.request_id,
                "attempt": step.event.attempt,
                "delay_s": step.delay_s,
            },
        )
        payload = call.invocation.payload
        self._publish(call, exchange, self._queue, encode_event(step.event), payload)

    def _give_up(
        self, call: _EventCall, condition: Condition, outcome: Outcome | None, attempts: int
    ) -> None:
        self._metrics.on_event_dropped(condition)
        logger.warning(
            "event given up",
            extra={
                "function": call.invocation.function.name,
                "request_id": call.invocation.request_id,
                "condition": str(condition),
                "attempts": attempts,
            },
        )
        if self._on_failure is None:
            self._bury(call, condition, outcome)
        else:
            self._tell(call, self._on_failure, condition, outcome, attempts)

    def _tell(
        self,
        call: _EventCall,
        destination: Destination,
        condition: Condition,
        outcome: Outcome | None,
        attempts: int,
    ) -> None:
        """Deliver the record; if it cannot be, a failed event is buried and a good one is done."""
        record = destination_record(
            call.event, condition, outcome, attempts=attempts, now_s=time.time()
        )

        def on_delivered(is_delivered: bool) -> None:
            if not is_delivered:
                self._metrics.on_destination_failed()
                logger.error(
                    "record not delivered",
                    extra={"request_id": call.invocation.request_id, "condition": str(condition)},
                )
            if is_delivered or condition is Condition.SUCCESS:
                call.acknowledge()
            elif call.link is self._link:
                self._bury(call, condition, outcome)

        match destination:
            case HttpDestination():
                self._send_by_http(
                    destination,
                    record,
                    lambda is_ok: self._defer_for(
                        call.link, call.delivery, lambda: on_delivered(is_ok)
                    ),
                )
            case FunctionDestination() if len(record) > EVENT_PAYLOAD_BYTES:
                on_delivered(False)
            case FunctionDestination(function):
                invocation = record_invocation(record, function, call.invocation)
                properties = encode_event(Event.accepted(invocation))
                queue = event_queue(function)
                call.link.publisher.publish("", queue, properties, record, on_delivered)
            case AmqpDestination(exchange, routing_key):
                if call.link.has_exchange(exchange):
                    properties = _record_properties(call.invocation)
                    call.link.publish_record(
                        exchange, routing_key, properties, record, on_delivered
                    )
                else:
                    on_delivered(False)

    def _bury(self, call: _EventCall, condition: Condition, outcome: Outcome | None) -> None:
        self._metrics.on_dead_letter()
        properties = encode_dead_letter(call.event, error_message(condition, outcome))
        self._publish(call, "", self._dead, properties, call.invocation.payload)

    def _bury_unreadable(self, link: EventLink, delivery: Delivery, message: str) -> None:
        """Put a message that is no invocation to the dead letters, as it came."""
        if link is not self._link:
            return
        if delivery.body_size > len(delivery.body):  # too large to be here
            logger.warning("event refused", extra={"reason": message})
            self._metrics.on_dead_letter()
            link.reject(delivery)
            return
        invocation = Invocation(
            request_id=delivery.properties.correlation_id or "",
            function=self._function,
            payload=delivery.body,
            type=InvocationType.EVENT,
            trace_id="",
        )
        call = _EventCall(self, link, delivery, Event.accepted(invocation), next(self._keys))
        self._metrics.on_dead_letter()
        properties = encode_dead_letter(call.event, message)
        self._publish(call, "", self._dead, properties, delivery.body)

    def _publish(
        self,
        call: _EventCall,
        exchange: str,
        routing_key: str,
        properties: Properties,
        body: bytes,
    ) -> None:
        """Publish what follows an event, then acknowledge it."""

        def on_confirm(is_safe: bool) -> None:
            if is_safe:
                call.acknowledge()
            elif call.link is self._link:
                # Nothing is lost: the event is not acknowledged, and comes again.
                call.link.lose(f"the broker took no message for {exchange or routing_key}")

        call.link.publisher.publish(exchange, routing_key, properties, body, on_confirm)


class _EventCall(Call):
    """An attempt of an event, with what its acknowledgement needs."""

    __slots__ = ("delivery", "event", "key", "link")

    def __init__(
        self,
        consumer: EventConsumer,
        link: EventLink,
        delivery: Delivery,
        event: Event,
        key: int,
    ) -> None:
        self.link = link
        self.delivery = delivery
        self.event = event
        self.key = key
        super().__init__(event.invocation, lambda outcome: consumer.on_outcome(self, outcome))

    def acknowledge(self) -> None:
        """Tell the broker that the event is done with."""
        self.link.acknowledge(self.delivery)


def _lost(event: Event) -> Outcome:
    """Return the outcome of an attempt whose instance was lost: it counts as the function's."""
    message = f"RequestId: {event.invocation.request_id} Error: The instance was lost"
    return Outcome(payload=error_payload(ErrorType.EXIT_ERROR, message), function_error=UNHANDLED)


def _record_properties(cause: Invocation) -> Properties:
    return Properties(
        content_type="application/json",
        delivery_mode=PERSISTENT,
        correlation_id=cause.request_id,
        timestamp=int(time.time()),
    )


def _now_ms() -> int:
    return int(time.time() * 1000)


def _nothing() -> None:
    """Wake the consumer's thread."""
