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
import datetime
import functools
import gc
import io
import logging
import math
import os
import queue
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from email.utils import formatdate
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from gunicorn.sock import ssl_wrap_socket
from gunicorn.workers.gthread import TConn, ThreadWorker

from lambda_protocol.answers_in_hand import AnswersInHand
from lambda_protocol.byte_budget import ByteBudget, too_many_bytes
from lambda_protocol.descriptors import SpareDescriptor, descriptor_limit
from lambda_protocol.errors import (
    BadRequestException,
    LambdaApiError,
    ServiceException,
    ServiceUnavailable,
)
from lambda_protocol.http1 import (
    BadRequestError,
    Request,
    RequestReader,
    encode_head,
)
from lambda_protocol.invocation import new_request_id
from lambda_protocol.invoke_http import HttpResponse, encode_error
from lambda_protocol.limits import SYNC_PAYLOAD_BYTES
from lambda_protocol.pace import Pace
from lambda_protocol.places import Places
from lambda_protocol.poller import Poller
from lambda_protocol.reserve import SIZE, Reserve
from lambda_server.caller import IS_COUNTED
from lambda_server.config import Config

logger = logging.getLogger(__name__)

#: What is used of gunicorn's gthread worker beside gunicorn's documented settings and hooks. A test
#: looks for it by name.
GUNICORN_PRIVATE: Final = {
    ThreadWorker: ("init_process", "run", "notify", "is_parent_alive", "handle_exit"),
    TConn: ("__init__",),
}

#: A longer body is not copied for one write with its head, bytes.
_JOINED_BYTES: Final = 65_536
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


class _Connection:
    """A client's connection: idle at the poller, or in use by a thread."""

    def __init__(self, worker: ConnectionWorker, accepted: TConn) -> None:
        self._worker = worker
        self.accepted = accepted
        self.is_idle = False
        self.is_busy = False  # serves a request

    @property
    def sock(self) -> socket.socket:
        """The socket, in TLS once its thread has begun that."""
        sock: socket.socket = self.accepted.sock
        return sock

    def on_ready(self) -> None:
        """Give the connection a thread."""
        self._worker.end_idle(self)
        self._worker.give_thread(self)

    def on_slow(self) -> None:
        """Close what was idle for keepalive."""
        self.close()

    def close(self) -> None:
        """Close what is idle."""
        self._worker.end_idle(self)
        self._worker.forget(self)


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
        self._free: list[queue.SimpleQueue[_Connection]] = []  # guarded by _lock
        self._connections: set[_Connection] = set()  # guarded by _lock
        self._warned_at = -math.inf
        self._pace = replace(self.PACE, idle_s=self.cfg.keepalive or 1)

    def _open(self) -> None:
        """Open what belongs to this process; gunicorn makes the worker before it forks."""
        config = Config.from_environ(os.environ)
        self._budget = ByteBudget(config.worker_bytes_in_hand)
        self._answers = AnswersInHand(self._budget.limit_bytes)
        self._spare = SpareDescriptor()
        self._places = Places(min(self.worker_connections, _threads_that_fit(config)))
        self._reserve = Reserve(
            "server", self._answer_health, _REFUSAL, pace=self._pace, answers_block=True
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
        self._poller = Poller("idle")
        self._poller.start()

    def handle_exit(self, sig: int, frame: object) -> None:
        """Begin a graceful stop; the signal itself ends the accept loop's wait."""
        self.alive = False

    def run(self) -> None:
        """Accept until told to stop, then let what is in hand end."""
        gc.freeze()  # the application stays: the collector need not look at it again
        self._open()
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
            self._spare.refuse_if_exhausted(error, listener, _REFUSAL)
            return
        if not self._places.take():
            self._turn_away(client, "too many connections")
            return
        connection = _Connection(self, TConn(self.cfg, client, address, listener.getsockname()))
        with self._lock:
            self._connections.add(connection)
        if not self._begin_idle(connection):
            self.forget(connection)

    def _begin_idle(self, connection: _Connection) -> bool:
        """Let the poller wait for the next request; False if there shall be none."""
        if not self.alive:
            return False
        connection.is_idle = True
        self._poller.expect(connection, self._pace.idle_s)
        return self._poller.watch(connection.sock.fileno(), connection)

    def end_idle(self, connection: _Connection) -> None:
        """Take a connection from the poller. Idempotent."""
        if connection.is_idle:
            connection.is_idle = False
            self._poller.forget(connection.sock.fileno())

    def give_thread(self, connection: _Connection) -> None:
        """Let a thread serve the connection; the poller's thread."""
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
            with self._lock:
                self._connections.remove(connection)
            self._places.give_back()
            self._turn_away(connection.sock, "no thread for a connection", error=str(error))

    def _turn_away(self, client: socket.socket, reason: str, **data: str) -> None:
        """Refuse a connection, but for its health check; the accepting thread."""
        now = time.monotonic()
        if now - self._warned_at > _WARN_EVERY_S:
            self._warned_at = now
            logger.warning(reason, extra=data)
        if self.cfg.is_ssl:
            client.close()  # in the clear nothing can be said
        else:
            self._reserve.take(client)

    def _run_thread(self, connection: _Connection) -> None:
        inbox: queue.SimpleQueue[_Connection] = queue.SimpleQueue()
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

    def _next(self, inbox: queue.SimpleQueue[_Connection]) -> _Connection | None:
        """Wait for a connection; None for a thread that has been of no use for long enough."""
        while True:
            with contextlib.suppress(queue.Empty):
                return inbox.get(timeout=IDLE_THREAD_S)
            with self._lock:
                if inbox in self._free and len(self._free) > KEPT_THREADS:
                    self._free.remove(inbox)
                    return None

    def forget(self, connection: _Connection) -> None:
        """Close a connection that no thread serves. Idempotent."""
        with self._lock:
            if connection not in self._connections:
                return
            self._connections.remove(connection)
        with contextlib.suppress(OSError):
            connection.accepted.close()
        self._places.give_back()

    def _serve(self, connection: _Connection) -> bool:
        """Serve a connection while requests come; True if it is idle, False if it is to end."""
        sock = connection.sock
        sock.settimeout(self._pace.head_s if self.cfg.is_ssl else None)
        try:
            if self.cfg.is_ssl:
                sock = connection.accepted.sock = ssl_wrap_socket(sock, self.cfg)
                sock.do_handshake()
            self._pace.limit_waits(sock)
            reader = RequestReader(
                sock,
                max_body_bytes=SYNC_PAYLOAD_BYTES,
                pace=self._pace,
                budget=self._budget,
            )
            try:
                while self._serve_one(connection, reader):
                    if self._is_idle(sock, reader):
                        return True
            except BadRequestError as error:
                self._refuse(connection, error)
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

    def _serve_one(self, connection: _Connection, reader: RequestReader) -> bool:
        request = reader.read_head()
        if request is None:
            return False
        connection.is_busy = True
        started = time.monotonic()
        reader.read_body(request)
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        response = _Response(functools.partial(self._send, connection.sock), request)
        environ = self._environ(connection.accepted, request)
        try:
            chunks = self.wsgi(environ, response.start)
            if not self.alive or not self.cfg.keepalive:  # the stop may have begun during the call
                request.is_last = True
            response.send(chunks)
        finally:
            request.release()
            took = datetime.timedelta(seconds=time.monotonic() - started)
            self.log.access(response, request, environ, took)
        if request.is_last and (request.is_oversize or request.is_truncated):
            reader.discard()
        connection.is_busy = False
        return not request.is_last

    def _send(self, sock: socket.socket, data: bytes) -> None:
        if len(data) <= _JOINED_BYTES:
            self._pace.send(sock, data)
            return
        self._answers.add(sock, len(data))
        try:
            self._pace.send(sock, data)
        finally:
            self._answers.remove(sock)

    def _answer_health(self, request: Request) -> bytes:
        """Return the response to a request that the reserve has read."""
        written: list[bytes] = []
        response = _Response(written.append, request)
        response.send(self.wsgi(self._environ(None, request), response.start))
        return b"".join(written)

    def _environ(self, connection: TConn | None, request: Request) -> dict[str, Any]:
        """Return the WSGI environment of ``request``. Source: PEP 3333."""
        environ = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": _decoded(request.path),
            "QUERY_STRING": request.query,
            "RAW_URI": f"{request.path}?{request.query}" if request.query else request.path,
            "SERVER_PROTOCOL": request.version,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "REMOTE_ADDR": "",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if self.cfg.is_ssl else "http",
            "wsgi.input": io.BytesIO(request.body),
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": self.cfg.workers > 1,
            "wsgi.run_once": False,
            IS_COUNTED: True,
            "gunicorn.socket": connection
            and connection.sock,  # by which a caller that hangs up is noticed
        }
        if connection and isinstance(connection.client, tuple):  # not a Unix socket
            environ["REMOTE_ADDR"] = connection.client[0]
            environ["SERVER_NAME"] = connection.server[0]
            environ["SERVER_PORT"] = str(connection.server[1])
        for name, value in request.headers.items():
            environ[_wsgi_name(name)] = value
        # The body is here, decoded: its length is known, however it came. One that broke off is
        # announced, and is not here: so the application sees that it is short.
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        environ["CONTENT_LENGTH"] = str(max(request.body_size, int(request.is_truncated)))
        return environ

    def _refuse(self, connection: _Connection, error: BadRequestError) -> None:
        """Answer bytes that never became a request."""
        head, body = _render(error)
        self._pace.send(connection.sock, head + body)
        environ = dict.fromkeys(("REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL"), "-")
        client = connection.accepted.client
        if isinstance(client, tuple):
            environ["REMOTE_ADDR"] = client[0]
        response = SimpleNamespace(status=str(error.status), headers=[], sent=len(body))
        self.log.access(response, SimpleNamespace(headers={}), environ, datetime.timedelta())

    def _finish(self) -> None:
        """Wait for the requests in hand, for graceful_timeout at most; drop idle connections."""
        self._poller.stop()
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while time.monotonic() < deadline:
            self.notify()
            with self._lock:
                connections = list(self._connections)
            if not connections:
                return
            for connection in connections:
                if not connection.is_busy:
                    with contextlib.suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RD)
            time.sleep(0.02)


class _Response:
    """What the application answers, as it goes out; the access log reads the public fields."""

    def __init__(self, write: Callable[[bytes], object], request: Request) -> None:
        self._write = write
        self._request = request
        self.status = "500 Internal Server Error"  # of an application that raised
        self.headers: list[tuple[str, str]] = []
        self.sent = 0  #: bytes of the body
        self._is_started = False

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """Take status and headers; WSGI's ``start_response``."""
        if exc_info is not None and self._is_started:
            raise exc_info[1].with_traceback(exc_info[2])
        self.status, self.headers = status, headers
        return self._refuse_write

    def send(self, chunks: Iterable[bytes]) -> None:
        """Write the response: in one piece when its parts are all there, else chunk by chunk."""
        try:
            if isinstance(chunks, list | tuple) or self._has("content-length"):
                body = b"".join(chunks)
                head = self._head(len(body))
                self.sent = len(body) if self._has_body else 0
                if self.sent > _JOINED_BYTES:
                    self._write(head)
                    self._write(body)
                else:
                    self._write(head + body if self._has_body else head)
                return
            first = next(iter_chunks := iter(chunks), b"")  # starts the response
            self._write(self._head(None))
            for chunk in (first, *iter_chunks) if self._has_body else ():
                if chunk:
                    self._write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                    self.sent += len(chunk)
            self._write(b"0\r\n\r\n" if self._has_body else b"")
        finally:
            if hasattr(chunks, "close"):
                chunks.close()

    @property
    def _has_body(self) -> bool:
        return self._request.method != "HEAD" and self.status[:3] not in ("204", "304")

    def _has(self, name: str) -> bool:
        return any(header.lower() == name for header, _ in self.headers)

    def _head(self, length: int | None) -> bytes:
        self._is_started = True
        lines = [f"HTTP/1.1 {self.status}", "Server: lambda-server", f"Date: {_http_date()}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if length is None:
            lines.append("Transfer-Encoding: chunked")
        elif not self._has("content-length") and self.status[:3] != "204":
            lines.append(f"Content-Length: {length}")
        lines.append("Connection: close" if self._request.is_last else "Connection: keep-alive")
        try:
            return encode_head(lines)
        except ValueError as error:
            logger.error("response not sendable", extra={"error": error})
            raise BadRequestError(502, "the response has a header that cannot be sent") from error

    @staticmethod
    def _refuse_write(_data: bytes) -> None:
        raise NotImplementedError("return the body; Flask never calls write()")


@functools.lru_cache(maxsize=1024)
def _wsgi_name(header: str) -> str:
    name = header.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


def _decoded(path: str) -> str:
    return unquote_to_bytes(path).decode("latin-1") if "%" in path else path


def _http_date() -> str:
    return _date_of(int(time.time()))


@functools.lru_cache(maxsize=2)
def _date_of(second: int) -> str:
    return formatdate(second, usegmt=True)


def _threads_that_fit(config: Config) -> int:
    """Return for how many threads that serve a connection there are descriptors."""
    return max(1, (descriptor_limit() - _OTHER_DESCRIPTORS) // config.descriptors_per_call)


def _render(error: BadRequestError) -> tuple[bytes, bytes]:
    """Return head and body of the answer to no request, in the shape every SDK reads."""
    shown: LambdaApiError = ServiceException(str(error))
    if error.status == HTTPStatus.TOO_MANY_REQUESTS:
        shown = too_many_bytes()
    elif error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        shown = ServiceUnavailable(str(error))
    elif error.status < 500:
        shown = BadRequestException(str(error))
    response: HttpResponse = encode_error(shown, new_request_id())
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in response.headers]
    lines += [f"Content-Length: {len(response.body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1"), response.body


_REFUSAL: Final = b"".join(
    _render(BadRequestError(503, "There is no place for another connection."))
)
