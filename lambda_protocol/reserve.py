"""Answers health checks and scrapes on connections that a listener has no place for.

Every other request on such a connection is refused with 503. A health port of its own is served
the same way: there clients cannot take the place of a health check at all.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lambda_protocol.descriptors import SpareDescriptor
from lambda_protocol.http1 import Request, RequestReader
from lambda_protocol.http_head import BadRequestError
from lambda_protocol.pace import Pace

logger = logging.getLogger(__name__)

#: What is answered.
PATHS: Final = ("/healthz", "/readyz", "/metrics")
#: How many connections there may be; of more the oldest is refused.
SIZE: Final = 64
#: The most that is read to find the end of a request's headers, bytes.
_HEAD_BYTES: Final = 16_384
#: How often it is read what a peer sends after its request, and thrown away.
_DISCARDED_READS: Final = 64
#: How often deadlines are looked at, and how long a peer has to close after its answer, seconds.
_LOOK_S: Final = 0.5
_CLOSE_S: Final = 2.0
_EVENTS: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


@dataclass(slots=True)
class _Guest:
    """A connection: first it is read, then answered, then closed by its peer."""

    sock: socket.socket
    ends_at: float  # monotonic seconds
    is_asking: bool = False  # its request has come, and is being answered
    rest: memoryview | None = None  # of the answer; empty: all is sent


class _Tasks(queue.SimpleQueue[Callable[[], None] | None]):
    """What one thread does, one after the other, until None."""

    def run(self) -> None:
        """Do it."""
        while (task := self.get()) is not None:
            task()


class Reserve:
    """One thread, ``NAME-reserve``, for all its connections. Thread-safe.

    It is started before connections need it: then there may be no thread left to start.
    """

    def __init__(
        self,
        name: str,
        answer: Callable[[Request], bytes],
        refusal: bytes,
        *,
        pace: Pace,
        answers_block: bool,
    ) -> None:
        """``answer`` returns the response to a request of :data:`PATHS`; ``refusal`` is a 503.

        If ``answers_block``, each path has a thread of its own, so that a slow ``/readyz`` does not
        keep ``/healthz`` waiting.
        """
        self._answer = answer
        self._refusal = refusal
        self._pace = pace
        self._poller = select.epoll()
        self._spare = SpareDescriptor()
        self._listeners: dict[int, socket.socket] = {}  # by descriptor
        self._lock = threading.Lock()
        self._guests: dict[int, _Guest] = {}  # guarded by _lock; by descriptor, oldest first
        self._is_stopping = False
        self._queues: dict[str, _Tasks] = {path: _Tasks() for path in PATHS if answers_block}
        self._threads = [threading.Thread(target=self._run, name=f"{name}-reserve", daemon=True)]
        for path, tasks in self._queues.items():
            thread_name = f"{name}-reserve{path}"
            self._threads.append(threading.Thread(target=tasks.run, name=thread_name, daemon=True))

    def start(self) -> None:
        """Serve from now on; raises ``RuntimeError`` if there is no thread for it."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Close every connection, but no listener. Idempotent."""
        self._is_stopping = True
        for tasks in self._queues.values():
            tasks.put(None)
        if self._threads[0].is_alive():
            self._threads[0].join(2 * _LOOK_S)

    def listen(self, listener: socket.socket) -> None:
        """Take every connection of ``listener``, before :meth:`start`."""
        listener.setblocking(False)
        self._listeners[listener.fileno()] = listener
        self._poller.register(listener, select.EPOLLIN)

    def take(self, sock: socket.socket) -> None:
        """Own ``sock`` from now on, and close it in the end."""
        sock.setblocking(False)
        guest = _Guest(sock, time.monotonic() + self._pace.head_s)
        with self._lock:
            if len(self._guests) >= SIZE:
                waiting = (other for other in self._guests.values() if not other.is_asking)
                oldest = next(waiting, next(iter(self._guests.values())))
                with contextlib.suppress(OSError):
                    oldest.sock.send(self._refusal)
                self._close_locked(oldest)
            self._guests[sock.fileno()] = guest
            self._poller.register(sock, _EVENTS)

    # --- the reserve's thread

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                for descriptor, _ in self._poller.poll(_LOOK_S):
                    listener = self._listeners.get(descriptor)
                    if listener is not None:
                        self._accept(listener)
                    else:
                        self._go_on(descriptor)
                self._close_late()
            except Exception:
                logger.exception("the reserve failed")
        with self._lock:
            for guest in list(self._guests.values()):
                self._close_locked(guest)
        self._poller.close()
        self._spare.close()

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:  # another worker had it
            return
        except OSError as error:
            self._spare.refuse_if_exhausted(error, listener, self._refusal)
            return
        self.take(sock)

    def _go_on(self, descriptor: int) -> None:
        with self._lock:
            guest = self._guests.get(descriptor)
            if guest is None:
                return
            try:
                if guest.rest is not None:
                    self._send_locked(guest)
                    return
                if guest.is_asking or not _has_head(guest.sock):
                    return
                request = self._read_request(guest.sock)
            except OSError:
                self._close_locked(guest)
                return
            if request is None:
                self._give_locked(guest, self._refusal)
                return
            guest.is_asking = True
        tasks = self._queues.get(request.path)
        if tasks is not None:
            tasks.put(lambda: self._serve(guest, request))
        else:
            self._serve(guest, request)

    def _read_request(self, sock: socket.socket) -> Request | None:
        """Return the request, which has arrived whole. None: the request is refused."""
        reader = RequestReader(sock, max_body_bytes=0, pace=self._pace)
        try:
            request = reader.read_head()
        except BadRequestError:
            return None
        if request is None or request.path not in PATHS or request.method not in ("GET", "HEAD"):
            return None
        request.is_last = True
        return request

    def _close_late(self) -> None:
        now = time.monotonic()
        with self._lock:
            for guest in [each for each in self._guests.values() if each.ends_at <= now]:
                self._close_locked(guest)

    # --- any thread

    def _serve(self, guest: _Guest, request: Request) -> None:
        try:
            data = self._answer(request)
        except Exception:
            logger.exception("request failed", extra={"path": request.path})
            data = self._refusal
        with self._lock:
            if self._guests.get(guest.sock.fileno()) is guest:
                self._give_locked(guest, data)

    def _give_locked(self, guest: _Guest, data: bytes) -> None:
        guest.rest = memoryview(data)
        guest.ends_at = time.monotonic() + self._pace.grace_s
        try:
            self._send_locked(guest)
        except OSError:
            self._close_locked(guest)

    def _send_locked(self, guest: _Guest) -> None:
        """Send what the peer takes; then wait for its end, so that the answer is not reset."""
        assert guest.rest is not None
        with contextlib.suppress(BlockingIOError):
            if guest.rest:
                while guest.rest:
                    guest.rest = guest.rest[guest.sock.send(guest.rest) :]
                guest.sock.shutdown(socket.SHUT_WR)
                guest.ends_at = time.monotonic() + _CLOSE_S
            for _ in range(_DISCARDED_READS):
                if not guest.sock.recv(_HEAD_BYTES):
                    self._close_locked(guest)
                    return

    def _close_locked(self, guest: _Guest) -> None:
        if self._guests.pop(guest.sock.fileno(), None) is not None:
            guest.sock.close()  # the poller forgets it


def _has_head(sock: socket.socket) -> bool:
    """Whether all headers of a request have come; raises ``OSError`` if they never will."""
    try:
        data = sock.recv(_HEAD_BYTES, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    if not data:
        raise ConnectionError("the peer has closed")
    if b"\r\n\r\n" not in data and len(data) == _HEAD_BYTES:
        raise ConnectionError("the headers are too large")
    return b"\r\n\r\n" in data
