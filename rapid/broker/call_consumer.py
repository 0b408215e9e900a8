"""Consumes the calls of one function from RabbitMQ, and replies to their callers.

One thread owns the connection and reads; a reply and its acknowledgement leave in one write, from
the thread of the runtime that answered.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from lambda_protocol.amqp_connection import (
    AmqpConnection,
    BrokerLost,
    ClosedByBroker,
    connection_parameters,
)
from lambda_protocol.amqp_frames import Delivery
from lambda_protocol.amqp_refusals import Permissions, Refusals
from lambda_protocol.environ import BrokerAddress
from lambda_protocol.errors import LambdaApiError, ServiceException
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import Outcome
from lambda_protocol.invoke_amqp import (
    IncomingCall,
    ReplyAddress,
    Wanted,
    decode_call,
    encode_error,
    encode_outcome,
    encode_started,
    parse_reply_to,
)
from lambda_protocol.queues import Queue
from rapid.broker.alarm import ALARM_POLL_S, PROBE_S, Alarm
from rapid.broker.arrivals import Arrivals
from rapid.broker.async_consumer import AsyncConsumer
from rapid.broker.confirmer import Confirmer, Question
from rapid.broker.prefetch import QueueConsumer
from rapid.broker.reply_channel import ReplyChannel
from rapid.broker.slots import HAND_BACK_AFTER_S, Slots
from rapid.call import Call
from rapid.metrics import Metrics
from rapid.scheduling.scheduler import Scheduler

logger = logging.getLogger(__name__)

#: Reconnect delays, seconds: the first, and the longest.
BACKOFF_S: Final = (0.1, 5.0)
#: How soon queues of asynchronous invocations that were not to be had are asked for again, seconds.
ASYNC_RETRY_S: Final = 5.0
#: How long a stop waits for what was published last, seconds.
CONFIRM_AT_STOP_S: Final = 2.0


#: Makes the consumer of asynchronous invocations, given a way to run something soon in this
#: consumer's thread.
MakeAsyncConsumer = Callable[[Callable[[Callable[[], None]], None]], AsyncConsumer]


class CallConsumer:
    """The consumer of one function's queue. Thread-safe but for what says otherwise."""

    def __init__(
        self,
        broker: BrokerAddress,
        *,
        function: FunctionRef,
        scheduler: Scheduler,
        slots: Slots,
        metrics: Metrics,
        make_async_consumer: MakeAsyncConsumer,
        needs: Permissions,
        longest_s: float,
        queue: Queue,
        reruns_redelivered: bool,
        checks_payload: bool,
    ) -> None:
        """``longest_s`` is how long a call may take.

        Raises ``ConfigError`` for a wrong URI.
        """
        self._longest_s = longest_s
        self._parameters = connection_parameters(broker, name=f"rapid {function.name}")
        self._broker = broker
        self._refusals = Refusals(address=broker, needs=needs)
        self._refused: str | None = None  # what RabbitMQ said, while it refuses us
        self._function = function
        self._scheduler = scheduler
        self._queue = queue
        self._reruns_redelivered = reruns_redelivered
        self._checks_payload = checks_payload
        self._reply_channel: ReplyChannel | None = None
        self._alarm = Alarm(metrics)
        self._probe_due = 0.0  # monotonic seconds
        self._commands: SimpleQueue[Callable[[ReplyChannel], None]] = SimpleQueue()
        self._wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._is_woken = False
        self._is_draining = False
        self._stopping = threading.Event()
        self._drained = threading.Event()
        self._slots = slots
        self._arrivals = Arrivals()
        self._confirmer = Confirmer(self._parameters)
        self._async_channel = 0
        self._async_due = 0.0  # when their queues are asked for again, monotonic seconds
        self.asynchronous = make_async_consumer(self._defer)
        self._thread = threading.Thread(target=self._run, name="amqp-consumer", daemon=True)

    @property
    def missing(self) -> str | None:
        """What keeps calls from coming, or None."""
        if self._alarm.reason is not None:
            return f"RabbitMQ takes no messages: {self._alarm.reason}"
        if self._reply_channel is not None:
            return None
        if self._refused is not None:
            return f"RabbitMQ refuses: {self._refused}"
        return "the broker is not reached"

    def start(self) -> None:
        """Connect, and go on connecting."""
        self._thread.start()

    def drain(self, limit_s: float) -> bool:
        """Take no more calls; True if those not started were handed back. Idempotent."""
        self._is_draining = True
        self._wake()
        return self._reply_channel is None or self._drained.wait(limit_s)

    def stop(self, limit_s: float) -> bool:
        """Close the connection; True if it is closed within ``limit_s``. Idempotent.

        What is unanswered goes back to the broker.
        """
        deadline = time.monotonic() + limit_s
        self._stopping.set()
        self._wake()
        self._thread.join(limit_s)
        self._confirmer.stop(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    # --- the consumer's thread

    def _run(self) -> None:
        first, longest = BACKOFF_S
        delay_s = first
        while not self._stopping.is_set():
            try:
                self._serve()
                delay_s = first
            except BrokerLost as error:
                if self._reply_channel is not None:
                    delay_s = first
                self._on_lost(error, delay_s)
            except Exception:
                logger.exception("consumer failed")
                self._on_lost(None, delay_s)
            self._stopping.wait(delay_s)
            delay_s = min(delay_s * 2, longest)

    def _serve(self) -> None:
        """Consume until the connection is lost or we are stopped."""
        reply_channel: ReplyChannel | None = None

        def on_delivery(delivery: Delivery) -> None:
            assert reply_channel is not None
            if delivery.channel == self._async_channel:
                self.asynchronous.on_delivery(delivery)
            else:
                reply_channel.consumer.on_delivery(delivery)
                self._on_delivery(reply_channel, delivery)

        connection = AmqpConnection(self._parameters, on_delivery, wake_fd=self._wake_reader)
        try:
            reply_channel = self._open(connection)
            self._wait_for_alarm(reply_channel)
            # A function is found by its call queue, so the async queue has to be there before.
            self._open_async(reply_channel)
            if not self._is_draining:  # who stops leaves no queue without a consumer behind
                self._declare(reply_channel)
                reply_channel.consumer.set_prefetch(
                    self._call_prefetch()
                )  # from here on calls come in
            self._reply_channel, self._refused = reply_channel, None
            logger.info("consuming", extra={"queue": self._function.name, "broker": self._broker})
            while not self._stopping.is_set():
                # The end may have been heard of while something else was waited for.
                has_news = (
                    self._is_woken
                    or reply_channel.lost_by is not None
                    or self._has_alarm_news(reply_channel)
                )
                connection.poll(0.0 if has_news else self._poll_limit_s(reply_channel))
                self._is_woken = False
                if reply_channel.lost_by is not None:
                    raise reply_channel.lost_by
                if self._is_blocked(reply_channel):
                    continue
                self._probe(reply_channel)
                self._run_commands(reply_channel)
                if self._has_alarm_news(reply_channel):
                    continue
                reply_channel.send_late()
                if self._slots.is_over:
                    self._hand_back(reply_channel, HAND_BACK_AFTER_S)
                if not self.asynchronous.is_open and time.monotonic() >= self._async_due:
                    self._open_async(reply_channel)
                self._set_prefetches(reply_channel)
                if self._is_draining and not self._drained.is_set():
                    self._end_drain(reply_channel)
            self._finish(reply_channel)
        finally:
            connection.shut_down()

    def _wait_for_alarm(self, reply_channel: ReplyChannel) -> None:
        """Find out whether RabbitMQ takes messages, and wait until it does."""
        reply_channel.connection.check_publishing(reply_channel.channel)
        while (
            self._alarm.follow(reply_channel.connection.blocked_reason)
            and not self._stopping.is_set()
        ):
            reply_channel.connection.poll(ALARM_POLL_S)

    def _has_alarm_news(self, reply_channel: ReplyChannel) -> bool:
        """Whether an alarm was heard of while something else was waited for."""
        return reply_channel.connection.blocked_reason != self._alarm.reason

    def _probe(self, reply_channel: ReplyChannel) -> None:
        """Have RabbitMQ tell of an alarm though nothing is published."""
        if time.monotonic() >= self._probe_due:
            self._probe_due = time.monotonic() + PROBE_S
            reply_channel.connection.probe(reply_channel.channel)

    def _is_blocked(self, reply_channel: ReplyChannel) -> bool:
        """Whether RabbitMQ has an alarm, and reads nothing; holds back what could not be answered.

        A call whose caller is answered 503 meanwhile must not start later. So no call starts
        during the alarm, and after it each caller is asked first.
        """
        was_blocked = self._alarm.reason is not None
        if self._alarm.follow(reply_channel.connection.blocked_reason):
            taken = self._scheduler.withdraw(lambda call: _is_of(call, reply_channel))
            self._slots.on_done(len(taken))
            self._alarm.held += [call.delivery for call in taken if isinstance(call, _AmqpCall)]
            assert self._alarm.reason is not None
            self.asynchronous.on_blocked(self._alarm.reason, self._alarm.age_s)
            if self._is_draining:
                self._drained.set()
            return True
        if was_blocked:
            self.asynchronous.on_unblocked()
        if self._alarm.held and not self._alarm.holds_calls:
            for delivery in self._alarm.take_held():
                self._take(reply_channel, delivery, has_waited=True)  # a drain hands them back
        return False

    def _finish(self, reply_channel: ReplyChannel) -> None:
        """Send what is left to send, and hear that the broker has it."""
        deadline = time.monotonic() + CONFIRM_AT_STOP_S
        self._run_commands(reply_channel)
        while self.asynchronous.pending and time.monotonic() < deadline:
            reply_channel.connection.poll(_FINISH_POLL_S)
            self._run_commands(reply_channel)

    def _open(self, connection: AmqpConnection) -> ReplyChannel:
        channel = connection.open_channel()
        consumer = QueueConsumer(
            connection,
            channel,
            self._queue,
            longest_s=self._longest_s,
        )
        explain = self._refusals.explain
        reply_channel = ReplyChannel(
            self._parameters, connection, channel, consumer, self._defer, explain
        )
        channel.add_on_cancel_callback(lambda _frame: reply_channel.lose("the queue was deleted"))
        channel.add_on_close_callback(lambda _channel, reason: reply_channel.lose(reason))
        return reply_channel

    def _declare(self, reply_channel: ReplyChannel) -> None:
        settings = "RAPID_AMQP_QUEUE_TYPE and RAPID_AMQP_QUEUE_EXPIRES"
        reply_channel.declare(reply_channel.channel, self._queue, settings=settings)

    def _open_async(self, reply_channel: ReplyChannel) -> None:
        """Consume asynchronous invocations too, if their queues can be declared.

        Where most nodes of a cluster are down, a quorum queue is there and does not answer.
        """
        try:
            self._async_channel = self.asynchronous.open(reply_channel)
            self._is_woken = True  # so that they are asked for
        except BrokerLost as error:
            if not reply_channel.connection.is_open:
                raise
            self._async_due = time.monotonic() + ASYNC_RETRY_S
            logger.error(
                "no asynchronous invocations are taken or accepted; trying again",
                extra={**self._refusals.explain(error), "delay_s": ASYNC_RETRY_S},
            )

    def _poll_limit_s(self, reply_channel: ReplyChannel) -> float:
        if self._alarm.reason is not None or self._alarm.held:
            return ALARM_POLL_S
        limit_s = min(
            *(PROBE_S, self._slots.poll_limit_s, reply_channel.consumer.poll_limit_s),
            *(self.asynchronous.poll_limit_s, reply_channel.poll_limit_s),
        )
        if self.asynchronous.is_open:
            return limit_s
        return min(limit_s, max(0.0, self._async_due - time.monotonic()))

    def _set_call_prefetch(self, reply_channel: ReplyChannel) -> None:
        reply_channel.consumer.set_prefetch(0 if self._is_draining else self._call_prefetch())

    def _call_prefetch(self) -> int:
        """Return how many calls may be here; a queue that ends with its consumer keeps one."""
        return max(self._slots.call_prefetch(), int(self._queue.auto_delete))

    def _set_prefetches(self, reply_channel: ReplyChannel) -> None:
        """Consume as much as the load allows; nothing while we drain."""
        self._set_call_prefetch(reply_channel)
        if self.asynchronous.is_open:
            self.asynchronous.set_prefetch(is_draining=self._is_draining)

    def _on_delivery(self, reply_channel: ReplyChannel, delivery: Delivery) -> None:
        if reply_channel.connection.blocked_reason is not None or self._alarm.holds_calls:
            self._alarm.held.append(delivery)  # no more than the prefetch allows
        else:
            self._take(reply_channel, delivery)

    def _take(
        self, reply_channel: ReplyChannel, delivery: Delivery, *, has_waited: bool = False
    ) -> None:
        """Have a call run, or refuse it; ``has_waited`` asks its caller first."""
        try:
            incoming = decode_call(delivery, self._function, check_payload=self._checks_payload)
            if delivery.redelivered and not self._reruns_redelivered:
                raise ServiceException("The instance that ran this invocation was lost.")
            call = _AmqpCall(self, reply_channel, delivery, incoming)
            sent_at = self._arrivals.sent_at(incoming, reply_channel.consumer.quiet_s)
            call.wanted_at = float("-inf") if has_waited else sent_at
            self._slots.on_taken()
            try:
                self._scheduler.submit(call)
            except Exception:
                self._slots.on_done()
                raise
        except LambdaApiError as error:
            self._refuse(reply_channel, delivery, error)
        except Exception:  # a fault of ours costs this call, and no other
            correlation_id = delivery.properties.correlation_id
            logger.exception("call failed", extra={"correlation_id": correlation_id})
            self._refuse(reply_channel, delivery, ServiceException("An internal error occurred."))

    @staticmethod
    def _refuse(reply_channel: ReplyChannel, delivery: Delivery, error: LambdaApiError) -> None:
        properties = delivery.properties
        reply = encode_error(properties.correlation_id, error)
        reply_channel.reply(delivery, properties.reply_to, reply, error.body())

    def _on_lost(self, error: Exception | None, delay_s: float) -> None:
        reply_channel, self._reply_channel = self._reply_channel, None
        self._alarm.forget()
        if self._is_draining:
            self._drained.set()
        if reply_channel is not None:
            # The broker will deliver these again; here they would be answered to nobody.
            taken = self._scheduler.withdraw(lambda call: _is_of(call, reply_channel))
            self._slots.on_done(len(taken))
        self.asynchronous.lose()
        self._refused = error.reply_text if isinstance(error, ClosedByBroker) else None
        if error is not None and not self._stopping.is_set():
            told = {"broker": self._broker, **self._refusals.explain(error), "delay_s": delay_s}
            if self._refused is None:
                logger.warning("broker not reached; trying again", extra=told)
            else:
                logger.error("RabbitMQ refuses what rapid wants; trying again", extra=told)

    def _run_commands(self, reply_channel: ReplyChannel) -> None:
        # Nobody else takes any out. Those that write wait for the end of an alarm.
        while reply_channel.connection.blocked_reason is None and not self._commands.empty():
            self._commands.get_nowait()(reply_channel)

    def _end_drain(self, reply_channel: ReplyChannel) -> None:
        """Once nothing comes any more, hand back what has not started."""
        if (
            reply_channel.consumer.is_closed
            and self.asynchronous.is_drained
            and not self._alarm.held
        ):
            self._hand_back(reply_channel, 0.0)
            self._drained.set()

    def _hand_back(self, reply_channel: ReplyChannel, waited_s: float) -> None:
        """Publish unstarted calls afresh, so that they are not taken for started ones."""
        oldest = time.monotonic() - waited_s
        taken = self._scheduler.withdraw(
            lambda call: _is_of(call, reply_channel) and call.received_at <= oldest
        )
        for call in taken:
            assert isinstance(call, _AmqpCall)
            reply_channel.hand_back(call.delivery, self._function.queue_name)
        self._slots.on_done(len(taken))
        if taken:
            self._slots.on_handed_back(asynchronous=False)
        self.asynchronous.hand_back(waited_s)

    # --- any thread

    def on_answered(self, call: _AmqpCall, outcome: Outcome | LambdaApiError) -> None:
        """Reply to a call's caller and acknowledge it."""
        correlation_id = call.incoming.correlation_id
        if isinstance(outcome, LambdaApiError):
            properties, body = encode_error(correlation_id, outcome), outcome.body()
        else:
            properties, body = encode_outcome(correlation_id, outcome), outcome.payload
        call.reply_channel.reply(call.delivery, call.incoming.reply_to, properties, body)
        duration_s = time.monotonic() - call.started_at if call.started_at else None
        is_changed = self._slots.on_done(1, duration_s)
        if is_changed or self._slots.is_closed_to_asynchronous or self._is_draining:
            self._wake()

    def ask_caller(self, call: _AmqpCall, address: ReplyAddress) -> None:
        """Ask whether a call's caller still waits for it."""
        # In an alarm that was not heard of yet nobody could answer: it is to be heard of before the
        # call is taken for a wanted one.
        self._command(lambda reply_channel: reply_channel.connection.probe(reply_channel.channel))
        self._confirmer.ask(
            Question(call.incoming, address, lambda answer: self._on_caller_asked(call, answer))
        )

    def _on_caller_asked(self, call: _AmqpCall, answer: Wanted | bool | None) -> None:
        is_wanted = answer.is_wanted if isinstance(answer, Wanted) else answer
        if is_wanted is False:
            if self._scheduler.abandon(call):
                call.reply_channel.drop(call.delivery)
                self._slots.on_done()
                self._wake()
            return
        sent_s = answer.sent_s if isinstance(answer, Wanted) else None
        self._arrivals.learn(call.incoming, sent_s)
        self._scheduler.confirm(call)

    def _defer(self, action: Callable[[], None]) -> None:
        self._command(lambda _reply_channel: action())

    def _command(self, command: Callable[[ReplyChannel], None]) -> None:
        self._commands.put(command)
        self._wake()

    def _wake(self) -> None:
        self._is_woken = True  # stays, though a wait for one of the broker's answers takes the byte
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_writer, b"\0")


class _AmqpCall(Call):
    """A call that came by AMQP, with what its reply needs."""

    __slots__ = ("delivery", "incoming", "reply_channel")

    def __init__(
        self,
        consumer: CallConsumer,
        reply_channel: ReplyChannel,
        delivery: Delivery,
        incoming: IncomingCall,
    ) -> None:
        self.reply_channel = reply_channel
        self.delivery = delivery
        self.incoming = incoming
        super().__init__(
            incoming.invocation,
            lambda outcome: consumer.on_answered(self, outcome),
            self._send_started if incoming.understands_frames else None,
        )
        address = parse_reply_to(incoming.reply_to)
        if address is not None:
            self.ask_caller = lambda: consumer.ask_caller(self, address)

    def _send_started(self, answered_by: float, is_running: bool) -> None:
        within_s = answered_by - time.monotonic()
        properties = encode_started(self.incoming.correlation_id, within_s, is_running=is_running)
        self.reply_channel.send_started(self.incoming.reply_to, properties)


_FINISH_POLL_S: Final = 0.1


def _is_of(call: Call, reply_channel: ReplyChannel) -> bool:
    return isinstance(call, _AmqpCall) and call.reply_channel is reply_channel
