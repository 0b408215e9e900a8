"""Lends the socket of the broker's connection to the poller, which takes calls as they come.

The thread ``amqp-consumer`` owns the connection: it alone talks to pika, and may wait for answers.
While it waits for nothing but calls, the poller's thread reads them: no thread has to be woken for
a call, and none takes the interpreter from the poller that writes answers.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from lambda_protocol.amqp_stream import AmqpStream
from lambda_protocol.poller import Poller
from rapid.broker.commands import Commands
from rapid.broker.slots import HAND_BACK_AFTER_S

#: A longer call is left to the thread: its check would keep all connections waiting.
_SHORT_BYTES: Final = 65_536


class Loan:
    """The loan. The consumer's thread calls :meth:`wait`, the poller's thread the rest.

    The lock is held while a call is taken, so it comes before all others.
    """

    def __init__(self, poller: Poller, commands: Commands) -> None:
        """Lend nothing yet; what is no call wakes the thread through ``commands``."""
        self.commands = commands
        self._poller = poller
        self._lock = threading.Lock()
        # guarded by _lock:
        self._lent: AmqpStream | None = None
        self._descriptor = -1
        self._channel = 0
        self._due = 0.0  # when the thread looks after the rest, monotonic seconds
        self._error: Exception | None = None

    def wait(self, stream: AmqpStream, channel: int, due: float) -> float | None:
        """Let the poller take what comes by ``channel`` until ``due``, or until there is news.

        Return when the thread has to look after the rest: soon, once a call has come. None: this
        socket cannot be lent, and nothing was waited for. Raises what ended the reading.
        """
        descriptor = stream.descriptor
        if descriptor is None:
            return None
        with self._lock:
            self._lent, self._descriptor, self._channel = stream, descriptor, channel
            self._due, self._error = due, None
            if not self._poller.watch(descriptor, self):
                self._lent = None
                return None
        try:
            while self._lent is not None and not self.commands.is_woken:
                left_s = min(self._due, stream.timer_at) - time.monotonic()
                if left_s <= 0:
                    break
                stream.wait_for_wake(left_s)
        finally:
            with self._lock:
                self._end_locked()
        if self._error is not None:
            raise self._error
        return self._due

    def on_ready(self) -> None:
        """Take the calls that have come, and end the loan if anything else has."""
        with self._lock:
            if self._lent is None:
                return
            try:
                is_over = self._lent.take_messages(self._channel, _SHORT_BYTES)
            except Exception as error:  # it ends the connection, in the thread
                self._error, is_over = error, True
            due = time.monotonic() + HAND_BACK_AFTER_S
            is_earlier = due < self._due
            if is_earlier:
                self._due = due
            if is_over:
                self._end_locked()
        if is_over:
            self.commands.wake()
        elif is_earlier:
            self.commands.nudge()

    def on_slow(self) -> None:
        """Nothing is expected."""

    def close(self) -> None:
        """End the loan: the poller ends."""
        with self._lock:
            self._end_locked()
        self.commands.wake()

    def _end_locked(self) -> None:
        if self._lent is not None:
            self._lent = None
            self._poller.forget(self._descriptor, self)
