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

#: How often it is looked at what has not come in time, seconds.
_LOOK_S: Final = 0.5
_IDLE_S: Final = 3600.0


class Watched(Protocol):
    """Whose descriptor the poller watches. The poller's thread calls it, and it never blocks."""

    def on_ready(self) -> None:
        """Bytes have come, or the end, or an error; or there is room for what waits to be sent."""

    def on_slow(self) -> None:
        """What was expected has not come in time."""

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
        self._expected: dict[Watched, float] = {}  # → until when, monotonic seconds
        self._at_end: list[Callable[[], object]] = []  # the thread's own
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
        with self._lock:
            if not self._has_ended:
                os.eventfd_write(self._wake, 1)
        if self._thread.is_alive():
            self._thread.join(_LOOK_S)

    def watch(self, descriptor: int, watched: Watched) -> bool:
        """Tell ``watched`` when ``descriptor`` is readable, until :meth:`forget`.

        Returns False, and does nothing, after the poller has ended.
        """
        with self._lock:
            if not self._has_ended:
                self._watched[descriptor] = watched
                self._epoll.register(descriptor, select.EPOLLIN)
            return not self._has_ended

    def pause(self, descriptor: int) -> None:
        """Tell only of errors and of the end of both directions, until :meth:`resume`."""
        self._epoll.modify(descriptor, 0)

    def resume(self, descriptor: int) -> None:
        """Tell again when ``descriptor`` is readable."""
        self._epoll.modify(descriptor, select.EPOLLIN)

    def wait_for_room(self, descriptor: int) -> None:
        """Tell as well when ``descriptor`` takes bytes again, until :meth:`resume`."""
        self._epoll.modify(descriptor, select.EPOLLIN | select.EPOLLOUT)

    def forget(self, descriptor: int, watched: Watched) -> None:
        """Watch no longer: the descriptor is about to be closed, or read by a thread.

        If it has been closed already, another's may have its number; that one stays.
        """
        self._expected.pop(watched, None)
        with self._lock:
            if self._watched.get(descriptor) is watched:
                del self._watched[descriptor]
                with contextlib.suppress(OSError):  # closed: the kernel has forgotten it
                    self._epoll.unregister(descriptor)

    def expect(self, watched: Watched, limit_s: float) -> None:
        """Call ``on_slow`` in ``limit_s``, half a second more at most, unless it is :meth:`met`."""
        self._expected[watched] = time.monotonic() + limit_s
        if threading.get_ident() != self._thread.ident:
            self.call(_look_again)

    def met(self, watched: Watched) -> None:
        """Expect nothing more."""
        self._expected.pop(watched, None)

    def call(self, task: Callable[[], object]) -> bool:
        """Run ``task`` in the thread, soon; False after the poller has ended."""
        with self._lock:
            if not self._has_ended:
                self._tasks.append(task)
                os.eventfd_write(self._wake, 1)
            return not self._has_ended

    def at_end(self, task: Callable[[], object]) -> None:
        """Run ``task`` once all that has come is served; the poller's thread."""
        self._at_end.append(task)

    def _run(self) -> None:
        watched_by, poll = self._watched, self._epoll.poll
        looks_at = 0.0
        while True:
            events = poll(self._limit_s())
            if self._is_stopping and not events:
                break
            for descriptor, _ in events:
                watched = watched_by.get(descriptor)
                if watched is not None:
                    try:
                        watched.on_ready()
                    except Exception:
                        logger.exception("connection failed")
                        watched.close()
                elif descriptor == self._wake:
                    self._run_tasks()
            if self._expected and time.monotonic() >= looks_at:
                self._look_for_slow()
                looks_at = time.monotonic() + _LOOK_S
            if self._at_end:
                self._end_round()
        with self._lock:
            self._has_ended = True
        self._run_tasks()
        for watched in list(self._watched.values()):
            watched.close()
        self._epoll.close()
        os.close(self._wake)

    def _limit_s(self) -> float:
        if self._is_stopping:  # what has come is served
            return 0.0
        return _LOOK_S if self._expected else _IDLE_S

    def _run_tasks(self) -> None:
        with self._lock:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            tasks = list(self._tasks)
            self._tasks.clear()
        _run_all(tasks)

    def _end_round(self) -> None:
        while tasks := self._at_end:
            self._at_end = []
            _run_all(tasks)

    def _look_for_slow(self) -> None:
        now = time.monotonic()
        for watched in [each for each, until in self._expected.copy().items() if until <= now]:
            if self._expected.pop(watched, None) is None:
                continue
            try:
                watched.on_slow()
            except Exception:
                logger.exception("connection failed")
                watched.close()


def _run_all(tasks: list[Callable[[], object]]) -> None:
    for task in tasks:
        try:
            task()
        except Exception:
            logger.exception("connection failed")


def _look_again() -> None:
    """Wake the thread, which has expected nothing."""
