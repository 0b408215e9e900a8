"""An AMQP stream for the poller: it blocks until it is connected, and then never again."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Sequence

from lambda_protocol.amqp_frames import Piece
from lambda_protocol.amqp_stream import AmqpStream, NotSentError


class PolledStream(AmqpStream):
    """The stream. One thread, which begins and ends the time in which it does not block."""

    _waiting: list[Piece] | None = None  # for the end of the round, or for room in the socket
    _on_waiting: Callable[[], object]
    waiting_bytes = 0
    waiting_since = 0.0

    def begin_polling(self, on_waiting: Callable[[], object]) -> int:
        """Block no more; ``on_waiting`` hears that there is something to :meth:`flush`.

        Returns the descriptor.
        """
        assert self._socket is not None
        self._socket.setblocking(False)
        self._waiting = []
        self._on_waiting = on_waiting
        return self._socket.fileno()

    def end_polling(self) -> None:
        """Block again."""
        self._waiting = None
        if self._socket is not None:
            self._socket.setblocking(True)

    def send(self, frames: bytes | Sequence[Piece]) -> None:
        """Have whole frames written by :meth:`flush`; raises ``NotSentError``."""
        waiting = self._waiting
        if waiting is None:
            super().send(frames)
            return
        if self._socket is None:
            raise NotSentError("the broker connection is closed")
        pieces = [frames] if isinstance(frames, bytes) else frames
        if not waiting:
            self.waiting_since = time.monotonic()
            self._on_waiting()
        waiting += pieces
        self.waiting_bytes += sum(map(len, pieces))

    def flush(self) -> None:
        """Write what the socket takes now; raises ``OSError`` if the connection is gone.

        It is a ``NotSentError`` when nothing of what waits can have reached the broker.
        """
        waiting = self._waiting
        if not waiting:
            return
        if self._socket is None:
            raise NotSentError("the broker connection is closed")
        data = memoryview(b"".join(waiting))
        sent = 0
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while sent < len(data):
                try:
                    sent += self._socket.send(data[sent:])
                except (BlockingIOError, ssl.SSLError):
                    raise
                except OSError as error:
                    raise (error if sent else NotSentError(str(error))) from error
        if sent:
            self.waiting_since = time.monotonic()
        waiting[:] = [data[sent:]] if sent < len(data) else []
        self.waiting_bytes = len(data) - sent

    def drop_waiting(self) -> None:
        """Write nothing of what waits: the connection is about to be closed."""
        if self._waiting is not None:
            self._waiting.clear()
        self.waiting_bytes = 0

    def take(self) -> None:
        """Read what has come, and run what is due; raises what :meth:`poll` does."""
        self.poll(0)
        while isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            self.poll(0)
