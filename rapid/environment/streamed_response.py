"""The response of one call, passed on to the caller while the runtime sends it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from lambda_protocol.limits import STREAMED_BYTES, UNPACED_BYTES
from rapid.call import Call, Failure
from rapid.environment.phases import PostedId
from rapid.response_sink import ResponseSink

#: How often a wait for the rate looks whether the call has ended, seconds.
_LOOK_S: Final = 0.1
#: Ends the call: with a failure, or with these last bytes of its response; raises ``ApiError``.
End = Callable[["StreamedResponse", Failure | None, bytes], None]


class StreamedResponse:
    """The response; a :class:`lambda_protocol.http1.BodyReceiver`. One thread, the connection's."""

    def __init__(
        self,
        call: Call,
        posted: PostedId,
        sink: ResponseSink,
        *,
        rate: float,
        is_over: Callable[[], bool],
        end: End,
    ) -> None:
        """Pass on to ``sink``, ``rate`` bytes a second after the first 6 MB; 0: unlimited.

        ``is_over`` tells whether the call has ended by itself.
        """
        self.most_bytes = STREAMED_BYTES
        self.call = call
        self.posted = posted
        self._sink = sink
        self._rate = rate
        self._is_over = is_over
        self._end = end
        self._taken: list[bytes] = []
        self._next_at = 0.0  # when the rate allows more, monotonic seconds

    def take(self, data: bytes) -> None:
        """Take the next bytes, as many as have come."""
        call = self.call
        if not call.streamed_bytes:
            call.first_byte_at = time.monotonic()
        call.streamed_bytes += len(data)
        self._taken.append(data)

    def on_wait(self) -> float | None:
        """Pass on what was taken, since no more has come."""
        if self._taken:
            data = self._take()
            self._sink.write(data)
            if self._rate and self.call.streamed_bytes > UNPACED_BYTES:
                self._keep_pace(len(data))
        return self._sink.patience_s

    def flush(self) -> None:
        """Have the sink send what it has kept."""
        self._sink.flush()

    def end(self, failure: Failure | None) -> None:
        """End the call; raises ``ApiError`` if it has ended already."""
        if failure is not None and self._taken:
            self._sink.write(self._take())  # it was sent before the function failed
        self._end(self, failure, self._take())

    def _take(self) -> bytes:
        data = self._taken[0] if len(self._taken) == 1 else b"".join(self._taken)
        self._taken.clear()
        return data

    def _keep_pace(self, count: int) -> None:
        """Wait as long as ``count`` bytes take at the rate. Source: Lambda quotas."""
        self._next_at = max(self._next_at, time.monotonic()) + count / self._rate
        while (left_s := self._next_at - time.monotonic()) > 0 and not self._is_over():
            time.sleep(min(left_s, _LOOK_S))
