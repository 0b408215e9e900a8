"""Asks callers whether they still wait for calls that have waited long and are about to start.

A caller that answers the frame ``wanted`` is sent one, and answers by direct reply-to. If it says
nothing for 10 ms, RabbitMQ is asked whether the call's reply address exists, by a passive
declaration on a channel of its own. Any other caller is asked for in this way alone.

The questions have a connection and a thread of their own, for two reasons. They delay nothing that
comes by the consumer's connection. And RabbitMQ 3.10 closes a connection that asks for a direct
reply-to address whose node is gone, so no call in hand may depend on it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from lambda_protocol.amqp_connection import (
    AmqpConnection,
    BrokerLost,
    Channel,
    ChannelClosedByBroker,
    Parameters,
    is_missing,
)
from lambda_protocol.amqp_frames import Delivery, publish_pieces
from lambda_protocol.invoke_amqp import (
    DIRECT_REPLY_TO,
    IncomingCall,
    ReplyAddress,
    Wanted,
    decode_wanted,
    encode_question,
)
from rapid.call import CONFIRM_LIMIT_S

logger = logging.getLogger(__name__)

#: How long a caller may take to answer before RabbitMQ is asked for its address, seconds.
_ADDRESS_AFTER_S: Final = 0.01
#: The connection is closed when nothing was asked for so long, seconds.
_IDLE_S: Final = 60.0
#: RabbitMQ's reply code for an address whose node is gone.
_INTERNAL_ERROR: Final = 541


class Question(NamedTuple):
    """Whether a call is still waited for."""

    call: IncomingCall
    address: ReplyAddress
    #: Gets the answer once, in the confirmer's thread; None when there is none.
    on_answer: Callable[[Wanted | bool | None], None]

    @property
    def is_for_caller(self) -> bool:
        """Whether the caller itself can answer; only RabbitMQ can for any other."""
        return self.call.sent_s is not None and self.address.node is not None


@dataclass(slots=True, eq=False)
class _Pending:
    """A question that is not answered yet."""

    question: Question
    asked_at: float
    is_address_asked: bool = False


class Confirmer:
    """Asks, by a connection that is opened on use. Thread-safe: :meth:`ask` and :meth:`stop`.

    All else is for its thread, ``call-confirmer``.
    """

    def __init__(self, parameters: Parameters) -> None:
        """Connect nowhere yet."""
        self._parameters = parameters
        self._inbox: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None  # guarded by _lock
        self._is_stopped = False
        self._pending: list[_Pending] = []
        self._connection: AmqpConnection | None = None

    def ask(self, question: Question) -> None:
        """Ask soon; does not block.

        If a function has used up the process limit, there is no thread to ask. Then there is no
        answer, as there is none from a broker that cannot be reached.
        """
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="call-confirmer", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    logger.warning("callers could not be asked", extra={"error": repr(error)})
                    return
                self._thread = thread
        self._put(question)

    def stop(self, limit_s: float) -> None:
        """Ask no more, and close the connection. Idempotent."""
        with self._lock:
            thread = self._thread
        self._is_stopped = True
        self._put(None)
        if thread is not None:
            thread.join(limit_s)

    def _put(self, question: Question | None) -> None:
        self._inbox.put(question)
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_writer, b"\0")

    # --- the confirmer's thread

    def _run(self) -> None:
        while (question := self._inbox.get()) is not None and not self._is_stopped:
            self._pending = [_Pending(question, time.monotonic())]
            try:
                self._serve()
            except BrokerLost as error:
                self._on_lost(error)
            except Exception as error:
                logger.exception("confirmer failed")
                self._on_lost(error)

    def _serve(self) -> None:
        """Ask until nothing was asked for a while."""
        connection = self._connection = AmqpConnection(
            self._parameters, self._on_delivery, wake_fd=self._wake_reader
        )
        try:
            channel = connection.open_channel()
            connection.consume(channel, DIRECT_REPLY_TO, auto_ack=True)
            for pending in self._pending:
                self._send(channel, pending)
            used_at = time.monotonic()
            while not self._is_stopped and time.monotonic() - used_at < _IDLE_S:
                while not self._inbox.empty() and (question := self._inbox.get()) is not None:
                    pending = _Pending(question, time.monotonic())
                    self._pending.append(pending)
                    self._send(channel, pending)
                self._look_after_pending()
                if self._pending:
                    used_at = time.monotonic()
                connection.poll(_ADDRESS_AFTER_S if self._pending else _IDLE_S)
        finally:
            connection.shut_down()

    def _send(self, channel: Channel, pending: _Pending) -> None:
        call, address, _ = pending.question
        if not pending.question.is_for_caller:
            self._ask_address(pending)
            return
        assert self._connection is not None
        frames = publish_pieces(
            channel.channel_number,
            address.queue,
            encode_question(call.correlation_id),
            b"",
            frame_max=self._connection.frame_max,
        )
        self._connection.send(frames)

    def _look_after_pending(self) -> None:
        """Do what is due for questions that are not answered."""
        now = time.monotonic()
        for pending in self._pending.copy():
            if now - pending.asked_at >= CONFIRM_LIMIT_S:
                self._settle(pending, None)
            elif now - pending.asked_at >= _ADDRESS_AFTER_S and not pending.is_address_asked:
                self._ask_address(pending)

    def _ask_address(self, pending: _Pending) -> None:
        """Declare the reply address passively, on a channel of its own: a no closes that."""
        pending.is_address_asked = True
        address = pending.question.address.queue
        if not _is_text(address):
            self._settle(pending, None)
            return
        is_for_caller = pending.question.is_for_caller
        assert self._connection is not None

        def on_exists(_answer: Any) -> None:
            channel.close()
            if not is_for_caller:  # else it may still answer itself
                self._settle(pending, True)

        def on_closed(_channel: Channel, reason: Exception) -> None:
            if is_missing(reason):
                self._settle(pending, False)
            elif isinstance(reason, ChannelClosedByBroker) and not is_for_caller:
                self._settle(pending, None)  # another connection's own, or unreachable

        channel = self._connection.channel(
            on_open_callback=lambda opened: opened.queue_declare(
                address, passive=True, callback=on_exists
            )
        )
        channel.add_on_close_callback(on_closed)

    def _on_delivery(self, delivery: Delivery) -> None:
        answer = decode_wanted(delivery)
        if answer is None:
            return
        correlation_id = delivery.properties.correlation_id
        for pending in self._pending.copy():
            if pending.question.call.correlation_id == correlation_id:
                self._settle(pending, answer)

    def _settle(self, pending: _Pending, answer: Wanted | bool | None) -> None:
        if pending in self._pending:
            self._pending.remove(pending)
            pending.question.on_answer(answer)

    def _on_lost(self, error: Exception) -> None:
        """Answer what was asked: the one node that was asked for is gone, or nothing is known."""
        nodes = {pending.question.address.node for pending in self._pending}
        is_node_gone = (
            getattr(error, "reply_code", None) == _INTERNAL_ERROR
            and len(nodes) == 1
            and None not in nodes
        )
        if not is_node_gone:
            logger.warning("callers could not be asked", extra={"error": repr(error)})
            while not self._inbox.empty() and (question := self._inbox.get()) is not None:
                question.on_answer(None)
        for pending in self._pending.copy():
            self._settle(pending, False if is_node_gone else None)


def _is_text(address: str) -> bool:
    """Whether an address can be declared: it holds the caller's bytes, whatever they are."""
    try:
        address.encode()
    except UnicodeEncodeError:
        return False
    return True
