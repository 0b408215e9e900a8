"""An HTTP/1.1 server: a thread for each connection, an :class:`Exchange` for each request.

An exchange is answered once, by any thread, and an answer never blocks. So the thread that has an
invocation answers the runtime's parked ``next`` itself. The thread of the runtime answers the
caller itself. No thread hands over to another.

``socketserver`` has the listener and the threads. ``http.server`` could parse requests too, and
would add a third to the cost of a call. It imports e-mail and TLS, a quarter of the time to start.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Final

from lambda_protocol.address import Address
from lambda_protocol.answers_in_hand import AnswersInHand
from lambda_protocol.byte_budget import UNLIMITED_BYTES, ByteBudget
from lambda_protocol.descriptors import SpareDescriptor
from lambda_protocol.http1 import BadRequestError, Request, RequestReader, encode_head
from lambda_protocol.http_peer import INTERIM_RESPONSE, HttpPeer
from lambda_protocol.pace import Pace
from lambda_protocol.places import Places
from lambda_protocol.reserve import Reserve
from rapid.connection_limits import INVOKE_API_CONNECTIONS
from rapid.rest_sender import RestSender

logger = logging.getLogger(__name__)

#: Of callers. Connections of theirs that are idle may stay.
PACE: Final = Pace()
#: How long an accepted connection waits for a thread that cannot be started, seconds, and how
#: often it is tried.
_THREAD_WAIT_S: Final = 1.0
_THREAD_POLL_S: Final = 0.01
#: How often the log tells that connections are refused, seconds.
_WARN_EVERY_S: Final = 10.0

#: How often a peer that has sent a FIN is looked at, seconds: at first, and at last.
_PEER_CHECKS_S: Final = (0.01, 1.0)

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}

Headers = tuple[tuple[str, str], ...] | list[tuple[str, str]]
#: Every answer of the Runtime API has a Content-Type: awslambdaric crashes on one without.
JSON: Final[Headers] = (("Content-Type", "application/json"),)
TEXT: Final[Headers] = (("Content-Type", "text/plain; charset=utf-8"),)


class Exchange:
    """A request and its one answer. Thread-safe: the first answer counts, of any thread."""

    __slots__ = (
        "_answered",
        "_connection",
        "_lock",
        "began_at",
        "extra_headers",
        "is_unstarted",
        "on_disconnect",
        "request",
    )

    def __init__(
        self, connection: Connection | KeptAnswer, request: Request, began_at: float = 0.0
    ) -> None:
        """Belongs to ``connection``, which reads the next request only after the answer."""
        self.request = request
        self.began_at = began_at  #: when its head had come, monotonic seconds
        self.extra_headers: Headers = ()  #: for the answer, whoever gives it
        #: Called by the connection's thread if the peer goes away unanswered.
        self.on_disconnect: Callable[[], object] | None = None
        #: Set for a peer that may send a FIN and still read. While it is true, such a peer is sent
        #: interim responses. If it is None, a FIN means that the peer is gone.
        self.is_unstarted: Callable[[], bool] | None = None
        self._connection = connection
        self._lock = threading.Lock()
        self._answered = False

    def answer(self, status: int, headers: Headers = (), body: bytes = b"") -> bool:
        """Send the response. False: the peer is gone, or another thread has answered.

        Never blocks: the listener's sender writes the bytes that the peer does not take at once.
        """
        with self._lock:
            if self._answered:
                return False
            self._answered = True
        self.on_disconnect = None
        self.is_unstarted = None  # both know the payload
        self.request.release()
        try:
            data = self._encode(status, headers, body)
        except ValueError as error:
            service = self._connection.server
            logger.error("response not sendable", extra={"service": service.name, "error": error})
            headers, body = service.render_error(502, "Bad Gateway")
            data = self._encode(502, headers, body)
        return self._connection.send_answer(data, self.request.is_last)

    def _encode(self, status: int, headers: Headers, body: bytes) -> bytes:
        head = [f"HTTP/1.1 {status} {_REASONS.get(status, '')}"]
        head += [f"{name}: {value}" for name, value in (*headers, *self.extra_headers)]
        if status != HTTPStatus.NO_CONTENT:
            head.append(f"Content-Length: {len(body)}")
        if self.request.is_last:
            head.append("Connection: close")
        if self.request.method == "HEAD":  # a body would be taken for the next answer
            body = b""
        return encode_head(head) + body

    def send_interim(self) -> None:
        """Send an interim response, unless the answer is sent or on its way; raises ``OSError``."""
        assert isinstance(self._connection, Connection)
        with self._lock:
            if not self._answered:
                self._connection.socket.send(INTERIM_RESPONSE, socket.MSG_DONTWAIT)

    @property
    def is_answered(self) -> bool:
        """Whether the response is sent or on its way."""
        return self._answered


class KeptAnswer:
    """Stands in for a connection: keeps the answer, which is all there by then."""

    def __init__(self, server: HttpService) -> None:
        """Be a connection of ``server``."""
        self.server = server
        self.data = b""

    def send_answer(self, data: bytes, _is_last: bool) -> bool:
        """Keep ``data``."""
        self.data = data
        return True


#: Takes each exchange, in its connection's thread; answers it now or keeps it for later.
Handler = Callable[[Exchange], None]


class HttpService(ThreadingTCPServer):
    """A listener on one address; every request goes to one handler."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(
        self,
        address: Address,
        handler: Handler,
        *,
        name: str,
        max_body_bytes: int,
        max_connections: int = INVOKE_API_CONNECTIONS,
        needs_host: bool = True,
        pace: Pace = PACE,
        budget: ByteBudget | None = None,
        keeps_oversize: Callable[[str], bool] = lambda path: False,
        has_health: bool = False,
        health_port: Address | None = None,
        render_error: Callable[[int, str], tuple[Headers, bytes]],
    ) -> None:
        """Bind ``address`` (port 0: any free one); raises ``OSError`` when it is taken.

        ``needs_host`` refuses HTTP/1.1 without a Host header. ``pace`` is that of the peers.
        Their bodies have to fit into ``budget``; so have the answers they have yet to take.
        ``keeps_oversize`` tells of a path whether the beginning of a body over the limit is wanted.
        If ``has_health``, the handler answers health checks at once, also where there is no place,
        and on ``health_port`` nothing else is answered.
        ``render_error`` makes the answer to a request that is no HTTP, or whose handler failed.
        """
        self.handle_exchange = handler
        self.name = name
        self.max_body_bytes = max_body_bytes
        self.needs_host = needs_host
        self.pace = pace
        self.budget = budget
        self.keeps_oversize = keeps_oversize
        self.render_error = render_error
        self.places = Places(max_connections)
        self._thread = threading.Thread(
            target=self.serve_forever, name=f"{name}-accept", daemon=True
        )
        in_hand = AnswersInHand(UNLIMITED_BYTES if budget is None else budget.limit_bytes)
        self.sender = RestSender(name, pace=pace, in_hand=in_hand)
        self._spare = SpareDescriptor()
        self._warned_at = -math.inf
        self._refusal = self._render(503, "There is no place for another connection.")
        self._reserve = self._make_reserve() if has_health else None
        self._health: socket.socket | None = None
        self._address = address
        super().__init__(address, Connection)
        if self._reserve is not None and health_port is not None:
            self._health = health_port.listen()
            self._reserve.listen(self._health)

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Accept connections from now on."""
        self.sender.start()
        if self._reserve is not None:
            self._reserve.start()
        self._thread.start()

    def stop(self, limit_s: float = 0.0) -> bool:
        """Accept no more; True if the answers were taken within ``limit_s``. Idempotent.

        Connections that are open live on; what a peer does not take at once ends its connection.
        """
        if self._thread.is_alive():
            with contextlib.suppress(OSError):  # stopped already
                self.socket.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread at once
            self.shutdown()
        self.server_close()
        if self._reserve is not None:
            self._reserve.stop()
        if self._health is not None:
            self._health.close()
        self._spare.close()
        return self.sender.stop(limit_s)

    def server_bind(self) -> None:
        """Listen on both IP families; the error says on what it could not."""
        self.socket.close()  # socketserver made it for one family
        self.socket = self._address.listen(self.request_queue_size)
        self.server_address = self.socket.getsockname()

    def get_request(self) -> tuple[socket.socket, object]:
        """Accept a connection; without a descriptor for it, refuse it and raise ``OSError``."""
        try:
            return super().get_request()
        except OSError as error:
            self._spare.refuse_if_exhausted(error, self.socket, self._refusal)
            raise

    def process_request(self, request: object, client_address: object) -> None:
        """Give the connection a thread, or refuse it when there are too many."""
        assert isinstance(request, socket.socket)
        if not self.places.take():
            self._turn_away(request, "too many connections")
        elif (error := self._start_thread(request, client_address)) is not None:
            self.places.give_back()
            self._turn_away(request, "no thread for a connection", error=str(error))

    def process_request_thread(self, request: object, client_address: object) -> None:
        """Serve the connection in its own thread."""
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self.places.give_back()

    def _start_thread(self, request: object, client_address: object) -> Exception | None:
        deadline = time.monotonic() + _THREAD_WAIT_S
        while True:
            try:
                super().process_request(request, client_address)  # type: ignore[arg-type]
                return None
            except (RuntimeError, MemoryError) as error:
                if time.monotonic() > deadline:
                    return error
                time.sleep(_THREAD_POLL_S)  # a killed function gives threads back

    def _turn_away(self, sock: socket.socket, reason: str, **data: str) -> None:
        """Refuse a connection, but for its health check; the accepting thread."""
        now = time.monotonic()
        if now - self._warned_at > _WARN_EVERY_S:
            self._warned_at = now
            logger.warning(reason, extra={"service": self.name, **data})
        if self._reserve is not None:
            self._reserve.take(sock)
            return
        with contextlib.suppress(OSError):
            sock.send(self._refusal, socket.MSG_DONTWAIT)
        self.shutdown_request(sock)

    def _make_reserve(self) -> Reserve:
        return Reserve(
            self.name, self._answer_here, self._refusal, pace=self.pace, answers_block=False
        )

    def _answer_here(self, request: Request) -> bytes:
        """Return the response to a request that the handler answers at once."""
        kept = KeptAnswer(self)
        self.handle_exchange(Exchange(kept, request))
        return kept.data or self._refusal

    def _render(self, status: int, message: str) -> bytes:
        kept, request = KeptAnswer(self), Request("", "", {})
        request.is_last = True
        headers, body = self.render_error(status, message)
        Exchange(kept, request).answer(status, headers, body)
        return kept.data

    def handle_error(self, request: object, client_address: object) -> None:
        """Log what a connection's thread died of."""
        logger.exception("connection failed", extra={"service": self.name})


class Connection(BaseRequestHandler):
    """One client connection. One thread: its own; only :meth:`send_answer` is for others."""

    server: HttpService

    def setup(self) -> None:
        """Take the socket as it is: requests are read from our own buffer, not a file."""
        self.socket: socket.socket = self.request
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.pace.limit_waits(self.socket)
        self._reader = RequestReader(
            self.socket,
            max_body_bytes=self.server.max_body_bytes,
            needs_host=self.server.needs_host,
            pace=self.server.pace,
            budget=self.server.budget,
        )
        self._exchange: Exchange | None = None
        self._owes_answer = False  # cleared by whoever has sent the answer
        self._on_sent: threading.Event | None = None  # somebody waits for that

    def finish(self) -> None:
        """Send nothing more: the socket is about to be closed."""
        self.server.sender.forget(self.socket)
        if self._exchange is not None:
            self._exchange.request.release()

    def handle(self) -> None:
        """Serve requests until the peer or an error ends the connection."""
        is_gone = False
        try:
            while self._serve_one():
                pass
        except BadRequestError as error:
            self._refuse(error)
        except OSError:
            is_gone = True
        finally:
            exchange = self._exchange
            if exchange is not None and not exchange.is_answered:
                self._on_early_end(exchange, is_gone)
            elif exchange is not None and not is_gone:
                self._await_answer(exchange, _never)  # the rest of the last one

    def send_answer(self, data: bytes, is_last: bool) -> bool:
        """Write ``data`` without blocking; False when the peer is gone. Thread-safe."""
        try:
            sent = self.socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._finish_answer(is_last)
            return False
        if sent == len(data):
            self._finish_answer(is_last)
        else:
            on_sent = functools.partial(self._finish_answer, is_last)
            if not self.server.sender.send(self.socket, data, on_sent, sent=sent):
                with contextlib.suppress(OSError):  # half an answer is none
                    self.socket.shutdown(socket.SHUT_RDWR)
                on_sent()
                return False
        return True

    def _finish_answer(self, is_last: bool) -> None:
        self._owes_answer = False
        on_sent = self._on_sent
        if on_sent is not None:
            on_sent.set()
        if is_last:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)

    def _serve_one(self) -> bool:
        request = self._reader.read_head()
        if request is None:
            return False
        if self._owes_answer and not self._wait_for_turn():
            return False
        began_at = time.monotonic()
        keeps_oversize = self.server.keeps_oversize
        self._reader.read_body(request, keeps_oversize=keeps_oversize(request.path))
        exchange = Exchange(self, request, began_at)
        self._owes_answer = True
        self._exchange = exchange
        try:
            self.server.handle_exchange(exchange)
        except Exception:
            logger.exception("request failed", extra={"service": self.server.name})
            headers, body = self.server.render_error(500, "Internal Server Error")
            exchange.answer(500, headers, body)
        if request.is_oversize and request.is_last:
            self._reader.discard()
        return not request.is_last or not exchange.is_answered

    def _on_early_end(self, exchange: Exchange, is_gone: bool) -> None:
        """The peer sends no more, and is owed an answer: it may still read, unless it is parked."""
        is_unstarted = exchange.is_unstarted  # before the other: an answer clears it after that
        on_disconnect = exchange.on_disconnect
        if on_disconnect is None or (is_unstarted is not None and not is_gone):
            is_gone = not self._await_answer(exchange, is_unstarted or _never)
            if not is_gone:
                return
        if on_disconnect is not None:
            on_disconnect()

    def _wait_for_turn(self) -> bool:
        """Let a pipelined request wait: answers go out in the order of requests.

        Behind a parked request it would wait for ever. So the connection ends.
        """
        exchange = self._exchange
        assert exchange is not None
        if exchange.is_unstarted is None and exchange.on_disconnect is not None:
            return False
        return self._await_answer(exchange, lambda: True)

    def _await_answer(self, exchange: Exchange, may_probe: Callable[[], bool]) -> bool:
        """Wait until the answer is sent; every call has an end. False when the peer left before."""
        version = exchange.request.version
        peer = HttpPeer(self.socket, exchange.send_interim, http_version=version)
        self._on_sent = threading.Event()
        check_s, longest_s = _PEER_CHECKS_S
        while self._owes_answer:  # looked at after _on_sent is there to be set
            if peer.has_left(may_probe=may_probe()):
                return False
            self._on_sent.wait(check_s)
            check_s = min(2 * check_s, longest_s)
        self._on_sent = None
        return True

    def _refuse(self, error: BadRequestError) -> None:
        headers, body = self.server.render_error(error.status, str(error))
        request = Request("", "", {})
        request.is_last = True
        Exchange(self, request).answer(error.status, headers, body)
        self._reader.discard()


def _never() -> bool:
    return False
