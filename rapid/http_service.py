"""HTTP/1.1 on threads: one connection a thread, one :class:`Exchange` a request.

An exchange is answered once, by any thread, and answering never blocks: that is how a runtime
parked in ``next`` gets its event straight from whoever has it, and a caller its response straight
from the runtime's thread, with no hand-over between threads. ``http.server`` gives the listener
and the threads; its parsing is replaced by one that takes 1 MiB headers, chunked bodies and
trailers at a third of the cost.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import struct
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

logger = logging.getLogger(__name__)

#: Request line and headers together, bytes: AWS takes 1 MB, X-Ray causes come near it.
MAX_HEAD_BYTES: Final = 2 * 1_048_576
#: How much of a body over its limit is read and thrown away before the connection is closed.
DRAIN_BYTES: Final = 16 * 1_048_576
#: A started request must go on arriving, and a response be taken, at least this often, seconds.
STALL_TIMEOUT_S: Final = 30
MAX_HEADERS: Final = 512
_READ_SIZE: Final = 65_536

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: Control characters, and line ends that are not CRLF.
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n")
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}

Headers = tuple[tuple[str, str], ...] | list[tuple[str, str]]
JSON: Final = (("Content-Type", "application/json"),)


class Request:
    """One request, body and all."""

    __slots__ = ("body", "headers", "is_oversize", "is_truncated", "method", "path", "query")

    def __init__(self, method: str, target: str, headers: dict[str, str]) -> None:
        """Split ``target``; ``headers`` have lower-case names."""
        self.method = method
        self.path, _, self.query = target.partition("?")  #: undecoded
        self.headers = headers
        self.body = b""
        self.is_oversize = False  #: the body was over the service's limit, and is not here
        self.is_truncated = False  #: the connection ended before the body did


class Exchange:
    """A request and its one answer. Thread-safe: anyone may answer, whoever is first does."""

    __slots__ = ("_answered", "_connection", "_lock", "is_last", "on_disconnect", "request")

    def __init__(self, connection: Connection, request: Request) -> None:
        """Belongs to ``connection``, which reads the next request only after the answer."""
        self.request = request
        self.is_last = False  #: close the connection after the answer
        #: Called by the connection's thread if the peer goes away unanswered.
        self.on_disconnect: Callable[[], None] | None = None
        self._connection = connection
        self._lock = threading.Lock()
        self._answered = False

    def answer(self, status: int, headers: Headers = (), body: bytes = b"") -> bool:
        """Send the response; False when the peer is gone or somebody else answered.

        Never blocks: what the peer does not take at once is sent on from a thread of its own.
        """
        with self._lock:
            if self._answered:
                return False
            self._answered = True
        self.on_disconnect = None
        head = [f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n"]
        head += [f"{name}: {value}\r\n" for name, value in headers]
        if status != HTTPStatus.NO_CONTENT:
            head.append(f"Content-Length: {len(body)}\r\n")
        if self.is_last:
            head.append("Connection: close\r\n")
        head.append("\r\n")
        return self._connection.send_answer("".join(head).encode("latin-1") + body, self.is_last)

    @property
    def is_answered(self) -> bool:
        """Whether the response is sent or on its way."""
        return self._answered


#: Takes each exchange, in its connection's thread; answers it now or keeps it for later.
Handler = Callable[[Exchange], None]


class HttpService(ThreadingHTTPServer):
    """A listener on one address; every request goes to one handler."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(
        self,
        address: tuple[str, int],
        handler: Handler,
        *,
        name: str,
        max_body_bytes: int,
        max_connections: int = 2048,
        render_error: Callable[[int, str], tuple[Headers, bytes]],
    ) -> None:
        """Bind ``address`` (port 0: any free one); raises ``OSError`` when it is taken.

        ``render_error`` makes the answer to a request that is no HTTP, or whose handler failed.
        """
        self.handle_exchange = handler
        self.name = name
        self.max_body_bytes = max_body_bytes
        self.render_error = render_error
        self._slots = threading.BoundedSemaphore(max_connections)
        self._thread = threading.Thread(
            target=self.serve_forever, name=f"{name}-accept", daemon=True
        )
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, Connection)

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Accept connections from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Accept no more; connections that are open live on. Idempotent."""
        if self._thread.is_alive():
            self.shutdown()
        self.server_close()

    def server_bind(self) -> None:
        """Bind without asking DNS for our name: that waits 5 s where there is no /etc/hosts."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.port

    def process_request(self, request: object, client_address: object) -> None:
        """Give the connection a thread, or close it when there are too many."""
        assert isinstance(request, socket.socket)
        if not self._slots.acquire(blocking=False):
            logger.warning("too many connections", extra={"service": self.name})
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def process_request_thread(self, request: object, client_address: object) -> None:
        """Serve the connection in its own thread."""
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self._slots.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Log what a connection's thread died of."""
        logger.exception("connection failed", extra={"service": self.name})


class _BadRequestError(Exception):
    """The bytes are no request we can answer; the connection ends with ``status``."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _PeerGoneError(Exception):
    """The peer closed, or stalled."""


class Connection(BaseHTTPRequestHandler):
    """One client connection. One thread: its own; only :meth:`send_answer` is for others."""

    disable_nagle_algorithm = True
    server: HttpService

    def setup(self) -> None:
        """Take the socket as it is: requests are read from our own buffer, not a file."""
        self.socket: socket.socket = self.request
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        limit = struct.pack("@ll", STALL_TIMEOUT_S, 0)
        # The kernel's own limits: a socket timeout would cost a poll for each read and write.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._buffer = bytearray()
        self._idle = threading.Event()  # no answer is owed
        self._idle.set()
        self._exchange: Exchange | None = None

    def finish(self) -> None:
        """Nothing was opened that needs closing."""

    def handle(self) -> None:
        """Serve requests until the peer or an error ends the connection."""
        try:
            while self._serve_one():
                pass
        except _BadRequestError as error:
            self._refuse(error)
        except (_PeerGoneError, OSError):
            pass
        finally:
            exchange = self._exchange
            if exchange is not None and not exchange.is_answered:
                on_disconnect = exchange.on_disconnect
                if on_disconnect is not None:
                    on_disconnect()

    def send_answer(self, data: bytes, is_last: bool) -> bool:
        """Write ``data`` without blocking; False when the peer is gone. Thread-safe."""
        try:
            sent = self.socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._idle.set()
            return False
        if sent == len(data):
            self._finish_answer(is_last)
        else:
            rest = memoryview(data)[sent:]
            threading.Thread(
                target=self._send_rest,
                args=(rest, is_last),
                name=f"{self.server.name}-send",
                daemon=True,
            ).start()
        return True

    def _send_rest(self, rest: memoryview, is_last: bool) -> None:
        try:
            while rest:
                rest = rest[self.socket.send(rest) :]
            self._finish_answer(is_last)
        except OSError:  # gone, or took nothing for STALL_TIMEOUT_S
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self._idle.set()

    def _finish_answer(self, is_last: bool) -> None:
        self._idle.set()
        if is_last:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)

    def _serve_one(self) -> bool:
        head = self._read_head()
        if head is None:
            return False
        # A pipelined request waits for its turn: answers go out in the order of requests.
        while not self._idle.wait(STALL_TIMEOUT_S):
            if self._is_peer_gone():
                return False
        request = _parse_head(head)
        exchange = Exchange(self, request)
        exchange.is_last = _is_last(head, request)
        self._read_body(exchange)
        self._idle.clear()
        self._exchange = exchange
        try:
            self.server.handle_exchange(exchange)
        except Exception:
            logger.exception("request failed", extra={"service": self.server.name})
            headers, body = self.server.render_error(500, "Internal Server Error")
            exchange.answer(500, headers, body)
        return not exchange.is_last or not exchange.is_answered

    def _read_head(self) -> bytes | None:
        """Return request line and headers; None when the peer closed between requests."""
        buffer = self._buffer
        searched = 0
        while True:
            end = buffer.find(b"\r\n\r\n", searched)
            if end >= 0:
                head = bytes(buffer[:end])
                del buffer[: end + 4]
                return head.lstrip(b"\r\n")
            if len(buffer) > MAX_HEAD_BYTES:
                raise _BadRequestError(431, f"request line and headers over {MAX_HEAD_BYTES} bytes")
            searched = max(0, len(buffer) - 3)
            try:
                data = self.socket.recv(_READ_SIZE)
            except BlockingIOError:
                if buffer:
                    raise _BadRequestError(408, "the request stalled") from None
                continue  # idle, or parked: there is no limit on that
            if not data:
                return None
            buffer += data

    def _read_body(self, exchange: Exchange) -> None:
        request = exchange.request
        headers = request.headers
        length_text = headers.get("content-length")
        coding = headers.get("transfer-encoding")
        if coding is None and (length_text is None or length_text == "0"):
            return
        if headers.get("expect", "").lower() == "100-continue" and not self._buffer:
            self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            if coding is not None:
                if coding.lower() != "chunked" or length_text is not None:
                    raise _BadRequestError(400, "Transfer-Encoding is not chunked alone")
                body = self._read_chunked()
            else:
                if length_text is None or not length_text.isascii() or not length_text.isdigit():
                    raise _BadRequestError(400, f"Content-Length is {length_text!r:.80}")
                body = self._read_sized(int(length_text))
            if body is None:
                request.is_oversize = True
            else:
                request.body = body
        except _PeerGoneError:
            request.is_truncated = True
            exchange.is_last = True

    def _read_sized(self, length: int) -> bytes | None:
        """Return the body, or None when it is over the limit and thrown away."""
        buffer = self._buffer
        if length <= len(buffer):
            body = bytes(buffer[:length])
            del buffer[:length]
            return body if length <= self.server.max_body_bytes else None
        if length > self.server.max_body_bytes:
            self._drain(length)
            return None
        body_buffer = bytearray(length)
        view = memoryview(body_buffer)
        have = len(buffer)
        view[:have] = buffer
        buffer.clear()
        while have < length:
            count = self._receive_into(view[have:])
            have += count
        return bytes(body_buffer)

    def _read_chunked(self) -> bytes | None:
        parts: list[bytes] = []
        size = 0
        while True:
            line = self._read_line()
            digits = line.split(b";", 1)[0].strip()
            if not digits or len(digits) > 8 or not _HEX.fullmatch(digits):
                raise _BadRequestError(400, "malformed chunk size")
            count = int(digits, 16)
            if count == 0:
                break
            size += count
            if size > self.server.max_body_bytes + DRAIN_BYTES:
                raise _BadRequestError(413, "body too large")
            data = self._read_exactly(count + 2)
            if not data.endswith(b"\r\n"):
                raise _BadRequestError(400, "chunk does not end with CRLF")
            if size <= self.server.max_body_bytes:
                parts.append(data[:-2])
        for _ in range(MAX_HEADERS):  # trailers: read, and not needed
            if not self._read_line():
                return b"".join(parts) if size <= self.server.max_body_bytes else None
        raise _BadRequestError(431, "too many trailers")

    def _drain(self, length: int) -> None:
        if length > self.server.max_body_bytes + DRAIN_BYTES:
            raise _BadRequestError(413, "body too large")
        while length > 0:
            length -= len(self._read_exactly(min(length, _READ_SIZE)))

    def _read_line(self) -> bytes:
        buffer = self._buffer
        while (end := buffer.find(b"\r\n")) < 0:
            if len(buffer) > MAX_HEAD_BYTES:
                raise _BadRequestError(431, "line too long")
            self._fill()
        line = bytes(buffer[:end])
        del buffer[: end + 2]
        return line

    def _read_exactly(self, count: int) -> bytes:
        buffer = self._buffer
        while len(buffer) < count:
            self._fill()
        data = bytes(buffer[:count])
        del buffer[:count]
        return data

    def _fill(self) -> None:
        scratch = bytearray(_READ_SIZE)
        count = self._receive_into(memoryview(scratch))
        self._buffer += scratch[:count]

    def _receive_into(self, view: memoryview) -> int:
        try:
            count = self.socket.recv_into(view)
        except BlockingIOError:
            raise _BadRequestError(408, "the request stalled") from None
        except OSError:
            raise _PeerGoneError from None
        if count == 0:
            raise _PeerGoneError
        return count

    def _is_peer_gone(self) -> bool:
        try:
            return self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _refuse(self, error: _BadRequestError) -> None:
        headers, body = self.server.render_error(error.status, str(error))
        exchange = Exchange(self, Request("", "", {}))
        exchange.is_last = True
        exchange.answer(error.status, headers, body)
        # Let the answer arrive: closing with bytes unread would reset the connection under it.
        with contextlib.suppress(OSError):
            limit = struct.pack("@ll", 1, 0)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            for _ in range(DRAIN_BYTES // _READ_SIZE):
                if not self.socket.recv(_READ_SIZE):
                    break


def _parse_head(head: bytes) -> Request:
    if _FORBIDDEN.search(head):
        raise _BadRequestError(400, "control character in the request's head")
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not parts[1]:
        raise _BadRequestError(400, "malformed request line")
    method, target, version = parts
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise _BadRequestError(505 if version.startswith("HTTP/") else 400, "not HTTP/1.1")
    if len(lines) > MAX_HEADERS:
        raise _BadRequestError(431, f"more than {MAX_HEADERS} headers")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise _BadRequestError(400, "malformed header")
        name = name.lower()
        value = value.strip(" \t")
        if name in headers:
            if name in _SINGLE and headers[name] != value:
                raise _BadRequestError(400, f"two different {name} headers")
            if name not in _SINGLE:
                value = f"{headers[name]}, {value}"
        headers[name] = value
    return Request(method, target, headers)


def _is_last(head: bytes, request: Request) -> bool:
    connection = request.headers.get("connection")
    if connection is None:
        return b" HTTP/1.0" in head[: head.find(b"\r\n") if b"\r\n" in head else len(head)]
    return "close" in connection.lower()


_HEX = re.compile(rb"[0-9A-Fa-f]+")
#: Headers that cannot be joined: two of them make the message ambiguous.
_SINGLE: Final = frozenset({"content-length", "transfer-encoding", "host"})
