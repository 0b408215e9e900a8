"""An HTTP answer whose body is sent while it is made."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Protocol

#: How long one part may be on its way, seconds; a slower peer has been dropped long before.
_SENT_WITHIN_S: Final = 86_400.0


class PartSender(Protocol):
    """The connection of the answer. Never blocks."""

    def send_part(self, data: bytes, on_sent: Callable[[], None]) -> bool | None:
        """Send ``data``: True once it is out, False if the peer is gone.

        None if the rest follows; ``on_sent`` is called then.
        """

    def end_parts(self, data: bytes, is_last: bool) -> None:
        """Send the last bytes, if the peer is still there; the connection ends if ``is_last``."""


class StreamedAnswer:
    """The answer. Thread-safe: one thread writes, any thread ends it."""

    def __init__(
        self, connection: PartSender, head: bytes, *, is_chunked: bool, is_last: bool
    ) -> None:
        """Send ``head`` with the first part."""
        self._connection = connection
        self._head = head
        self._is_chunked = is_chunked
        self._is_last = is_last
        self._changed = threading.Condition(threading.Lock())
        # guarded by _changed:
        self._is_sending = False  # a part is on its way
        self._is_over = False  # nothing more is written: it has ended, or the peer is gone
        self._end: bytes | None = None  # what follows the part that is on its way

    def write(self, data: bytes) -> None:
        """Send a part; waits first until the one before it has left.

        What the peer has no use for any more is dropped. An empty first part sends the head alone.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or not self._is_sending, _SENT_WITHIN_S)
            if self._is_over or not (data or self._head):
                return
            # Under the lock: a connection that closes lets go of the stream first.
            part = self._take_head() + (self._framed(data) if data else b"")
            is_sent = self._connection.send_part(part, self.on_sent)
            self._is_sending, self._is_over = is_sent is None, is_sent is False

    def end(self, data: bytes, *, is_clean: bool = True) -> None:
        """Send the last part. Never blocks; the first end counts.

        An answer that does not end cleanly breaks off after it, so that the peer knows.
        """
        with self._changed:
            if self._end is not None:
                return
            last = self._framed(data) if data else b""
            if is_clean and self._is_chunked:
                last += b"0\r\n\r\n"
            self._is_last = self._is_last or not is_clean
            self._end = self._take_head() + last
            is_now, self._is_over = not self._is_sending, True
            self._changed.notify_all()
            if is_now:
                self._connection.end_parts(self._end, self._is_last)

    def on_sent(self) -> None:
        """Note that the part that was on its way is out, or never will be."""
        with self._changed:
            self._is_sending = False
            self._changed.notify_all()
            if self._end is not None:
                self._connection.end_parts(self._end, self._is_last)

    def on_gone(self) -> None:
        """Note that the peer is gone: what is written is dropped from now on."""
        with self._changed:
            self._is_sending, self._is_over, self._end = False, True, b""
            self._changed.notify_all()

    def _take_head(self) -> bytes:
        head, self._head = self._head, b""
        return head

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data
