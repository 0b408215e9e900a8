"""A way to the broker: the connection of one thread, or one that a process's threads share."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from lambda_protocol.amqp_connection import (
    AmqpConnection,
    BrokerLost,
    Channel,
    Parameters,
    StreamLost,
)
from lambda_protocol.amqp_frames import Delivery, Piece
from lambda_protocol.amqp_stream import NotSentError
from lambda_server.reply_channel import ReplyChannel, Waiter, WaitingCall

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")
OnAlarm = Callable[[str | None], None]
Frames = bytes | Sequence[Piece]

#: How long the reader waits at a time, seconds; heartbeats are timers, and end the wait.
_POLL_S: Final = 60.0
#: Of so many channels that take no calls any more some may have calls that wait; beyond it the
#: oldest is closed.
_RETIRED: Final = 8


class Link(ABC):
    """One connection to the broker. Raises one of ``BrokerLost`` when it breaks.

    After that it is of no further use.
    """

    def __init__(self, parameters: Parameters, *, wake_fd: int | None, on_alarm: OnAlarm) -> None:
        """Connect and be ready for replies."""
        self._replies: ReplyChannel | None = None
        self._by_number: dict[int, ReplyChannel] = {}
        self._asking: Channel | None = None
        self._lost: list[Callable[[], None]] = []
        self._connection = AmqpConnection(
            parameters, self._on_delivery, wake_fd=wake_fd, on_alarm=on_alarm
        )
        self.frame_max = self._connection.frame_max  #: the largest frame, bytes
        try:
            self._open_replies()
            self._check_publishing(self._connection)
        except BaseException:
            self._connection.abort()
            raise

    # --- any thread that uses the link

    @property
    def blocked_reason(self) -> str | None:
        """Why RabbitMQ reads nothing from this connection, as far as was heard; None: it reads."""
        return self._connection.blocked_reason

    @abstractmethod
    def run(self, work: Callable[[AmqpConnection], _Result]) -> _Result:
        """Return the result of ``work`` in the thread that owns the connection."""

    @abstractmethod
    def send(self, frames: Frames, waiter: Waiter | None = None) -> None:
        """Write whole frames; raises ``OSError``, a ``NotSentError`` if none can have arrived."""

    @abstractmethod
    def wait(self, waiter: Waiter, limit_s: float) -> None:
        """Wait for news of ``waiter``, for ``limit_s`` at most; may end early."""

    @abstractmethod
    def discard(self, replies: ReplyChannel) -> None:
        """Use another channel from now on: a call that was sent by this one has vanished.

        RabbitMQ 3.10 binds a channel to the leader of a quorum queue. If that one's node was just
        dying, the channel looks for no other leader, and all that is published there is lost.
        """

    @abstractmethod
    def leave(self, replies: ReplyChannel, call: WaitingCall) -> None:
        """Forget a call that waits no longer."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection. Idempotent."""

    def replies(self) -> ReplyChannel:
        """Return the channel for calls, and open one if there is none."""
        replies = self._replies
        if replies is not None and replies.is_open:
            return replies
        return self.run(lambda _connection: self._open_replies())

    def check_publishing(self) -> None:
        """Return when RabbitMQ has taken a message for no queue, or has an alarm."""
        self.run(self._check_publishing)

    def probe(self) -> None:
        """Have RabbitMQ say soon whether it has an alarm, for ``blocked_reason``."""
        self._connection.probe(self.replies().channel)

    def declare_passive(self, queue: str) -> Any:
        """Return what RabbitMQ answers to a passive declaration; raises what it refuses it with."""
        return self.run(lambda connection: self._declare_passive(connection, queue))

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the connection is lost, in its owner's thread."""
        self._lost.append(callback)

    # --- the connection's owner

    def _open_replies(self) -> ReplyChannel:
        if self._replies is None or not self._replies.is_open:
            self._replies = replies = ReplyChannel(self._connection, self.send)
            self._by_number[replies.number] = replies
        return self._replies

    def _check_publishing(self, connection: AmqpConnection) -> None:
        connection.check_publishing(self._open_replies().channel)

    def _declare_passive(self, connection: AmqpConnection, queue: str) -> Any:
        if self._asking is None or not self._asking.is_open:
            self._asking = connection.open_channel()
        return connection.call(self._asking, "queue_declare", queue=queue, passive=True)

    def _on_delivery(self, delivery: Delivery) -> None:
        replies = self._by_number.get(delivery.channel)
        if replies is not None:
            replies.take(delivery)

    def _lose(self, error: Exception) -> None:
        for replies in list(self._by_number.values()):
            replies.lose(error)
        for callback in self._lost:
            callback()


class OwnLink(Link):
    """The connection of one thread, which reads while it waits."""

    def __init__(self, parameters: Parameters, *, on_alarm: OnAlarm = lambda _reason: None) -> None:
        """Connect and be ready for replies."""
        super().__init__(parameters, wake_fd=None, on_alarm=on_alarm)

    def run(self, work: Callable[[AmqpConnection], _Result]) -> _Result:
        """Return the result of ``work``."""
        return work(self._connection)

    def send(self, frames: Frames, waiter: Waiter | None = None) -> None:
        """Write whole frames."""
        del waiter
        self._connection.send(frames)

    def wait(self, waiter: Waiter, limit_s: float) -> None:
        """Read what comes."""
        del waiter
        self._connection.poll(limit_s)

    def discard(self, replies: ReplyChannel) -> None:
        """Close the channel: the reply address exists no more, by which a rapid knows."""
        replies.channel.close()

    def leave(self, replies: ReplyChannel, call: WaitingCall) -> None:
        """Forget a call that waits no longer."""
        replies.remove(call)

    def keep_alive(self) -> None:
        """Read what has come and send the heartbeats that are due, without waiting.

        RabbitMQ may have closed the channel for replies after the last call had its answer.
        """
        if self._connection.has_news():
            self._connection.poll(0)
        replies = self._replies
        if replies is not None and replies.channel.is_closed:
            raise replies.closed_by or StreamLost("the reply channel was closed")

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._connection.shut_down()


class SharedLink(Link):
    """The connection of all threads of a process. Thread-safe.

    The thread ``broker-reader`` owns it. If no thread is writing, a thread writes what waits of
    all.
    """

    def __init__(self, parameters: Parameters, *, on_alarm: OnAlarm = lambda _reason: None) -> None:
        """Connect, be ready for replies, and start the reader."""
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        # guarded by _lock:
        self._tasks: deque[tuple[Callable[[AmqpConnection], Any], Future[Any]]] = deque()
        self._lost_by: Exception | None = None
        self._outbox: deque[tuple[Frames, Waiter | None]] = deque()
        self._writing = threading.Lock()
        self._retired: deque[ReplyChannel] = deque()  # the owner's
        self._tell_alarm = on_alarm
        try:
            super().__init__(parameters, wake_fd=self._wake, on_alarm=self._on_alarm)
            self._thread = threading.Thread(target=self._read, name="broker-reader", daemon=True)
            self._thread.start()
        except BaseException:
            os.close(self._wake)
            raise

    @property
    def is_lost(self) -> bool:
        """Whether the connection is of no further use; the reader may not have seen it yet."""
        if self._lost_by is not None:
            return True
        replies = self._replies
        is_idle = replies is None or not replies.is_in_use
        return is_idle and self._connection.has_ended()  # calls that wait are told by the reader

    def run(self, work: Callable[[AmqpConnection], _Result]) -> _Result:
        """Return the result of ``work`` in the reader."""
        if threading.current_thread() is self._thread:
            return work(self._connection)
        future: Future[_Result] = Future()
        with self._lock:
            if self._lost_by is not None:
                raise self._lost_by
            self._tasks.append((work, future))
            os.eventfd_write(self._wake, 1)
        return future.result()

    def send(self, frames: Frames, waiter: Waiter | None = None) -> None:
        """Write whole frames, or leave them to the thread that is writing.

        ``waiter`` then hears why they were not written.
        """
        self._outbox.append((frames, waiter))
        while self._outbox and self._writing.acquire(blocking=False):
            try:
                self._write_outbox()
            finally:
                self._writing.release()
        if waiter is not None and waiter.lost_by is not None:
            raise waiter.lost_by

    def wait(self, waiter: Waiter, limit_s: float) -> None:
        """Sleep until the reader has news."""
        waiter.sleep(limit_s)

    def discard(self, replies: ReplyChannel) -> None:
        """Send no further call by the channel. When its last call ends, the channel is closed."""
        if replies.retire():
            self.run(lambda _connection: self._close_retired(replies))
        else:
            self.run(lambda _connection: self._keep_retired(replies))

    def leave(self, replies: ReplyChannel, call: WaitingCall) -> None:
        """Forget a call that waits no longer."""
        if replies.remove(call):
            with contextlib.suppress(*BrokerLost):
                self.run(lambda _connection: self._close_retired(replies))

    def close(self) -> None:
        """Close the connection, and end the reader. Idempotent."""
        with contextlib.suppress(*BrokerLost):
            self.run(lambda connection: connection.shut_down())
        self._thread.join(1.0)

    # --- the reader

    def _read(self) -> None:
        error: Exception = ConnectionError("the broker connection was closed")
        try:
            while True:
                self._connection.poll(_POLL_S)
                self._run_tasks()
        except BrokerLost as reason:
            error = reason
        except Exception as reason:
            logger.exception("the broker connection failed")
            error = reason
        self._connection.abort()
        with self._lock:
            self._lost_by = error
            tasks = list(self._tasks)
            self._tasks.clear()
            os.close(self._wake)
        for _, future in tasks:
            future.set_exception(error)
        self._lose(error)

    def _run_tasks(self) -> None:
        while self._tasks:
            with self._lock:
                work, future = self._tasks.popleft()
            try:
                future.set_result(work(self._connection))
            except Exception as error:
                future.set_exception(error)

    def _keep_retired(self, replies: ReplyChannel) -> None:
        if replies not in self._retired:
            self._retired.append(replies)
        if len(self._retired) > _RETIRED:
            self._close_retired(self._retired[0])

    def _close_retired(self, replies: ReplyChannel) -> None:
        with contextlib.suppress(ValueError):
            self._retired.remove(replies)
        self._by_number.pop(replies.number, None)
        if replies.channel.is_open:
            replies.channel.close()

    def _on_alarm(self, reason: str | None) -> None:
        self._tell_alarm(reason)
        for replies in list(self._by_number.values()):
            replies.wake()

    # --- the thread that writes

    def _write_outbox(self) -> None:
        some = [self._outbox.popleft() for _ in range(len(self._outbox))]
        pieces: list[Piece] = []
        for frames, _ in some:
            if isinstance(frames, bytes):
                pieces.append(frames)
            else:
                pieces += frames
        try:
            self._connection.send(pieces)
        except OSError as error:
            is_sent = not isinstance(error, NotSentError)
            lost = ConnectionError("the broker connection was lost") if is_sent else error
            for _, waiter in some:
                if waiter is not None:
                    waiter.lost_by = lost
                    waiter.wake()
