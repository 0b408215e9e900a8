"""The byte stream of an AMQP connection: writes whole frames, and reads messages from a socket.

This is the half of a connection that each call passes. It imports no AMQP client, and inherits
from none. ``amqp_connection`` is the other half: pika opens the connection and its channels.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from lambda_protocol.amqp_frames import MAX_FRAME_BYTES, Delivery, FrameReader, Piece
from lambda_protocol.limits import RESPONSE_PAYLOAD_BYTES

#: A write the broker does not take within this time is a lost connection, seconds.
SEND_TIMEOUT_S: Final = 10.0
#: How long a read waits before its deadline is looked at again, seconds.
RECEIVE_TIMEOUT_S: Final = 1.0
_READ_SIZE: Final = 64 * 1024
#: Pieces in one write; the kernel takes 1,024. Source: writev(2), IOV_MAX.
_PIECES_AT_ONCE: Final = 768


class NotSentError(ConnectionError):
    """The connection was gone before the first byte was written."""


class AmqpStream:
    """The stream. One thread, the connection's owner, but for what says otherwise."""

    def __init__(
        self,
        *,
        on_delivery: Callable[[Delivery], None],
        on_frame: Callable[[bytes], None],
        on_lost: Callable[[OSError], None],
        on_alarm: Callable[[str | None], None],
        wake_fd: int | None,
    ) -> None:
        """``on_delivery`` gets every message, ``on_frame`` every frame of anything else.

        ``on_lost`` hears that the broker or the network has ended the stream. ``on_alarm`` gets
        :attr:`blocked_reason` when that has changed. A byte in ``wake_fd`` ends a poll early.
        """
        self.blocked_reason: str | None = None  #: why RabbitMQ reads nothing; ``on_frame`` sets it
        self.failure: Exception | None = None  #: what :meth:`poll` raises; the connection sets it
        self.bytes_received = 0
        self._on_delivery = on_delivery
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._on_alarm = on_alarm
        self._wake_fd = wake_fd
        self._poller = select.poll()
        self._wake_poller = select.poll()
        self._scratch = memoryview(bytearray(_READ_SIZE))
        self._reads_blocking = False
        self._socket: socket.socket | None = None
        self._send_lock = threading.Lock()
        # No message of the protocol is larger; of a larger one only the size is of interest.
        self._reader = FrameReader(max_body_bytes=RESPONSE_PAYLOAD_BYTES)
        self._left: list[Delivery | bytes] = []  # what :meth:`take_messages` has left
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._timer_ids = itertools.count()

    def open(self, sock: socket.socket) -> None:
        """Use ``sock``, which is connected and belongs to the stream from now on."""
        _limit_waits(sock)
        self._socket = sock
        # With nothing else to wait for, the read itself waits: a poll a call less.
        self._reads_blocking = self._wake_fd is None and not isinstance(sock, ssl.SSLSocket)
        self._poller.register(sock, select.POLLIN)
        if self._wake_fd is not None:
            self._poller.register(self._wake_fd, select.POLLIN)
            self._wake_poller.register(self._wake_fd, select.POLLIN)

    def poll(self, timeout_s: float) -> bool:
        """Wait up to ``timeout_s`` for bytes, take what came, run what is due; may end early.

        Return whether there was anything but messages: another frame, or a timer. Raises
        :attr:`failure` when the connection is gone.
        """
        if self.failure is not None:
            raise self.failure
        if self._timers:
            timeout_s = min(timeout_s, max(0.0, self._timers[0][0] - time.monotonic()))
        has_more = False
        if self._left:
            left, self._left = self._left, []
            has_more, timeout_s = self._handle(left), 0.0
        if (self._reads_blocking and timeout_s >= RECEIVE_TIMEOUT_S) or self._is_readable(
            timeout_s
        ):
            has_more = self._read() or has_more
        if self._timers and self._timers[0][0] <= time.monotonic():
            self._run_timers()
            has_more = True
        if self.failure is not None:
            raise self.failure
        return has_more

    @property
    def descriptor(self) -> int | None:
        """The socket's, for :meth:`take_messages`. None: the connection is gone, or over TLS.

        TLS may hold bytes that the socket does not tell of.
        """
        sock = self._socket
        return None if sock is None or isinstance(sock, ssl.SSLSocket) else sock.fileno()

    @property
    def timer_at(self) -> float:
        """When :meth:`poll` has a timer to run, monotonic seconds."""
        return self._timers[0][0] if self._timers else math.inf

    def wait_for_wake(self, timeout_s: float) -> None:
        """Wait up to ``timeout_s`` for a byte in ``wake_fd``, and for nothing else."""
        if self._wake_poller.poll(timeout_s * 1000):
            assert self._wake_fd is not None
            os.read(self._wake_fd, 4096)

    def take_messages(self, channel: int, most_bytes: int) -> bool:
        """Take the messages of ``channel``, none of over ``most_bytes``; never waits.

        Return whether :meth:`poll` has something to do: anything else has come, or the end. For
        another thread, while the owner waits for nothing but :meth:`wait_for_wake`.
        """
        try:
            data = self._receive(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        if not data:
            return True
        self.bytes_received += len(data)
        items = self._reader.feed(data)
        for number, item in enumerate(items):
            if (
                isinstance(item, Delivery)
                and item.channel == channel
                and item.body_size <= most_bytes
            ):
                self._on_delivery(item)
            else:
                self._left = items[number:]
                return True
        return False

    def has_news(self) -> bool:
        """Whether :meth:`poll` would find something now: bytes, the end, or a timer that is due.

        At half the price of a poll. Over TLS that cannot be told, and the answer is yes.
        """
        sock = self._socket
        if sock is None or isinstance(sock, ssl.SSLSocket):
            return True
        if self._timers and self._timers[0][0] <= time.monotonic():
            return True
        try:
            sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def has_ended(self) -> bool:
        """Whether the broker or the network has ended the stream, as far as is known. Any thread.

        The owner may not have seen it yet.
        """
        sock = self._socket
        try:
            # Not the method of a TLS socket: of its bytes only the end is of interest.
            flags = socket.MSG_PEEK | socket.MSG_DONTWAIT
            return sock is None or not socket.socket.recv(sock, 1, flags)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def send(self, frames: bytes | Sequence[Piece]) -> None:
        """Write whole frames; raises ``OSError`` when the connection is gone. Thread-safe.

        It is a ``NotSentError`` when none of them can have reached the broker.
        """
        pieces = [frames] if isinstance(frames, bytes) else frames
        if len(pieces) > 1 and sum(map(len, pieces)) <= MAX_FRAME_BYTES:
            pieces = [b"".join(pieces)]
        with self._send_lock:
            if self._socket is None:
                raise NotSentError("the broker connection is closed")
            try:
                sent = self._socket.send(pieces[0])
            except OSError as error:
                raise NotSentError(str(error)) from error
            if sent < len(pieces[0]):
                self._socket.sendall(memoryview(pieces[0])[sent:])
            if len(pieces) > 1:
                _send_rest(self._socket, pieces)

    def abort(self) -> None:
        """Drop the socket. Idempotent."""
        with self._send_lock:
            sock, self._socket = self._socket, None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> int:
        """Have :meth:`poll` run ``callback`` after ``delay_s``; return the number of the timer."""
        timer_id = next(self._timer_ids)
        heapq.heappush(self._timers, (time.monotonic() + delay_s, timer_id, callback))
        return timer_id

    def remove_timer(self, timer_id: object) -> None:
        """Forget a timer, if it is there."""
        self._timers = [timer for timer in self._timers if timer[1] != timer_id]
        heapq.heapify(self._timers)

    # --- inside

    def _is_readable(self, timeout_s: float) -> bool:
        sock = self._socket
        if sock is None:
            raise ConnectionError("the broker connection is closed")
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return True
        ready = [descriptor for descriptor, _ in self._poller.poll(timeout_s * 1000)]
        if self._wake_fd in ready:
            os.read(self._wake_fd, 4096)
        return sock.fileno() in ready

    def _read(self) -> bool:
        """Take what has come; return whether any of it was no message."""
        try:
            data = self._receive()
            if not data:
                raise ConnectionResetError("the broker closed the connection")
        except (BlockingIOError, ssl.SSLWantReadError):
            return False  # nothing within RECEIVE_TIMEOUT_S, or a TLS record without data
        except OSError as error:
            self._on_lost(error)
            return True
        self.bytes_received += len(data)
        return self._handle(self._reader.feed(data))

    def _handle(self, items: list[Delivery | bytes]) -> bool:
        reason, has_more = self.blocked_reason, False
        for item in items:
            if isinstance(item, Delivery):
                self._on_delivery(item)
            else:
                self._on_frame(item)
                has_more = True
        if self.blocked_reason != reason:  # an alarm that is over already is no news
            self._on_alarm(self.blocked_reason)
        return has_more

    def _receive(self, flags: int = 0) -> bytes:
        sock = self._socket
        assert sock is not None
        if not isinstance(sock, ssl.SSLSocket):
            # Into a buffer that stays: a fresh one of this size is mapped and unmapped each time.
            return self._scratch[: sock.recv_into(self._scratch, 0, flags)].tobytes()
        # OpenSSL does not let one thread read while another writes, and what made the socket
        # readable may hold no data: read under the writers' lock, and never wait there.
        with self._send_lock:
            sock.settimeout(0.0)
            try:
                return sock.recv(_READ_SIZE)
            finally:
                sock.settimeout(None)

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()


def _send_rest(sock: socket.socket, pieces: Sequence[Piece]) -> None:
    """Write all pieces but the first, as many at a time as the kernel takes."""
    for start in range(1, len(pieces), _PIECES_AT_ONCE):
        some = pieces[start : start + _PIECES_AT_ONCE]
        if isinstance(sock, ssl.SSLSocket):  # it has no sendmsg
            for piece in some:
                sock.sendall(piece)
            continue
        sent = sock.sendmsg(some)
        for piece in some:
            if sent < len(piece):
                sock.sendall(memoryview(piece)[sent:])
            sent = max(0, sent - len(piece))


def _limit_waits(sock: socket.socket) -> None:
    """Let the kernel end reads and writes that block: no poll before each, as timeouts have."""
    for option, limit_s in (
        (socket.SO_SNDTIMEO, SEND_TIMEOUT_S),
        (socket.SO_RCVTIMEO, RECEIVE_TIMEOUT_S),
    ):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", int(limit_s), 0))
