"""The response of one call, passed on to the caller while the runtime sends it."""

from __future__ import annotations

import time
from collections.abc import Callable

from lambda_protocol.limits import STREAMED_BYTES, UNPACED_BYTES
from rapid.call import Call, Failure
from rapid.environment.phases import PostedId
from rapid.response_sink import ResponseSink

#: Ends the call: with a failure, or with these last bytes of its response; raises ``ApiError``.
End = Callable[["StreamedResponse", Failure | None, bytes], None]


class StreamedResponse:
    """The response; a :class:`lambda_protocol.http1.BodyReceiver`. One thread, the connection's."""

    def __init__(
        self, call: Call, posted: PostedId, sink: ResponseSink, *, rate: float, end: End
    ) -> None:
        """Pass on to ``sink``, ``rate`` bytes a second after the first 6 MB; 0: unlimited."""
        self.most_bytes = STREAMED_BYTES
        self.call = call
        self.posted = posted
        self.size = 0  #: bytes, so far
        self.first_at = 0.0  #: when the first bytes came, monotonic seconds
        self._sink = sink
        self._rate = rate
        self._end = end
        self._taken: list[bytes] = []

    def take(self, data: bytes) -> None:
        """Take the next bytes, as many as have come."""
        if not self.size:
            self.first_at = time.monotonic()
        self.size += len(data)
        self._taken.append(data)

    def on_wait(self) -> float | None:
        """Pass on what was taken, since no more has come."""
        if self._taken:
            self._sink.write(self._take())
            self._keep_pace()
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

    def _keep_pace(self) -> None:
        """Sleep as long as what is over the unpaced bytes has to take. Source: Lambda quotas."""
        if self._rate and self.size > UNPACED_BYTES:
            due_at = self.first_at + (self.size - UNPACED_BYTES) / self._rate
            time.sleep(max(0.0, due_at - time.monotonic()))
