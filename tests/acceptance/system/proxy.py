"""A TCP relay between our programs and their broker, for what a network does to a connection."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Self

import pika.amqp_object
import pika.frame

from devtools.ports import LOOPBACK

_RESET = struct.pack("ii", 1, 0)  # linger for no time: close() sends a reset
_JOIN_LIMIT_S = 5.0


class Proxy:
    """Relays connections to a loopback port, and can cut them or hold back what they carry.

    Thread-safe. Keeps what each client has sent.
    """

    def __init__(self, target_port: int, *, port: int = 0) -> None:
        self._target_port = target_port
        self._listener = socket.create_server((LOOPBACK, port))
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []  # guarded by _lock
        self._sent: list[bytearray] = []  # guarded by _lock; by connection, in order
        self._threads: list[threading.Thread] = []  # guarded by _lock
        self._flows = threading.Event()
        self._answers_flow = threading.Event()
        self._last_answered: tuple[type[pika.amqp_object.Method], int] | None = None
        self.release()
        self._open = threading.Condition(self._lock)
        self._start(self._accept)

    @property
    def port(self) -> int:
        """Where clients connect."""
        return int(self._listener.getsockname()[1])

    @property
    def connections(self) -> int:
        """How many connections are open."""
        with self._lock:
            return len(self._pairs)

    @property
    def accepted(self) -> int:
        """How many connections there ever were."""
        with self._lock:
            return len(self._sent)

    @property
    def methods(self) -> list[pika.amqp_object.Method]:
        """The AMQP methods that the clients have sent, connection by connection."""
        with self._lock:
            streams = [bytes(sent) for sent in self._sent]
        return [method for stream in streams for method in _methods(stream)]

    def count(self, method: type[pika.amqp_object.Method]) -> int:
        """Return how often the clients have sent this method."""
        return sum(isinstance(sent, method) for sent in self.methods)

    def wait_ended(self, limit_s: float) -> bool:
        """Wait until a connection has ended; False when none has within ``limit_s``."""
        with self._lock:
            return self._open.wait_for(lambda: len(self._pairs) < len(self._sent), limit_s)

    def cut(self) -> None:
        """Reset every connection, and return when that is done; new ones are relayed."""
        with self._lock:
            pairs = list(self._pairs)
            for pair in pairs:
                _stop_reading(*pair)  # so the relaying threads end, and close without a goodbye
            self._open.wait_for(
                lambda: not any(pair in self._pairs for pair in pairs), _JOIN_LIMIT_S
            )

    def hold(self) -> None:
        """Pass nothing on, either way, and tell nobody: a network that swallows packets."""
        self._flows.clear()

    def hold_answers_after(self, method: type[pika.amqp_object.Method], count: int) -> None:
        """Once clients have sent this method so often, pass on what they send, and no answer."""
        self._last_answered = (method, count)

    def release(self) -> None:
        """Pass on what was held back, and everything from now on."""
        self._last_answered = None
        self._flows.set()
        self._answers_flow.set()

    def close(self) -> None:
        """End everything. Idempotent."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.release()
        self.cut()
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(_JOIN_LIMIT_S)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._flows.wait()
            try:
                target = socket.create_connection((LOOPBACK, self._target_port), 5)
            except OSError:
                client.close()
                continue
            for end in (client, target):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sent = bytearray()
            with self._lock:
                self._pairs.append((client, target))
                self._sent.append(sent)
            self._start(self._relay_both, client, target, sent)

    def _relay_both(self, client: socket.socket, target: socket.socket, sent: bytearray) -> None:
        back = self._start(self._relay, target, client, None)
        self._relay(client, target, sent)
        back.join()
        for end in (client, target):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()
        with self._lock:
            self._pairs.remove((client, target))
            self._open.notify_all()

    def _relay(self, source: socket.socket, sink: socket.socket, record: bytearray | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._flows.wait()
                if record is None:
                    self._answers_flow.wait()
                else:
                    with self._lock:
                        record += data
                    last = self._last_answered
                    if last is not None and self.count(last[0]) >= last[1]:
                        self._answers_flow.clear()
                sink.sendall(data)
        _stop_reading(source, sink)

    def _start(self, target: object, *arguments: object) -> threading.Thread:
        assert callable(target)
        thread = threading.Thread(target=target, args=arguments, name="proxy", daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()
        return thread

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _stop_reading(*ends: socket.socket) -> None:
    """End whoever waits for bytes there; the peer is told nothing."""
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RD)


def _methods(stream: bytes) -> list[pika.amqp_object.Method]:
    """Return the methods in what one client sent; a frame cut off at the end is left out."""
    methods = []
    while stream:
        consumed, frame = pika.frame.decode_frame(stream)
        if not consumed:
            break
        if isinstance(frame, pika.frame.Method):
            methods.append(frame.method)
        stream = stream[consumed:]
    return methods
