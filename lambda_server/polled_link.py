"""A connection to the broker that the poller serves, and the calls that no thread waits for.

The poller's thread owns both, and never waits for RabbitMQ. What RabbitMQ has to be asked about a
call, why it was returned say, a thread asks by the connection of all threads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Protocol

from lambda_protocol.amqp_connection import (
    AmqpConnection,
    BrokerLost,
    Parameters,
    broker_blocked,
)
from lambda_protocol.amqp_frames import Delivery, publish_pieces
from lambda_protocol.amqp_stream import SEND_TIMEOUT_S, AmqpStream, NotSentError
from lambda_protocol.errors import LambdaApiError, ServiceException
from lambda_protocol.invocation import Invocation, Outcome
from lambda_protocol.invoke_amqp import decode_reply, encode_call
from lambda_protocol.limits import REPLY_GRACE_S
from lambda_protocol.poller import Poller
from lambda_server.caller import CallerGoneError
from lambda_server.link import OnAlarm
from lambda_server.polled_stream import PolledStream
from lambda_server.queue_state import LOOK_AROUND_S, unreachable
from lambda_server.reply_channel import ReplyChannel, WaitingCall
from lambda_server.rpc_client import RpcClient, answer_held_back

logger = logging.getLogger(__name__)

#: While so many bytes wait for RabbitMQ to read, calls are left to threads, which wait.
_FULL_BYTES: Final = 4 * 1_048_576

#: What has to be asked about a call that was not answered; returns the error it ends with.
Question = Callable[[RpcClient], LambdaApiError]


class Listener(Protocol):
    """Hears once what becomes of a call, in the poller's thread. Its methods never block."""

    def on_outcome(self, outcome: Outcome) -> None:
        """The function has answered."""

    def on_error(self, error: Exception) -> None:
        """There will be no answer; mostly a ``LambdaApiError`` or a ``CallerGoneError``."""

    def on_question(self, question: Question) -> None:
        """There will be no answer, and a thread has to ask why."""

    def on_not_sent(self) -> None:
        """The call has not reached RabbitMQ, and can be made again."""

    def has_left(self) -> bool:
        """Whether the caller is gone."""

    def close(self) -> None:
        """Something unexpected went wrong: there is no answer."""


class PolledCall(WaitingCall):
    """A call whose news go to its listener, at once."""

    __slots__ = ("_link", "is_over", "listener")

    def __init__(
        self, link: PolledLink, invocation: Invocation, listener: Listener, limit_s: float
    ) -> None:
        """Wait for ``limit_s`` at first."""
        now = time.monotonic()
        super().__init__(invocation, None, sent_at=now, deadline=now + limit_s)
        self._link = link
        self.listener = listener
        self.is_over = False  #: the listener has been told

    def has_caller_left(self) -> bool:
        """Whether the caller is known to have gone."""
        return self.listener.has_left()

    def wake(self) -> None:
        """Act upon the news."""
        self._link.on_news(self)


class PolledLink:
    """One connection to the broker. It is made by any thread, then the poller's.

    When it :attr:`is_over` it takes no calls; those that wait may still be answered.
    """

    def __init__(
        self,
        parameters: Parameters,
        poller: Poller,
        *,
        on_alarm: OnAlarm,
        on_lost: Callable[[Exception], None],
        unreachable_of: Callable[[Sequence[str]], Collection[str]],
    ) -> None:
        """Connect and be ready for replies; raises ``BrokerLost``, ``ServiceUnavailable``.

        ``on_lost`` hears why calls have lost their replies. ``unreachable_of`` returns those of
        some queues that cannot be reached; a thread calls it.
        """
        self._poller = poller
        self._tell_alarm = on_alarm
        self._tell_lost = on_lost
        self._unreachable_of = unreachable_of
        self._is_retired = False
        self._has_waited_for_room = False
        self._unsent: list[PolledCall] = []  # of this round
        self._asker: threading.Thread | None = None  # looks after queues
        self._replies: ReplyChannel | None = None
        self._connection = AmqpConnection(
            parameters, self._on_delivery, on_alarm=self._on_alarm, make_stream=self._make_stream
        )
        self._descriptor = -1
        try:
            self._replies = ReplyChannel(self._connection, self._connection.send)
            self._connection.check_publishing(self._replies.channel)
            if self._connection.blocked_reason is not None:
                raise broker_blocked(self._connection.blocked_reason)
        except BaseException:
            self._connection.abort()
            raise

    def _make_stream(self, **options: Any) -> AmqpStream:
        self._stream = PolledStream(**options)
        return self._stream

    # --- the poller's thread

    def begin(self) -> None:
        """Belong to the poller from now on."""
        self._descriptor = self._stream.begin_polling(lambda: self._poller.at_end(self._flush))
        if self._poller.watch(self._descriptor, self):
            self._poller.expect(self, LOOK_AROUND_S)
        else:
            self.close()

    @property
    def is_over(self) -> bool:
        """Whether further calls need another link."""
        replies = self._replies
        if self._is_retired or replies is None or not replies.is_open:
            return True
        return not replies.is_in_use and self._connection.has_ended()  # as this round will tell

    @property
    def is_full(self) -> bool:
        """Whether RabbitMQ has to read first what waits for it."""
        return self._stream.waiting_bytes >= _FULL_BYTES

    def call(self, invocation: Invocation, listener: Listener, *, queue_timeout_s: float) -> None:
        """Run ``invocation``. ``listener`` hears once what becomes of it."""
        replies = self._replies
        assert replies is not None
        frames = publish_pieces(
            replies.number,
            invocation.function.queue_name,
            encode_call(invocation, queue_timeout_s=queue_timeout_s),
            invocation.payload,
            frame_max=self._connection.frame_max,
            mandatory=True,
        )
        call = PolledCall(self, invocation, listener, queue_timeout_s + REPLY_GRACE_S)
        self._connection.send(frames)
        replies.add(call)
        self._unsent.append(call)

    def on_ready(self) -> None:
        """Take what RabbitMQ has sent."""
        try:
            if self._stream.waiting_bytes:
                self._flush()
            self._stream.take()
        except BrokerLost as error:
            self._lose(error)

    def on_slow(self) -> None:
        """Look around, as each second."""
        try:
            self._stream.take()  # its timers: heartbeats
            self._look_around()
        except BrokerLost as error:
            self._lose(error)
        if not self.is_closed:
            self._poller.expect(self, LOOK_AROUND_S)

    @property
    def is_closed(self) -> bool:
        """Whether nothing will come any more."""
        return self._descriptor < 0

    def close(self) -> None:
        """End it at once: no call is answered any more. Idempotent."""
        self._lose(ConnectionError("the broker connection was closed"))

    def on_news(self, call: PolledCall) -> None:
        """Act upon a reply, a return, an alarm or a loss; see :class:`RpcClient`."""
        while call.replies:
            try:
                answer = decode_reply(call.replies.popleft())
            except Exception as error:
                self._end(call, call.listener.on_error, error)
                return
            if isinstance(answer, Outcome):
                self._end(call, call.listener.on_outcome, answer)
                return
            call.is_started, call.is_running = True, answer.is_running
            call.deadline = time.monotonic() + answer.within_s + REPLY_GRACE_S
        reason = self._connection.blocked_reason
        if call.is_returned:
            self._end(
                call, call.listener.on_question, lambda client: client.why_returned(call.invocation)
            )
        elif reason is not None and (not call.is_running or call.lost_by is not None):
            self._end(call, call.listener.on_error, broker_blocked(reason))
        elif call.lost_by is not None:
            self._end(
                call,
                call.listener.on_error,
                ServiceException("The connection to the broker was lost."),
            )

    # --- inside

    def _waiting(self) -> list[PolledCall]:
        calls = [] if self._replies is None else self._replies.waiting()
        return [call for call in calls if isinstance(call, PolledCall)]

    def _end(self, call: PolledCall, tell: Callable[..., None], *news: object) -> None:
        """Wait no longer for a call, if it waits; what goes wrong then concerns no other."""
        assert self._replies is not None
        if call.is_over:
            return
        call.is_over = True
        self._replies.remove(call)
        try:
            tell(*news)
        except Exception:
            logger.exception("call failed", extra={"request_id": call.invocation.request_id})
            call.listener.close()

    def _flush(self) -> None:
        if self.is_closed:
            return
        try:
            self._stream.flush()
        except OSError as error:
            if not isinstance(error, NotSentError):
                self._unsent.clear()
            self._lose(error)
            return
        self._unsent.clear()
        if self._stream.waiting_bytes:
            self._poller.wait_for_room(self._descriptor)
            self._has_waited_for_room = True
        elif self._has_waited_for_room:
            self._poller.resume(self._descriptor)
            self._has_waited_for_room = False

    def _look_around(self) -> None:
        now = time.monotonic()
        if self._stream.waiting_bytes and now - self._stream.waiting_since > SEND_TIMEOUT_S:
            raise TimeoutError("RabbitMQ reads nothing")
        is_quiet = True
        queues: set[str] = set()
        calls = self._waiting()
        for call in calls:
            is_young = now - call.sent_at < LOOK_AROUND_S
            if not is_young and call.listener.has_left():
                self._end(call, call.listener.on_error, CallerGoneError())
            elif call.deadline <= now:
                self._give_up(call)
            elif not call.is_running and not is_young:
                is_quiet = False
                if not call.is_started:
                    queues.add(call.invocation.function.queue_name)
        if not is_quiet:
            assert self._replies is not None
            self._connection.probe(self._replies.channel)
        if queues and (self._asker is None or not self._asker.is_alive()):
            self._asker = _start(lambda: self._ask(sorted(queues)))
        if self.is_over and not calls:
            self._close_politely()

    def _give_up(self, call: PolledCall) -> None:
        reason = self._connection.blocked_reason
        if reason is not None:
            self._end(call, call.listener.on_error, answer_held_back(reason))
            return
        self._is_retired = True  # see Link.discard
        question: Question = lambda client: client.why_unanswered(call.invocation)  # noqa: E731
        self._end(call, call.listener.on_question, question)

    def _fail(self, queues: Collection[str]) -> None:
        """End calls that wait for an instance at queues that cannot be reached."""
        for call in self._waiting():
            function = call.invocation.function
            if not call.is_started and function.queue_name in queues:
                self._is_retired = True  # see Link.discard
                self._end(call, call.listener.on_error, unreachable(function))

    def _on_delivery(self, delivery: Delivery) -> None:
        if self._replies is not None:
            self._replies.take(delivery)

    def _on_alarm(self, reason: str | None) -> None:
        self._tell_alarm(reason)
        if reason is None or self._replies is None or self.is_closed:
            return
        self._return_unsent()
        self._replies.wake()
        # What was refused just now can only be kept from running by closing the connection.
        self._poller.at_end(self.close)

    def _lose(self, error: Exception) -> None:
        if self.is_closed:
            return
        self._leave()
        self._connection.abort()
        self._return_unsent()
        if self._replies is not None:
            if self._waiting():
                self._tell_lost(error)
            self._replies.lose(error)

    def _return_unsent(self) -> None:
        """Let the calls of this round be made again by threads: none of them has left."""
        unsent, self._unsent = self._unsent, []
        if unsent:
            self._stream.drop_waiting()
        for call in unsent:
            self._end(call, call.listener.on_not_sent)

    def _leave(self) -> None:
        self._is_retired = True
        self._poller.forget(self._descriptor, self)
        self._descriptor = -1

    def _close_politely(self) -> None:
        self._leave()
        self._stream.end_polling()
        _start(self._connection.shut_down)

    # --- a thread

    def _ask(self, queues: Sequence[str]) -> None:
        found = self._unreachable_of(queues)
        if found:
            self._poller.call(lambda: self._fail(found))


def _start(work: Callable[[], object]) -> threading.Thread | None:
    """Do in a thread what has to wait for RabbitMQ; None if none can be started now."""
    thread = threading.Thread(target=work, name="broker-ask", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread
