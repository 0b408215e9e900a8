"""A gunicorn worker with one blocking thread a connection.

gunicorn's gthread waits for each request in one thread and serves it in another; for calls of a
third of a millisecond the poller and the two hand-overs are half the work. Here a connection has
its thread until it ends, and "a broker connection per thread" means per caller. Everything else
(parsing, WSGI, limits, hooks) is gthread's.
"""

from __future__ import annotations

import contextlib
import http
import logging
import os
import queue
import select
import socket
import struct
import threading
import time
from typing import Any

from gunicorn.http import errors as http_errors
from gunicorn.workers.gthread import TConn, ThreadWorker

from lambda_protocol.errors import BadRequestException, ServiceException
from lambda_protocol.invocation import new_request_id
from lambda_protocol.invoke_http import HttpResponse, encode_error

logger = logging.getLogger(__name__)


class ConnectionWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gthread, with ``worker_connections`` threads at most and none of them idle in a pool.

    A thread whose connection has ended takes the next one; the last to be free is the first to
    be used, so that few broker connections serve many short-lived callers.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what gunicorn gives every worker."""
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()
        self._free: list[queue.SimpleQueue[TConn | None]] = []  # guarded by _lock
        self._threads = 0  # guarded by _lock
        self._connections: dict[TConn, bool] = {}  # connection → serving a request; guarded

    def handle_exit(self, sig: int, frame: object) -> None:
        """Begin a graceful stop; the accept loop sees it within its own wait."""
        self.alive = False

    def run(self) -> None:
        """Accept until told to stop, then let what is in hand end."""
        poller = select.poll()
        for listener in self.sockets:
            listener.setblocking(False)
            poller.register(listener, select.POLLIN)
        poller.register(self.PIPE[0], select.POLLIN)  # a signal ends the wait
        listeners = {listener.fileno(): listener for listener in self.sockets}
        while self.alive:
            self.notify()
            for descriptor, _ in poller.poll(1000):
                if descriptor in listeners:
                    self._accept(listeners[descriptor])
                else:
                    os.read(descriptor, 4096)
            if not self.is_parent_alive():
                break
        for listener in self.sockets:
            listener.close()
        self._finish()

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer a request that never reached the application, in the shape every SDK reads."""
        with contextlib.suppress(OSError):
            client.sendall(_render(_error_response(exc)))
            client.shutdown(socket.SHUT_WR)
            _discard(client)

    def _accept(self, listener: Any) -> None:
        with self._lock:
            if not self._free and self._threads >= self.worker_connections:
                return  # the backlog holds it until a connection ends
        try:
            client, address = listener.accept()
        except OSError:
            return
        connection = TConn(self.cfg, client, address, listener.getsockname())
        with self._lock:
            self._connections[connection] = False
            inbox = self._free.pop() if self._free else None
            if inbox is None:
                self._threads += 1
        if inbox is not None:
            inbox.put(connection)
        else:
            threading.Thread(
                target=self._run_thread, args=(connection,), name="connection", daemon=True
            ).start()

    def _run_thread(self, connection: TConn) -> None:
        inbox: queue.SimpleQueue[TConn | None] = queue.SimpleQueue()
        following: TConn | None = connection
        while following is not None:
            self._serve(following)
            with self._lock:
                del self._connections[following]
                self._free.append(inbox)
            following = inbox.get()

    def _serve(self, connection: TConn) -> None:
        """Serve one connection to its end."""
        request = None
        try:
            connection.sock.setblocking(True)
            limit = struct.pack("@ll", int(self.cfg.keepalive) or 1, 0)
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            connection.init()
            while True:
                request = None
                request = next(connection.parser)
                self._connections[connection] = True
                keeps = self._keepalive_after(connection, self.handle_request(request, connection))
                self._connections[connection] = False
                if not keeps or not self.alive:
                    break
        except (http_errors.NoMoreData, StopIteration, OSError):
            pass  # the peer closed, went idle for longer than keepalive, or stalled
        except Exception as error:
            self.handle_error(request, connection.sock, connection.client, error)
        finally:
            with contextlib.suppress(OSError):
                connection.close()

    def _finish(self) -> None:
        """Wait for the requests in hand, for graceful_timeout at most; drop idle connections."""
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while time.monotonic() < deadline:
            self.notify()
            with self._lock:
                connections = dict(self._connections)
            if not connections:
                return
            for connection, is_busy in connections.items():
                if not is_busy:
                    with contextlib.suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RD)
            select.select([], [], [], 0.02)


def _error_response(exc: Exception) -> HttpResponse:
    if not isinstance(exc, http_errors.ParseException | http_errors.ForbiddenProxyRequest):
        logger.error("request failed below the application", exc_info=exc)
        return encode_error(ServiceException("An internal error occurred."), new_request_id())
    response = encode_error(BadRequestException(str(exc)[:500]), new_request_id())
    if isinstance(exc, http_errors.LimitRequestHeaders | http_errors.LimitRequestLine):
        return response._replace(status=431)
    return response


def _render(response: HttpResponse) -> bytes:
    headers = [*response.headers, ("Content-Length", str(len(response.body)))]
    reason = http.HTTPStatus(response.status).phrase
    lines = [f"HTTP/1.1 {response.status} {reason}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + response.body


def _discard(client: socket.socket) -> None:
    """Read what the peer still sends, a little: a reset would take the answer from it."""
    client.settimeout(1.0)
    for _ in range(256):
        if not client.recv(65_536):
            return
