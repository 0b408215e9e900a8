"""A gunicorn worker with one blocking thread a connection in use.

gunicorn's gthread waits for each request in one thread and serves it in another, and parses at
twice the price of the call it then makes. Here a connection keeps its thread while requests come.
A connection that is idle is the poller's, and requests are read by the code that rapid reads them
with.
The rest is gthread's: the arbiter, signals, TLS, ``graceful_timeout``,
``keepalive``, ``worker_connections``, ``max_requests``, access logs. Hooks of single requests
need ``-k gthread``, which serves the same application.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import math
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from gunicorn.sock import ssl_wrap_socket
from gunicorn.workers.gthread import TConn, ThreadWorker

from lambda_protocol.byte_budget import ByteBudget
from lambda_protocol.descriptors import SpareDescriptor, descriptor_limit
from lambda_protocol.http1 import Request, RequestReader
from lambda_protocol.http_head import BadRequestError
from lambda_protocol.http_peer import has_ended
from lambda_protocol.limits import SYNC_PAYLOAD_BYTES
from lambda_protocol.pace import Pace
from lambda_protocol.places import Places
from lambda_protocol.poller import Poller
from lambda_protocol.reserve import SIZE, Reserve
from lambda_server.config import Config
from lambda_server.wsgi_gateway import REFUSAL, WsgiGateway

logger = logging.getLogger(__name__)

#: What is used of gunicorn's gthread worker beside gunicorn's documented settings and hooks. A test
#: looks for it by name.
GUNICORN_PRIVATE: Final = {
    ThreadWorker: ("init_process", "run", "notify", "is_parent_alive", "handle_exit"),
    TConn: ("__init__",),
}

#: What a worker has open besides: the reserve's connections, listeners, the arbiter's pipes,
#: metrics' files, imports.
_OTHER_DESCRIPTORS: Final = 96 + SIZE
#: How long a thread waits for the next request of its connection, seconds.
LINGER_S: Final = 1.0
#: How long a thread without a connection waits for one, seconds, and how many never end.
IDLE_THREAD_S: Final = 10.0
KEPT_THREADS: Final = 8
#: How often the log tells that connections are refused, seconds.
_WARN_EVERY_S: Final = 10.0


class Connection:
    """A client's connection: idle at the poller, or in use by a thread."""

    def __init__(self, worker: ConnectionWorker, accepted: TConn) -> None:
        """Own what ``worker`` has accepted."""
        self.worker = worker
        self.accepted = accepted
        self.is_polled = False
        self.is_busy = False  #: serves a request
        self.may_refuse = True  #: no answer has begun
        #: What a thread does first, as :meth:`ConnectionWorker.serve_next`, where that is known.
        self.work: Callable[[], bool] | None = None

    @property
    def sock(self) -> socket.socket:
        """The socket, in TLS once its thread has begun that."""
        sock: socket.socket = self.accepted.sock
        return sock

    def make_reader(self, **options: Any) -> RequestReader:
        """Return what a thread reads requests with."""
        return RequestReader(self.sock, **options)

    @property
    def is_idle(self) -> bool:
        """Whether nothing of a request has been read."""
        return not self.is_busy

    def on_ready(self) -> None:
        """Give the connection a thread."""
        self.worker.give_thread(self)

    def on_slow(self) -> None:
        """Close what was idle for keepalive."""
        self.close()

    def close(self) -> None:
        """Close what the poller has."""
        self.worker.leave_poller(self)
        self.worker.forget(self)


class ConnectionWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gthread, with ``worker_connections`` connections, and threads, at most.

    A thread whose connection has ended takes the next one; the last to be free is the first to
    be used, so that few broker connections serve many short-lived callers.
    """

    PACE = Pace()  #: of clients, but for keepalive

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what gunicorn gives every worker."""
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()
        self._free: list[queue.SimpleQueue[Connection]] = []  # guarded by _lock
        self._connections: set[Connection] = set()  # guarded by _lock
        self._warned_at = -math.inf
        self.pace = replace(self.PACE, idle_s=self.cfg.keepalive or 1)

    def open(self) -> None:
        """Open what belongs to this process; gunicorn makes the worker before it forks."""
        config = Config.from_environ(os.environ)
        self.budget = ByteBudget(config.worker_bytes_in_hand)
        self.gateway = WsgiGateway(
            self,
            pace=self.pace,
            limit_bytes=self.budget.limit_bytes,
            is_ending=lambda: not self.alive or not self.cfg.keepalive,
        )
        self._spare = SpareDescriptor()
        self._places = Places(min(self.worker_connections, _threads_that_fit(config)))
        self._reserve = Reserve(
            "server", self.gateway.answer_health, REFUSAL, pace=self.pace, answers_block=True
        )
        self._listeners: dict[int, Any] = {}  # by descriptor
        for listener in self.sockets:
            listener.setblocking(False)
            name = listener.getsockname()
            if config.health_port is not None and name[1:2] == (config.health_port,):
                self._reserve.listen(listener)
            else:
                self._listeners[listener.fileno()] = listener
        self._reserve.start()
        self.poller = Poller()
        self.poller.start()

    def handle_exit(self, sig: int, frame: object) -> None:
        """Begin a graceful stop; the signal itself ends the accept loop's wait."""
        self.alive = False

    def run(self) -> None:
        """Accept until told to stop, then let what is in hand end."""
        gc.freeze()  # the application stays: the collector need not look at it again
        self.open()
        poller = select.poll()
        for listener in self._listeners.values():
            poller.register(listener, select.POLLIN)
        poller.register(self.PIPE[0], select.POLLIN)
        while self.alive and self.is_parent_alive():
            self.notify()
            for descriptor, _ in poller.poll(1000):
                if descriptor not in self._listeners:
                    os.read(descriptor, 4096)
                    continue
                try:
                    self._accept(self._listeners[descriptor])
                except Exception:
                    logger.exception("a connection was not accepted")
        for listener in self.sockets:
            listener.close()
        self._finish()
        self._reserve.stop()

    def _accept(self, listener: Any) -> None:
        try:
            client, address = listener.accept()
        except OSError as error:
            self._spare.refuse_if_exhausted(error, listener, REFUSAL)
            return
        if not self._places.take():
            self._warn("too many connections")
            self._turn_away(client)
            return
        connection = self.make_connection(TConn(self.cfg, client, address, listener.getsockname()))
        with self._lock:
            self._connections.add(connection)
        if not self._begin_idle(connection):
            self.forget(connection)

    def make_connection(self, accepted: TConn) -> Connection:
        """Return the connection that was accepted."""
        return Connection(self, accepted)

    def _begin_idle(self, connection: Connection) -> bool:
        """Let the poller wait for the next request; False if there shall be none."""
        if not self.alive:
            return False
        connection.is_polled = True
        self.poller.expect(connection, self.pace.idle_s)
        return self.poller.watch(connection.sock.fileno(), connection)

    def leave_poller(self, connection: Connection) -> None:
        """Take a connection from the poller. Idempotent."""
        if connection.is_polled:
            connection.is_polled = False
            self.poller.forget(connection.sock.fileno(), connection)

    def give_thread(self, connection: Connection) -> None:
        """Let a thread serve the connection; the poller's thread."""
        self.leave_poller(connection)
        with self._lock:
            inbox = self._free.pop() if self._free else None
        if inbox is not None:
            inbox.put(connection)
            return
        try:
            threading.Thread(
                target=self._run_thread, args=(connection,), name="connection", daemon=True
            ).start()
        except (RuntimeError, MemoryError) as error:
            self._warn("no thread for a connection", error=str(error))
            if connection.work is not None:  # its request has been read
                if connection.may_refuse:
                    with contextlib.suppress(OSError):
                        connection.sock.send(REFUSAL, socket.MSG_DONTWAIT)
                connection.close()
                return
            with self._lock:
                self._connections.remove(connection)
            self._places.give_back()
            self._turn_away(connection.sock)

    def _warn(self, message: str, **data: str) -> None:
        """Log why connections are refused, now and then."""
        now = time.monotonic()
        if now - self._warned_at > _WARN_EVERY_S:
            self._warned_at = now
            logger.warning(message, extra=data)

    def _turn_away(self, client: socket.socket) -> None:
        """Refuse a connection, but for its health check."""
        if self.cfg.is_ssl:
            client.close()  # in the clear nothing can be said
        else:
            self._reserve.take(client)

    def _run_thread(self, connection: Connection) -> None:
        inbox: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        while True:
            try:
                if not self._serve(connection) or not self._begin_idle(connection):
                    self.forget(connection)
            except Exception:
                logger.exception("connection failed")
                self.forget(connection)
            with self._lock:
                self._free.append(inbox)
            next_connection = self._next(inbox)
            if next_connection is None:
                return
            connection = next_connection

    def _next(self, inbox: queue.SimpleQueue[Connection]) -> Connection | None:
        """Wait for a connection; None for a thread that has been of no use for long enough."""
        while True:
            with contextlib.suppress(queue.Empty):
                return inbox.get(timeout=IDLE_THREAD_S)
            with self._lock:
                if inbox in self._free and len(self._free) > KEPT_THREADS:
                    self._free.remove(inbox)
                    return None

    def forget(self, connection: Connection) -> None:
        """Close a connection that no thread serves. Idempotent."""
        with self._lock:
            if connection not in self._connections:
                return
            self._connections.remove(connection)
        with contextlib.suppress(OSError):
            connection.accepted.close()
        self._places.give_back()

    def _serve(self, connection: Connection) -> bool:
        """Serve a connection while requests come; True if it is idle, False if it is to end."""
        sock = connection.sock
        sock.settimeout(self.pace.head_s if self.cfg.is_ssl else None)
        try:
            if self.cfg.is_ssl:
                sock = connection.accepted.sock = ssl_wrap_socket(sock, self.cfg)
                sock.do_handshake()
            self.pace.limit_waits(sock)
            reader = connection.make_reader(
                max_body_bytes=SYNC_PAYLOAD_BYTES, pace=self.pace, budget=self.budget
            )
            serve_next = functools.partial(self._serve_next, connection, reader)
            work, connection.work = connection.work or serve_next, None
            try:
                while work():
                    if self._is_idle(sock, reader):
                        return True
                    work = serve_next
            except BadRequestError as error:
                self.gateway.refuse(connection.accepted, error)
                sock.shutdown(socket.SHUT_WR)
                reader.discard()
        except OSError:  # the peer closed, or is too slow
            pass
        return False

    def _is_idle(self, sock: socket.socket, reader: RequestReader) -> bool:
        """Wait a little for the next request. Over TLS the thread stays."""
        if self.cfg.is_ssl or reader.in_hand:
            return False
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        return not poller.poll(LINGER_S * 1000)

    def _serve_next(self, connection: Connection, reader: RequestReader) -> bool:
        request = reader.read_head()
        if request is None:
            return False
        connection.is_busy = True
        reader.read_body(request)
        self.serve(connection, request)
        if request.is_last and (request.is_oversize or request.is_truncated):
            reader.discard()
        return not request.is_last

    def count_request(self) -> None:
        """Note a request, which may be the last that this process serves."""
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False

    def serve(self, connection: Connection, request: Request) -> None:
        """Answer ``request`` by the application; a thread."""
        self.count_request()
        self.gateway.serve(connection.accepted, request)
        connection.is_busy = False

    def _finish(self) -> None:
        """Wait for the requests in hand, for graceful_timeout at most; drop idle connections."""
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while time.monotonic() < deadline:
            self.notify()
            with self._lock:
                connections = list(self._connections)
            if not connections:
                break
            self.poller.call(functools.partial(self._close_idle, connections))
            for connection in connections:
                if not connection.is_busy and not connection.is_polled:
                    with contextlib.suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RD)
            time.sleep(0.02)
        self.poller.stop()

    @staticmethod
    def _close_idle(connections: Iterable[Connection]) -> None:
        """Close what nothing has come from; the poller's thread."""
        for connection in connections:
            if connection.is_polled and connection.is_idle and not has_ended(connection.sock):
                connection.close()


def _threads_that_fit(config: Config) -> int:
    """Return for how many threads that serve a connection there are descriptors."""
    return max(1, (descriptor_limit() - _OTHER_DESCRIPTORS) // config.descriptors_per_call)
