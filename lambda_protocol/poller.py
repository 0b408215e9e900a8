"""One thread that waits for every connection of a process, and serves what never blocks."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

logger = logging.getLogger(__name__)

#: How long a request may be incomplete before its connection gets a thread that waits for the rest,
#: and how often that is looked at, seconds.
PATIENCE_S: Final = 0.5
_IDLE_S: Final = 3600.0


class Watched(Protocol):
    """Whose descriptor the poller watches. The poller's thread calls it, and it never blocks."""

    def on_ready(self) -> None:
        """Bytes have come, or the end, or an error."""

    def on_slow(self) -> None:
        """What was expected within ``PATIENCE_S`` has not come."""

    def close(self) -> None:
        """Something unexpected went wrong."""


class Poller:
    """Watches descriptors, level-triggered. Thread-safe.

    It is started before connections need it: then there may be no thread left to start.
    """

    def __init__(self, name: str = "http") -> None:
        """Watch nothing yet; ``name`` is the thread's."""
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}  # by descriptor
        self._expected: dict[Watched, float] = {}  # → since when, oldest first; the thread's own
        self._lock = threading.Lock()
        self._tasks: deque[Callable[[], object]] = deque()  # guarded by _lock
        self._has_ended = False  # guarded by _lock
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Serve from now on; raises ``RuntimeError`` if there is no thread for it."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and close everything that is watched. Idempotent."""
        self._is_stopping = True
        if self._thread.is_alive():
            os.eventfd_write(self._wake, 1)
            self._thread.join(PATIENCE_S)

    def watch(self, descriptor: int, watched: Watched) -> None:
        """Tell ``watched`` when ``descriptor`` is readable, until :meth:`forget`."""
        self._watched[descriptor] = watched
        self._epoll.register(descriptor, select.EPOLLIN)

    def pause(self, descriptor: int) -> None:
        """Tell only of errors and of the end of both directions, until :meth:`resume`."""
        self._epoll.modify(descriptor, 0)

    def resume(self, descriptor: int) -> None:
        """Tell again when ``descriptor`` is readable."""
        self._epoll.modify(descriptor, select.EPOLLIN)

    def forget(self, descriptor: int) -> None:
        """Watch no longer: the descriptor is about to be closed, or read by a thread."""
        watched = self._watched.pop(descriptor, None)
        if watched is not None:
            self._expected.pop(watched, None)
            with contextlib.suppress(OSError):  # closed: the kernel has forgotten it
                self._epoll.unregister(descriptor)

    def expect(self, watched: Watched) -> None:
        """Call ``on_slow`` in ``PATIENCE_S``, unless it is :meth:`met` before. In the thread."""
        if watched not in self._expected:
            self._expected[watched] = time.monotonic()

    def met(self, watched: Watched) -> None:
        """Expect nothing more. In the thread."""
        self._expected.pop(watched, None)

    def call(self, task: Callable[[], object]) -> bool:
        """Run ``task`` in the thread, soon; False after the poller has ended."""
        with self._lock:
            if not self._has_ended:
                self._tasks.append(task)
                os.eventfd_write(self._wake, 1)
            return not self._has_ended

    def _run(self) -> None:
        watched_by, poll = self._watched, self._epoll.poll
        while not self._is_stopping:
            for descriptor, _ in poll(PATIENCE_S if self._expected else _IDLE_S):
                watched = watched_by.get(descriptor)
                if watched is not None:
                    try:
                        watched.on_ready()
                    except Exception:
                        logger.exception("connection failed")
                        watched.close()
                elif descriptor == self._wake:
                    self._run_tasks()
            if self._expected:
                self._look_for_slow()
        with self._lock:
            self._has_ended = True
        self._run_tasks()
        for watched in list(self._watched.values()):
            watched.close()
        self._epoll.close()
        os.close(self._wake)

    def _run_tasks(self) -> None:
        with self._lock:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            tasks = list(self._tasks)
            self._tasks.clear()
        for task in tasks:
            try:
                task()
            except Exception:
                logger.exception("connection failed")

    def _look_for_slow(self) -> None:
        now = time.monotonic()
        while self._expected:
            watched, since = next(iter(self._expected.items()))
            if now - since < PATIENCE_S:
                return
            del self._expected[watched]
            try:
                watched.on_slow()
            except Exception:
                logger.exception("connection failed")
                watched.close()
