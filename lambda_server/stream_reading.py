"""Reads the frames of one response, and gives credit for what its reader has taken."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Final

from lambda_protocol.errors import ServiceException
from lambda_protocol.streamed_amqp import (
    PART_BYTES,
    WINDOW_BYTES,
    End,
    Head,
    Part,
    encode_cancel,
    encode_credit,
)
from lambda_server.aside import Aside

#: What all responses of a process together may have on their way, bytes, as long as none of them
#: has less than the least.
_ALL_BYTES: Final = 64 * 1_048_576
_LEAST_BYTES: Final = 2 * PART_BYTES


class Windows:
    """How much of each response may be on its way: the more there are, the less. Thread-safe."""

    def __init__(self) -> None:
        """There is none."""
        self._lock = threading.Lock()
        self._count = 0  # guarded by _lock

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Give the window of one more response, bytes."""
        with self._lock:
            self._count += 1
            window_bytes = max(_LEAST_BYTES, min(WINDOW_BYTES, _ALL_BYTES // self._count))
        try:
            yield window_bytes
        finally:
            with self._lock:
                self._count -= 1


class StreamReading:
    """The response. One thread, the caller's."""

    def __init__(self, aside: Aside, head: Head, window_bytes: int) -> None:
        """Send credit by ``aside`` to where ``head`` says."""
        self._aside = aside
        self._window_bytes = window_bytes
        self._head = head
        self._number = 0  # of the next frame
        self._taken = 0  # bytes
        self._credited = 0  # bytes
        self._is_over = False

    def check(self, frame: Head | Part | End) -> None:
        """Raise ``ServiceException`` unless ``frame`` is the next one."""
        number = 0 if isinstance(frame, Head) else frame.number
        if number != self._number or (isinstance(frame, Head) and frame is not self._head):
            raise frame_is_missing()
        self._number += 1
        self._is_over = isinstance(frame, End)

    def take(self, count: int) -> None:
        """Note that the reader has taken so many bytes."""
        self._taken += count
        if self._taken - self._credited >= self._window_bytes // 4:
            self._credited = self._taken
            self._give_credit()

    def check_sender(self) -> None:
        """Raise ``ServiceException`` if the instance is gone; nothing has come for a while.

        Credit may have been lost on its way: it is given again.
        """
        if self._credited:
            self._give_credit()
        if self._head.address is not None and self._aside.is_gone(self._head.address):
            raise ServiceException("The function's instance was lost.")

    def _give_credit(self) -> None:
        if self._head.address is not None:
            total_bytes = self._credited + self._window_bytes
            self._aside.send(self._head.address, encode_credit(self._head.request_id, total_bytes))

    def close(self) -> None:
        """Let the instance drop what is left of a response that is not wanted to its end."""
        if not self._is_over and self._head.address is not None:
            self._is_over = True
            self._aside.send(self._head.address, encode_cancel(self._head.request_id))


def frame_is_missing() -> ServiceException:
    """Return the error for a response of which a frame is missing, or came twice."""
    return ServiceException("A part of the function's answer was lost on its way.")
