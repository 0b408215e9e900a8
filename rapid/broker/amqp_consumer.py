"""The thread ``amqp-consumer``: owns the connection to RabbitMQ, and consumes a function's queues.

There is one consumer for calls and one for asynchronous invocations. This thread opens what they
need, reads for both, and says when they have to wait. While only calls can come, the poller's
thread reads.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from lambda_protocol.amqp_connection import (
    AmqpConnection,
    BrokerLost,
    ClosedByBroker,
    Parameters,
)
from lambda_protocol.amqp_frames import Delivery
from lambda_protocol.amqp_refusals import Refusals
from rapid.broker.alarm import ALARM_POLL_S, PROBE_S, Alarm
from rapid.broker.announcer import Announcer
from rapid.broker.async_consumer import AsyncConsumer
from rapid.broker.call_consumer import CallConsumer
from rapid.broker.loan import Loan
from rapid.broker.reply_channel import ReplyChannel
from rapid.broker.slots import HAND_BACK_AFTER_S, Slots

logger = logging.getLogger(__name__)

#: Reconnect delays, seconds: the first, and the longest.
BACKOFF_S: Final = (0.1, 5.0)
#: How soon queues of asynchronous invocations that were not to be had are asked for again, seconds.
ASYNC_RETRY_S: Final = 5.0
#: How long a stop waits for what was published last, seconds.
CONFIRM_AT_STOP_S: Final = 2.0


class AmqpConsumer:
    """The thread and its connection. Thread-safe but for what says otherwise."""

    def __init__(
        self,
        parameters: Parameters,
        *,
        calls: CallConsumer,
        asynchronous: AsyncConsumer,
        slots: Slots,
        alarm: Alarm,
        refusals: Refusals,
        loan: Loan,
        announcer: Announcer,
    ) -> None:
        """Connect nowhere before :meth:`start`; the loan's commands are run in the thread."""
        self.asynchronous = asynchronous
        self._parameters = parameters
        self._calls = calls
        self._slots = slots
        self._alarm = alarm
        self._loan = loan
        self._announcer = announcer
        self._commands = loan.commands
        self._refusals = refusals
        self._refused: str | None = None  # what RabbitMQ said, while it refuses us
        self._is_consuming = False
        self._is_draining = False
        self._stopping = threading.Event()
        self._drained = threading.Event()
        self._probe_due = 0.0  # monotonic seconds
        self._async_channel = 0
        self._async_due = 0.0  # when their queues are asked for again, monotonic seconds
        self._due = 0.0  # when all is looked at though only calls come, monotonic seconds
        self._thread = threading.Thread(target=self._run, name="amqp-consumer", daemon=True)

    @property
    def missing(self) -> str | None:
        """What keeps calls from coming, or None."""
        if self._alarm.reason is not None:
            return f"RabbitMQ takes no messages: {self._alarm.reason}"
        if self._is_consuming:
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
        self._calls.drain()
        self._commands.wake()
        return not self._is_consuming or self._drained.wait(limit_s)

    def stop(self, limit_s: float) -> bool:
        """Close the connection; True if it is closed within ``limit_s``. Idempotent.

        What is unanswered goes back to the broker.
        """
        deadline = time.monotonic() + limit_s
        self._stopping.set()
        self._commands.wake()
        self._thread.join(limit_s)
        self._calls.stop(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    # --- the thread

    def _run(self) -> None:
        first, longest = BACKOFF_S
        delay_s = first
        while not self._stopping.is_set():
            try:
                self._serve()
                delay_s = first
            except BrokerLost as error:
                if self._is_consuming:
                    delay_s = first
                self._on_lost(error, delay_s)
            except Exception:
                logger.exception("consumer failed")
                self._on_lost(None, delay_s)
            self._stopping.wait(delay_s)
            delay_s = min(delay_s * 2, longest)

    def _serve(self) -> None:
        """Consume until the connection is lost or we are stopped."""
        connection = AmqpConnection(
            self._parameters, self._on_delivery, wake_fd=self._commands.wake_fd
        )
        try:
            channel = self._calls.open(connection)
            self._wait_for_alarm(channel)
            # A function is found by its call queue, so the async queue has to be there before.
            self._open_async(channel)
            if not self._is_draining:  # who stops leaves no queue without a consumer behind
                self._calls.consume()
            self._is_consuming, self._refused = True, None
            logger.info(
                "consuming",
                extra={"queue": self._calls.queue_name, "broker": self._refusals.address},
            )
            self._announcer.open(connection)
            while not self._stopping.is_set():
                self._step(channel)
            self._finish(connection)
        finally:
            connection.shut_down()

    def _step(self, channel: ReplyChannel) -> None:
        """Wait for messages and commands, handle them, and set the prefetch counts.

        If only calls come, nothing else has changed: the rest is looked at now and then.
        """
        connection, commands = channel.connection, self._commands
        # The end may have been heard of while something else was waited for.
        limit_s = 0.0
        if not self._has_news(channel):
            self._due = self._due or time.monotonic() + self._poll_limit_s()
            due = self._loan.wait(connection.stream, channel.channel.channel_number, self._due)
            limit_s = max(0.0, self._due - time.monotonic()) if due is None else 0.0
            self._due = due or self._due
        if not connection.poll(limit_s) and not self._has_news(channel):
            now = time.monotonic()
            self._due = min(self._due, now + HAND_BACK_AFTER_S)
            if now < self._due:
                return
        commands.is_woken = False
        self._due = 0.0
        if channel.lost_by is not None:
            raise channel.lost_by
        if self._is_blocked(connection):
            return
        self._probe(channel)
        commands.run(connection)
        if self._has_alarm_news(connection):
            return
        channel.send_late()
        self._announcer.announce_if_due()
        if self._slots.is_over:
            self._hand_back(HAND_BACK_AFTER_S)
        if not self.asynchronous.is_open and time.monotonic() >= self._async_due:
            self._open_async(channel)
        self._calls.set_prefetch()
        if self.asynchronous.is_open:
            self.asynchronous.set_prefetch(is_draining=self._is_draining)
        if self._is_draining and not self._drained.is_set():
            self._end_drain()

    def _has_news(self, channel: ReplyChannel) -> bool:
        return (
            self._commands.is_woken
            or channel.lost_by is not None
            or channel.connection.blocked_reason != self._alarm.reason
        )

    def _on_delivery(self, delivery: Delivery) -> None:
        if delivery.channel == self._async_channel:
            self.asynchronous.on_delivery(delivery)
            self._due = 0.0
        else:
            self._calls.on_delivery(delivery)

    def _poll_limit_s(self) -> float:
        if self._alarm.reason is not None or self._calls.holds_calls:
            return ALARM_POLL_S
        limit_s = min(
            *(PROBE_S, self._slots.poll_limit_s),
            *(self._calls.poll_limit_s, self.asynchronous.poll_limit_s),
            self._announcer.poll_limit_s,
        )
        if self.asynchronous.is_open:
            return limit_s
        return min(limit_s, max(0.0, self._async_due - time.monotonic()))

    def _open_async(self, channel: ReplyChannel) -> None:
        """Consume asynchronous invocations too, if their queues can be declared.

        Where most nodes of a cluster are down, a quorum queue is there and does not answer.
        """
        try:
            self._async_channel = self.asynchronous.open(channel)
            self._commands.is_woken = True  # so that they are asked for
        except BrokerLost as error:
            if not channel.connection.is_open:
                raise
            self._async_due = time.monotonic() + ASYNC_RETRY_S
            logger.error(
                "no asynchronous invocations are taken or accepted; trying again",
                extra={**self._refusals.explain(error), "delay_s": ASYNC_RETRY_S},
            )

    # --- an alarm

    def _wait_for_alarm(self, channel: ReplyChannel) -> None:
        """Find out whether RabbitMQ takes messages, and wait until it does."""
        connection = channel.connection
        connection.check_publishing(channel.channel)
        while self._alarm.follow(connection.blocked_reason) and not self._stopping.is_set():
            connection.poll(ALARM_POLL_S)

    def _has_alarm_news(self, connection: AmqpConnection) -> bool:
        """Whether an alarm was heard of while something else was waited for."""
        return connection.blocked_reason != self._alarm.reason

    def _probe(self, channel: ReplyChannel) -> None:
        """Publish a message for no queue: RabbitMQ reports an alarm only to publishers."""
        if time.monotonic() >= self._probe_due:
            self._probe_due = time.monotonic() + PROBE_S
            channel.connection.probe(channel.channel)

    def _is_blocked(self, connection: AmqpConnection) -> bool:
        """Whether RabbitMQ has an alarm, and reads nothing; both consumers hear of it."""
        was_blocked = self._alarm.reason is not None
        if self._alarm.follow(connection.blocked_reason):
            self._calls.on_blocked()
            assert self._alarm.reason is not None
            self.asynchronous.on_blocked(self._alarm.reason, self._alarm.age_s)
            if self._is_draining:
                self._drained.set()
            return True
        if was_blocked:
            self.asynchronous.on_unblocked()
        self._calls.release()
        return False

    # --- the end

    def _end_drain(self) -> None:
        """Once nothing comes any more, hand back what has not started."""
        if self._calls.is_drained and self.asynchronous.is_drained:
            self._hand_back(0.0)
            logger.info("consuming no more", extra={"queue": self._calls.queue_name})
            self._drained.set()

    def _hand_back(self, waited_s: float) -> None:
        self._calls.hand_back(waited_s)
        self.asynchronous.hand_back(waited_s)

    def _finish(self, connection: AmqpConnection) -> None:
        """Send what is left to send, and hear that the broker has it."""
        deadline = time.monotonic() + CONFIRM_AT_STOP_S
        self._commands.run(connection)
        self._announcer.announce()
        while self.asynchronous.pending and time.monotonic() < deadline:
            connection.poll(_FINISH_POLL_S)
            self._commands.run(connection)

    def _on_lost(self, error: Exception | None, delay_s: float) -> None:
        self._is_consuming = False
        self._alarm.forget()
        if self._is_draining:
            self._drained.set()
        self._calls.lose()
        self.asynchronous.lose()
        self._refused = error.reply_text if isinstance(error, ClosedByBroker) else None
        if error is not None and not self._stopping.is_set():
            told = {
                "broker": self._refusals.address,
                **self._refusals.explain(error),
                "delay_s": delay_s,
            }
            if self._refused is None:
                logger.warning("broker not reached; trying again", extra=told)
            else:
                logger.error("RabbitMQ refuses what rapid wants; trying again", extra=told)


_FINISH_POLL_S: Final = 0.1
