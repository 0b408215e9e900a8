"""The poller: whose descriptor is whose, and whose turn it is."""

from __future__ import annotations

import os
import queue

from lambda_protocol.poller import Poller
from tests.support import LIMIT_S


class Watcher:
    """Tells the test that its pipe is readable."""

    def __init__(self) -> None:
        self.told: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK)

    def on_ready(self) -> None:
        """Keep what has come."""
        self.told.put(os.read(self.reader, 100))

    def on_slow(self) -> None:
        """Nothing is expected."""

    def close(self) -> None:
        """The poller has ended."""


def test_who_forgets_too_late_takes_nobody_elses_descriptor(poller: Poller) -> None:
    early, late = Watcher(), Watcher()
    poller.watch(early.reader, early)
    number = early.reader
    os.close(number)
    os.dup2(late.reader, number)  # the number is another's now
    os.close(late.reader)
    late.reader = number
    poller.watch(number, late)

    poller.forget(number, early)

    os.write(late.writer, b"1")
    assert late.told.get(timeout=LIMIT_S) == b"1"
    poller.forget(number, late)
    for descriptor in (late.reader, late.writer, early.writer):
        os.close(descriptor)
