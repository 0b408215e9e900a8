"""What other threads want done in the thread ``amqp-consumer``, which alone talks to RabbitMQ."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from queue import SimpleQueue

from lambda_protocol.amqp_connection import AmqpConnection


class Commands:
    """Commands in their order, and a pipe that wakes the thread. Thread-safe."""

    def __init__(self) -> None:
        """Hold none."""
        self._commands: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.wake_fd, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        #: Whether the thread was woken. The consumer takes it back when it looks.
        self.is_woken = False

    def defer(self, command: Callable[[], None]) -> None:
        """Have the thread run ``command`` soon, one after the other."""
        self._commands.put(command)
        self.wake()

    def wake(self) -> None:
        """Have the thread look at what has changed."""
        self.is_woken = True  # stays, though a wait for one of the broker's answers takes the byte
        self.nudge()

    def nudge(self) -> None:
        """Have the thread look how long it may wait."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_writer, b"\0")

    def run(self, connection: AmqpConnection) -> None:
        """Run what is there; the thread. Commands that write wait for the end of an alarm."""
        while connection.blocked_reason is None and not self._commands.empty():
            self._commands.get_nowait()()
