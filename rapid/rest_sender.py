"""Sends the rest of answers that their peers did not take at once, without a thread for each."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lambda_protocol.answers_in_hand import AnswersInHand
from lambda_protocol.pace import Pace, Progress

logger = logging.getLogger(__name__)

#: How often it is looked whether a peer reads too slowly, seconds.
_LOOK_S: Final = 1.0
#: A wait for the first rest that ends without one goes on, seconds.
_IDLE_S: Final = 3600.0


@dataclass(slots=True)
class _Rest:
    """What one peer has yet to take."""

    sock: socket.socket
    data: memoryview
    on_sent: Callable[[], None]
    progress: Progress


class RestSender:
    """One thread, ``NAME-send``, for all connections of a listener. Thread-safe.

    It is started with the listener: an answer must not need a new thread, which a function that
    has used up the process limit would prevent.
    """

    def __init__(self, name: str, *, pace: Pace, in_hand: AnswersInHand) -> None:
        """Drop a connection whose peer reads more slowly than ``pace``.

        ``in_hand`` drops the oldest when there are too many bytes to be sent.
        """
        self._pace = pace
        self._in_hand = in_hand
        self._poller = select.epoll()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # guarded by _lock:
        self._rests: dict[int, _Rest] = {}  # by descriptor
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=f"{name}-send", daemon=True)

    def start(self) -> None:
        """Send from now on."""
        self._thread.start()

    def stop(self, limit_s: float) -> bool:
        """Take no more; True if what is there was sent within ``limit_s``. Idempotent."""
        with self._lock:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(limit_s)
        return not self._thread.is_alive()

    def send(
        self,
        sock: socket.socket,
        head: bytes,
        body: bytes,
        on_sent: Callable[[], None],
        *,
        is_part: bool = False,
    ) -> bool | None:
        """Write both: True if they are out, False if the peer is gone. Never blocks.

        The reader of an answer in parts may pause before each.

        None if the thread sends the rest: ``on_sent`` is called then, once, also when the peer is
        gone. The owner of ``sock`` calls :meth:`forget` before it closes it.
        """
        try:
            sent = _send_now(sock, head, body)
        except OSError:
            return False
        if sent == len(head) + len(body):
            return True
        if sent < len(head):
            head, body = b"", head + body
        if self._send_later(sock, body, on_sent, sent=sent - len(head), is_part=is_part):
            return None
        with contextlib.suppress(OSError):  # half an answer is none
            sock.shutdown(socket.SHUT_RDWR)
        return False

    def _send_later(
        self,
        sock: socket.socket,
        data: bytes,
        on_sent: Callable[[], None],
        *,
        sent: int,
        is_part: bool,
    ) -> bool:
        """Have the thread send ``data`` from byte ``sent`` on; False if that is too late."""
        with self._lock:
            descriptor = sock.fileno()
            if descriptor < 0 or (self._is_stopping and not self._rests):
                return False
            progress = Progress(self._pace.between_parts if is_part else self._pace)
            self._rests[descriptor] = _Rest(sock, memoryview(data)[sent:], on_sent, progress)
            self._poller.register(descriptor, select.EPOLLOUT)
            self._in_hand.add(sock, len(data))
            self._changed.notify_all()
        return True

    def forget(self, sock: socket.socket) -> None:
        """Send nothing more to ``sock``, which is about to be closed."""
        with self._lock:
            descriptor = sock.fileno()
            if descriptor in self._rests:
                self._forget_locked(descriptor)

    def _run(self) -> None:
        while self._wait_for_rests():
            try:
                for descriptor, _ in self._poller.poll(_LOOK_S):
                    self._send_on(descriptor)
                self._drop_stalled()
            except Exception:
                logger.exception("sending failed")
        self._poller.close()

    def _wait_for_rests(self) -> bool:
        with self._lock:
            while not self._rests:
                if self._is_stopping:
                    return False
                self._changed.wait(_IDLE_S)
            return True

    def _send_on(self, descriptor: int) -> None:
        with self._lock:
            rest = self._rests.get(descriptor)
            if rest is None:
                return
            try:
                sent = rest.sock.send(rest.data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                sent = len(rest.data)  # the peer is gone
            rest.data = rest.data[sent:]
            rest.progress.add(sent)
            if rest.data:
                return
            self._forget_locked(descriptor)
        rest.on_sent()

    def _drop_stalled(self) -> None:
        now = time.monotonic()
        with self._lock:
            stalled = [item for item in self._rests.items() if item[1].progress.ends_at <= now]
            for descriptor, rest in stalled:
                self._forget_locked(descriptor)
                with contextlib.suppress(OSError):
                    rest.sock.shutdown(socket.SHUT_RDWR)
        for _, rest in stalled:
            rest.on_sent()

    def _forget_locked(self, descriptor: int) -> None:
        self._in_hand.remove(self._rests.pop(descriptor).sock)
        with contextlib.suppress(OSError):  # closed: the kernel has forgotten it
            self._poller.unregister(descriptor)


def _send_now(sock: socket.socket, head: bytes, body: bytes) -> int:
    """Send what the kernel takes now, return its size; raises ``OSError`` if the peer is gone."""
    try:
        if body:
            return sock.sendmsg((head, body), (), socket.MSG_DONTWAIT)
        return sock.send(head, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return 0
