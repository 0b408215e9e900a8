"""Consumes the calls of one function from RabbitMQ, and replies to their callers.

A reply and its acknowledgement leave in one write, from the thread of the runtime that answered.
"""

from __future__ import annotations

import logging
import time

from lambda_protocol.amqp_connection import AmqpConnection, Parameters
from lambda_protocol.amqp_frames import Delivery
from lambda_protocol.amqp_refusals import Refusals
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
from rapid.broker.alarm import Alarm
from rapid.broker.arrivals import Arrivals
from rapid.broker.commands import Commands
from rapid.broker.confirmer import Confirmer, Question
from rapid.broker.prefetch import QueueConsumer
from rapid.broker.reply_channel import ReplyChannel
from rapid.broker.slots import Slots
from rapid.broker.streams import StreamedReply, Streams
from rapid.call import Call
from rapid.scheduling.scheduler import Scheduler

logger = logging.getLogger(__name__)


class CallConsumer:
    """The consumer of calls. One thread, amqp-consumer, but for what says otherwise.

    The poller's thread takes messages while the socket is lent to it.
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        function: FunctionRef,
        version: str,
        scheduler: Scheduler,
        slots: Slots,
        alarm: Alarm,
        commands: Commands,
        refusals: Refusals,
        longest_s: float,
        queue: Queue,
        reruns_redelivered: bool,
        checks_payload: bool,
    ) -> None:
        """``longest_s`` is how long a call may take."""
        self.queue_name = function.queue_name
        self._parameters = parameters
        self._function = function
        self._scheduler = scheduler
        self._slots = slots
        self._alarm = alarm
        self._commands = commands
        self._refusals = refusals
        self._longest_s = longest_s
        self._version = version
        self._queue = queue
        self._reruns_redelivered = reruns_redelivered
        self._checks_payload = checks_payload
        self._arrivals = Arrivals()
        self._confirmer = Confirmer(parameters)
        self._channel: ReplyChannel | None = None
        self._streams: Streams | None = None  # of the same connection
        self._held: list[Delivery] = []  # during an alarm: no more than the prefetch allows
        self._is_draining = False

    # --- for the connection

    def open(self, connection: AmqpConnection) -> ReplyChannel:
        """Open the channel for calls and replies; raises one of ``BrokerLost``."""
        channel = connection.open_channel()
        consumer = QueueConsumer(connection, channel, self._queue, longest_s=self._longest_s)
        opened = ReplyChannel(
            self._parameters,
            connection,
            channel,
            consumer,
            self._commands.defer,
            self._refusals.explain,
        )
        channel.add_on_cancel_callback(lambda _frame: opened.lose("the queue was deleted"))
        channel.add_on_close_callback(lambda _channel, reason: opened.lose(reason))
        self._channel, self._streams = opened, Streams(opened, self._version)
        return opened

    def consume(self) -> None:
        """Declare the queue, and have calls come in; raises one of ``BrokerLost``."""
        channel = self._opened
        settings = "RAPID_AMQP_QUEUE_TYPE and RAPID_AMQP_QUEUE_EXPIRES"
        channel.declare(channel.channel, self._queue, settings=settings)
        self.set_prefetch()

    def set_prefetch(self) -> None:
        """Consume as many calls as the slots allow, and none in a drain.

        A queue that ends with its consumer keeps one.
        """
        prefetch = max(self._slots.call_prefetch(), int(self._queue.auto_delete))
        self._opened.consumer.set_prefetch(0 if self._is_draining else prefetch)

    def drain(self) -> None:
        """Take no more calls. Any thread."""
        self._is_draining = True

    @property
    def is_drained(self) -> bool:
        """Whether no call comes any more."""
        return self._opened.consumer.is_closed and not self._held

    @property
    def holds_calls(self) -> bool:
        """Whether calls wait for the end of an alarm."""
        return bool(self._held)

    @property
    def poll_limit_s(self) -> float:
        """How long what is under way may be left alone."""
        channel = self._opened
        return min(channel.consumer.poll_limit_s, channel.poll_limit_s)

    def on_delivery(self, delivery: Delivery) -> None:
        """Take a call, unless there is an alarm."""
        channel, streams = self._opened, self._streams
        assert streams is not None
        if delivery.channel == streams.number:
            streams.on_delivery(delivery)
            return
        channel.consumer.on_delivery(delivery)
        if channel.connection.blocked_reason is not None or self._alarm.holds_calls:
            self._held.append(delivery)
        else:
            self._take(channel, delivery)

    def on_blocked(self) -> None:
        """Hold back what has not started: it could not be answered.

        A call whose caller is answered 503 meanwhile must not start later. So no call starts
        during the alarm, and after it each caller is asked first.
        """
        self._held += [call.delivery for call in self._withdraw(self._opened)]

    def release(self) -> None:
        """Take the calls that were held back, once their callers can be asked."""
        if self._held and not self._alarm.holds_calls:
            held, self._held = self._held, []
            for delivery in held:
                self._take(self._opened, delivery, has_waited=True)  # a drain hands them back

    def hand_back(self, waited_s: float) -> None:
        """Publish what has waited unstarted for ``waited_s`` afresh.

        Else it would be taken for started.
        """
        channel = self._opened
        taken = self._withdraw(channel, waited_s)
        for call in taken:
            channel.hand_back(call.delivery, self.queue_name)
        if taken:
            self._slots.on_handed_back(asynchronous=False)

    def lose(self) -> None:
        """Forget a connection that is gone: the broker delivers again what was in hand."""
        channel, self._channel = self._channel, None
        streams, self._streams = self._streams, None
        if streams is not None:
            streams.lose()
        self._held.clear()
        if channel is not None:
            self._withdraw(channel)  # its replies have no channel any more

    def stop(self, limit_s: float) -> None:
        """Ask no caller any more. Any thread. Idempotent."""
        self._confirmer.stop(limit_s)

    # --- inside

    @property
    def _opened(self) -> ReplyChannel:
        assert self._channel is not None
        return self._channel

    def _withdraw(self, channel: ReplyChannel, waited_s: float = 0.0) -> list[_AmqpCall]:
        """Take the unstarted calls of ``channel`` from the scheduler."""
        oldest = time.monotonic() - waited_s
        taken = self._scheduler.withdraw(
            lambda call: (
                isinstance(call, _AmqpCall)
                and call.reply_channel is channel
                and call.received_at <= oldest
            )
        )
        self._slots.on_done(len(taken))
        return [call for call in taken if isinstance(call, _AmqpCall)]

    def _take(self, channel: ReplyChannel, delivery: Delivery, *, has_waited: bool = False) -> None:
        """Have a call run, or refuse it; ``has_waited`` asks its caller first."""
        try:
            incoming = decode_call(delivery, self._function, check_payload=self._checks_payload)
            if delivery.redelivered and not self._reruns_redelivered:
                raise ServiceException("The instance that ran this invocation was lost.")
            call = _AmqpCall(self, channel, delivery, incoming)
            if incoming.credit_bytes is not None:
                self._prepare_stream(call)
            sent_at = self._arrivals.sent_at(incoming, channel.consumer.quiet_s)
            call.wanted_at = float("-inf") if has_waited else sent_at
            self._slots.on_taken()
            try:
                self._scheduler.submit(call)
            except Exception:
                self._slots.on_done()
                raise
        except LambdaApiError as error:
            self._refuse(channel, delivery, error)
        except Exception:  # a fault of ours costs this call, and no other
            correlation_id = delivery.properties.correlation_id
            logger.exception("call failed", extra={"correlation_id": correlation_id})
            self._refuse(channel, delivery, ServiceException("An internal error occurred."))

    def _prepare_stream(self, call: _AmqpCall) -> None:
        """Have a call's response sent while it is written, if its caller has an address."""
        address, streams = parse_reply_to(call.incoming.reply_to), self._streams
        if address is None or streams is None:
            return
        call.sink = stream = StreamedReply(
            streams,
            call,
            call.delivery,
            call.incoming,
            address,
            ask_caller=lambda: self._ask_reader(call, stream, address),
        )

        def open_channel() -> None:
            streams.open(call.reply_channel.connection)
            call.reply_channel.reach(address, stream.on_reached)

        if streams.number:
            call.reply_channel.reach(address, stream.on_reached)
        else:
            self._commands.defer(open_channel)

    def _ask_reader(self, call: _AmqpCall, stream: StreamedReply, address: ReplyAddress) -> None:
        """Ask whether the caller of a stream that gives no credit still waits."""

        def on_answer(answer: Wanted | bool | None) -> None:
            if answer is False or (isinstance(answer, Wanted) and not answer.is_wanted):
                stream.cancel()

        self._confirmer.ask(Question(call.incoming, address, on_answer))

    @staticmethod
    def _refuse(channel: ReplyChannel, delivery: Delivery, error: LambdaApiError) -> None:
        properties = delivery.properties
        reply = encode_error(properties.correlation_id, error)
        channel.reply(delivery, properties.reply_to, reply, error.body())

    def _probe(self) -> None:
        if self._channel is not None:
            self._channel.connection.probe(self._channel.channel)

    # --- any thread

    def on_answered(self, call: _AmqpCall, outcome: Outcome | LambdaApiError) -> None:
        """Reply to a call's caller and acknowledge it."""
        correlation_id = call.incoming.correlation_id
        if isinstance(call.sink, StreamedReply):
            call.sink.end(outcome)
        else:
            if isinstance(outcome, LambdaApiError):
                properties, body = encode_error(correlation_id, outcome), outcome.body()
            else:
                properties, body = encode_outcome(correlation_id, outcome), outcome.payload
            call.reply_channel.reply(call.delivery, call.incoming.reply_to, properties, body)
        duration_s = time.monotonic() - call.started_at if call.started_at else None
        is_changed = self._slots.on_done(1, duration_s)
        if is_changed or self._slots.is_closed_to_asynchronous or self._is_draining:
            self._commands.wake()

    def ask_caller(self, call: _AmqpCall, address: ReplyAddress) -> None:
        """Ask whether a call's caller still waits for it."""
        # In an alarm that was not heard of yet nobody could answer: it is to be heard of before the
        # call is taken for a wanted one.
        self._commands.defer(self._probe)
        self._confirmer.ask(
            Question(call.incoming, address, lambda answer: self._on_caller_asked(call, answer))
        )

    def _on_caller_asked(self, call: _AmqpCall, answer: Wanted | bool | None) -> None:
        is_wanted = answer.is_wanted if isinstance(answer, Wanted) else answer
        if is_wanted is False:
            if self._scheduler.abandon(call):
                call.reply_channel.drop(call.delivery)
                self._slots.on_done()
                self._commands.wake()
            return
        sent_s = answer.sent_s if isinstance(answer, Wanted) else None
        self._arrivals.learn(call.incoming, sent_s)
        self._scheduler.confirm(call)


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
