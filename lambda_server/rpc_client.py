"""AMQP-RPC, one call at a time: publish, then wait for the reply on the same channel."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Final, Self

from lambda_protocol.amqp_connection import broker_blocked
from lambda_protocol.amqp_frames import Delivery, publish_pieces
from lambda_protocol.errors import (
    LambdaApiError,
    ResourceNotReadyException,
    ServiceException,
    TooManyRequestsException,
)
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.http_peer import HttpPeer
from lambda_protocol.invocation import Invocation, Outcome
from lambda_protocol.invoke_amqp import Started, decode_reply, encode_call
from lambda_protocol.limits import REPLY_GRACE_S
from lambda_protocol.streamed_amqp import End, Head, decode_frame
from lambda_server.aside import Aside
from lambda_server.async_publisher import AsyncPublisher
from lambda_server.caller import CallerGoneError
from lambda_server.link import Link
from lambda_server.queue_state import (
    LOOK_AROUND_S,
    Queues,
    QueueStates,
    refusal,
    unreachable,
)
from lambda_server.reply_channel import ReplyChannel, WaitingCall
from lambda_server.stream_reading import StreamReading, frame_is_missing

#: More than a socket takes at once: RabbitMQ is asked first whether it reads, bytes.
PROBE_BYTES: Final = 64 * 1024


def answer_held_back(reason: str) -> ServiceException:
    """Return the error for a call that runs, and whose answer an alarm holds back."""
    return ServiceException(
        "The call has started, and its answer did not come in time: RabbitMQ takes no messages "
        f"now: {reason}."
    )


def _note_started(call: WaitingCall, within_s: float, *, is_running: bool) -> None:
    call.is_started, call.is_running = True, is_running
    call.deadline = time.monotonic() + within_s + REPLY_GRACE_S


class RpcClient:
    """Calls of one thread; raises one of ``BrokerLost`` when its link breaks."""

    def __init__(
        self,
        link: Link,
        *,
        queue_timeout_s: float,
        queues: Queues,
        publisher: AsyncPublisher,
    ) -> None:
        """Call by ``link``, of which ``queues`` and ``publisher`` are."""
        self.link = link
        self.queues = queues
        self._publisher = publisher
        self._queue_timeout_s = queue_timeout_s

    @classmethod
    def over(cls, link: Link, *, queue_timeout_s: float, states: QueueStates | None = None) -> Self:
        """Return the first client of ``link``; links of one broker share ``states``."""
        queues = Queues(link, states or QueueStates())
        publisher = AsyncPublisher(link, queues, queue_timeout_s=queue_timeout_s)
        return cls(link, queue_timeout_s=queue_timeout_s, queues=queues, publisher=publisher)

    def for_another_thread(self) -> RpcClient:
        """Return another client of the same link."""
        return RpcClient(
            self.link,
            queue_timeout_s=self._queue_timeout_s,
            queues=self.queues,
            publisher=self._publisher,
        )

    def call(self, invocation: Invocation, caller: HttpPeer | None = None) -> Outcome:
        """Run ``invocation`` and return its outcome; raises ``LambdaApiError``.

        404 at once when no queue has the function's name, 503 when there is one that cannot be
        reached; 429 or 502 when no instance took the call in time. Raises ``CallerGoneError`` when
        ``caller`` left. The waiter is recorded before the call is sent, so no reply overtakes it.
        """
        link = self.link
        replies = link.replies()
        call = self._waiting_call(invocation, caller)
        replies.add(call)
        try:
            self._send(call, replies)
            while True:
                answer = decode_reply(self._next_frame(call, replies))
                if isinstance(answer, Outcome):
                    return answer
                _note_started(call, answer.within_s, is_running=answer.is_running)
        finally:
            link.leave(replies, call)

    def stream(
        self, invocation: Invocation, caller: HttpPeer | None, aside: Aside, window_bytes: int
    ) -> Generator[Head | bytes, None, End]:
        """Run ``invocation``; yield how its response begins, and then its parts as they come.

        Without any the response has come whole. Raises as :meth:`call`, also in mid-stream. Credit
        goes by ``aside``; at most ``window_bytes`` are on their way.
        """
        link = self.link
        replies = link.replies()
        call = self._waiting_call(invocation, caller)
        replies.add(call)
        reading: StreamReading | None = None
        try:
            self._send(call, replies, credit_bytes=window_bytes)
            while True:
                frame = decode_frame(self._next_frame(call, replies))
                if isinstance(frame, Started):
                    _note_started(call, frame.within_s, is_running=frame.is_running)
                    continue
                if isinstance(frame, Head) and reading is None:
                    reading = StreamReading(aside, frame, window_bytes)
                    call.check_sender = reading.check_sender
                    call.begin_answer()
                    _note_started(call, frame.within_s, is_running=True)
                    yield frame
                if reading is None:
                    if isinstance(frame, End) and frame.number == 0:
                        return frame
                    raise frame_is_missing()
                reading.check(frame)
                if isinstance(frame, End):
                    return frame
                yield frame.data
                reading.take(len(frame.data))
        finally:
            link.leave(replies, call)
            if reading is not None:
                reading.close()

    def _waiting_call(self, invocation: Invocation, caller: HttpPeer | None) -> WaitingCall:
        now = time.monotonic()
        return WaitingCall(
            invocation, caller, sent_at=now, deadline=now + self._queue_timeout_s + REPLY_GRACE_S
        )

    def _send(
        self, call: WaitingCall, replies: ReplyChannel, credit_bytes: int | None = None
    ) -> None:
        link, invocation = self.link, call.invocation
        properties = encode_call(
            invocation, queue_timeout_s=self._queue_timeout_s, credit_bytes=credit_bytes
        )
        frames = publish_pieces(
            replies.number,
            invocation.function.queue_name,
            properties,
            invocation.payload,
            frame_max=link.frame_max,
            mandatory=True,
        )
        if len(invocation.payload) > PROBE_BYTES:
            self.require_reading()
        link.send(frames, call)

    def _next_frame(self, call: WaitingCall, replies: ReplyChannel) -> Delivery:
        """Wait for a frame of ``call``; raises the ``LambdaApiError`` that tells why none comes."""
        link, invocation = self.link, call.invocation
        delivery = self._next_reply(call, replies)
        if call.is_returned:
            raise self.why_returned(invocation)
        if delivery is None and link.blocked_reason is not None:
            raise answer_held_back(link.blocked_reason)
        if delivery is None:
            error = self.why_unanswered(invocation)
            link.discard(replies)
            raise error
        return delivery

    def publish_async(self, invocation: Invocation) -> None:
        """Publish an asynchronous invocation; see :meth:`AsyncPublisher.publish`."""
        self._publisher.publish(invocation)

    def require_function(self, function: FunctionRef) -> None:
        """Check that a call of ``function`` would find its queue; raises ``LambdaApiError``."""
        self.link.probe()
        error = refusal(function, self.queues.ask(function.queue_name))
        if error is not None:
            raise error

    def require_reading(self) -> None:
        """Return when RabbitMQ has taken a message; raises ``ServiceUnavailable`` in an alarm."""
        self.link.check_publishing()
        if self.link.blocked_reason is not None:
            raise broker_blocked(self.link.blocked_reason)

    def _next_reply(self, call: WaitingCall, replies: ReplyChannel) -> Delivery | None:
        """Wait for a frame of ``call``; None when it was returned or time is up."""
        link = self.link
        while not call.has_news:
            left = call.deadline - time.monotonic()
            if left <= 0:
                return None
            link.wait(call, min(left, LOOK_AROUND_S))
            if call.has_news:
                break
            if call.lost_by is not None:
                raise call.lost_by
            if link.blocked_reason is not None and not call.is_running:
                raise broker_blocked(link.blocked_reason)
            self._look_around(call, replies)
        return call.replies.popleft() if call.replies else None

    def _look_around(self, call: WaitingCall, replies: ReplyChannel) -> None:
        """End the wait of a call whose caller has left, or whose queue cannot be reached."""
        if call.has_caller_left():
            if call.check_sender is None:
                self.link.discard(replies)
            raise CallerGoneError
        if call.check_sender is not None:
            call.check_sender()
        if call.is_running or time.monotonic() - call.sent_at < LOOK_AROUND_S:
            return
        self.link.probe()
        if call.is_started:
            return
        function = call.invocation.function
        if self.queues.is_unreachable(function.queue_name):
            self.link.discard(replies)
            raise unreachable(function)

    def why_returned(self, invocation: Invocation) -> LambdaApiError:
        """Return why RabbitMQ returned a call: there is no queue, or it cannot be reached."""
        function = invocation.function
        error = refusal(function, self.queues.state(function.queue_name))
        # What was known may be a second old; it is not what the call has met.
        error = error or refusal(function, self.queues.ask(function.queue_name))
        return error or unreachable(function)

    def why_unanswered(self, invocation: Invocation) -> LambdaApiError:
        """Return why no instance answered: all are busy, or there is none."""
        function = invocation.function
        state = self.queues.state(function.queue_name)
        error = refusal(function, state)
        if error is not None:
            return error
        if state.consumers == 0:
            return ResourceNotReadyException(
                f"No instance of the function {function.name} is running."
            )
        return TooManyRequestsException()
