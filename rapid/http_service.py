"""An HTTP/1.1 server: an :class:`Exchange` for each request, one thread for most of them.

The poller waits for all connections, and serves each request that is short and has come whole.
A connection gets a thread of its own only while something has to be waited for: a long body, the
rest of a slow request, a caller that may have left.
An exchange is answered once, by any thread, and an answer never blocks. So the thread that has an
invocation answers the runtime's parked ``next`` itself. The thread that has read a response answers
the caller itself. No thread hands over to another.

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
from collections.abc import Callable, Collection
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Final

from lambda_protocol.address import Address
from lambda_protocol.answers_in_hand import AnswersInHand
from lambda_protocol.byte_budget import FREE_BYTES, UNLIMITED_BYTES, ByteBudget
from lambda_protocol.descriptors import SpareDescriptor
from lambda_protocol.http1 import BadRequestError, Request
from lambda_protocol.http_peer import INTERIM_RESPONSE, HttpPeer
from lambda_protocol.pace import Pace
from lambda_protocol.places import Places
from lambda_protocol.polled_reader import NotShortError, PolledReader
from lambda_protocol.poller import Poller
from lambda_protocol.reserve import Reserve
from rapid.connection_limits import INVOKE_API_CONNECTIONS
from rapid.exchange import Exchange, Headers, KeptAnswer, RenderError
from rapid.rest_sender import RestSender

logger = logging.getLogger(__name__)

#: Of callers. Connections of theirs that are idle may stay.
PACE: Final = Pace()
#: What is read at a time. The poller's thread alone reads into it.
_SCRATCH: Final = memoryview(bytearray(65_536))
#: How long a request may be incomplete before its connection gets a thread that waits for the rest,
#: and how long until a thread that could not be started is tried again, seconds.
_PATIENCE_S: Final = 0.5
_THREAD_TRIES: Final = 3
#: How often the log tells that connections are refused, seconds.
_WARN_EVERY_S: Final = 10.0

#: How often a peer that has sent a FIN is looked at, seconds: at first, and at last.
_PEER_CHECKS_S: Final = (0.01, 1.0)

#: Takes each exchange; answers it now or keeps it for later. It never blocks: it may run in the
#: poller's thread, which all connections wait for.
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
        poller: Poller,
        max_body_bytes: int,
        max_connections: int = INVOKE_API_CONNECTIONS,
        needs_host: bool = True,
        pace: Pace = PACE,
        budget: ByteBudget | None = None,
        keeps_oversize: Callable[[str], bool] = lambda path: False,
        long_paths: Collection[str] = (),
        has_health: bool = False,
        health_port: Address | None = None,
        render_error: RenderError,
    ) -> None:
        """Bind ``address`` (port 0: any free one); raises ``OSError`` when it is taken.

        ``poller``, which somebody else starts, serves the connections. ``needs_host`` refuses
        HTTP/1.1 without a Host header. ``pace`` is that of the peers. Their bodies have to fit into
        ``budget``; so have the answers they have yet to take. ``keeps_oversize`` tells of a path
        whether the beginning of a body over the limit is wanted. Each request of ``long_paths``
        gets a thread: its answer takes long. If ``has_health``, the handler answers health checks
        at once, also where there is no place, and on ``health_port`` nothing else is answered.
        ``render_error`` makes the answer to a request that is no HTTP, or whose handler failed.
        """
        self.handle_exchange = handler
        self.name = name
        self.max_body_bytes = max_body_bytes
        self.needs_host = needs_host
        self.pace = pace
        self.budget = budget
        self.keeps_oversize = keeps_oversize
        self.long_paths = long_paths
        self.poller = poller
        self.render_error = render_error
        self.places = Places(max_connections)
        accept = f"{name}-accept"
        self._thread = threading.Thread(target=self.serve_forever, name=accept, daemon=True)
        most = UNLIMITED_BYTES if budget is None else budget.limit_bytes
        self.sender = RestSender(name, pace=pace, in_hand=AnswersInHand(most))
        self._spare = SpareDescriptor()
        self._warned_at = -math.inf
        self.refusal = self._render(503, "There is no place for another connection.")
        self._reserve = self._make_reserve() if has_health else None
        self._address = address
        super().__init__(address, BaseRequestHandler)
        self._health = self._listen_for_health(health_port)

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
            self._spare.refuse_if_exhausted(error, self.socket, self.refusal)
            raise

    def process_request(self, request: object, client_address: object) -> None:
        """Let the poller serve the connection, or refuse it when there are too many."""
        assert isinstance(request, socket.socket)
        if not self.places.take():
            self._turn_away(request)
            return
        connection = Connection(self, request)
        try:
            connection.open()
        except Exception:
            connection.close()
            raise

    def start_thread(self, connection: Connection, work: Callable[[], None]) -> None:
        """Do ``work`` in a thread; raises ``RuntimeError`` or ``MemoryError`` if there is none."""
        super().process_request(connection, work)  # type: ignore[arg-type]

    def process_request_thread(self, connection: object, work: object) -> None:
        """Do what a connection has to wait for."""
        assert isinstance(connection, Connection)
        assert callable(work)
        try:
            work()
        except Exception:
            logger.exception("connection failed", extra={"service": self.name})
            connection.close()

    def warn(self, message: str, **data: str) -> None:
        """Log why connections are refused, now and then."""
        now = time.monotonic()
        if now - self._warned_at > _WARN_EVERY_S:
            self._warned_at = now
            logger.warning(message, extra={"service": self.name, **data})

    def _turn_away(self, sock: socket.socket) -> None:
        """Refuse a connection, but for its health check; the accepting thread."""
        self.warn("too many connections")
        if self._reserve is not None:
            self._reserve.take(sock)
            return
        with contextlib.suppress(OSError):
            sock.send(self.refusal, socket.MSG_DONTWAIT)
        self.shutdown_request(sock)

    def _listen_for_health(self, address: Address | None) -> socket.socket | None:
        if self._reserve is None or address is None:
            return None
        listener = address.listen()
        self._reserve.listen(listener)
        return listener

    def _make_reserve(self) -> Reserve:
        return Reserve(
            self.name, self._answer_here, self.refusal, pace=self.pace, answers_block=False
        )

    def _answer_here(self, request: Request) -> bytes:
        """Return the response to a request that the handler answers at once."""
        kept = KeptAnswer(self.render_error)
        self.handle_exchange(Exchange(kept, request))
        return kept.data or self.refusal

    def _render(self, status: int, message: str) -> bytes:
        kept, request = KeptAnswer(self.render_error), Request("", "", {})
        request.is_last = True
        headers, body = self.render_error(status, message)
        Exchange(kept, request).answer(status, headers, body)
        return kept.data

    def handle_error(self, request: object, client_address: object) -> None:
        """Log why a connection was not taken."""
        logger.exception("connection failed", extra={"service": self.name})


class Connection:
    """One client connection: the poller's, or for a while a thread's. Only :meth:`send_answer` is
    for others.
    """

    __slots__ = (
        "_exchange", "_has_begun", "_has_ended", "_is_open", "_is_paused", "_is_polled",
        "_is_serving", "_on_sent", "_owes_answer", "_reader", "_tries", "_work", "server",
        "socket",
    )  # fmt: skip

    def __init__(self, server: HttpService, sock: socket.socket) -> None:
        """Own ``sock`` and one of the places of ``server``."""
        self.server = server
        self.socket = sock
        self._reader = PolledReader(
            sock,
            max_body_bytes=server.max_body_bytes,
            needs_host=server.needs_host,
            pace=server.pace,
            budget=server.budget,
        )
        self._exchange: Exchange | None = None
        self._owes_answer = False  # cleared by whoever has sent the answer
        self._on_sent: threading.Event | None = None  # a thread waits for that
        self._has_begun = False  # a request of which not all has come
        self._has_ended = False  # the peer sends no more, and has yet to take its answer
        self._is_serving = False  # the poller is inside, and looks itself what is next
        self._is_polled = False
        self._is_paused = False
        self._is_open = True

    def open(self) -> None:
        """Let the poller serve the connection."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch()

    def close(self) -> None:
        """Send nothing more, and give everything back. Idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        self._leave_poller()
        self.server.sender.forget(self.socket)
        if self._exchange is not None:
            self._exchange.request.release()
        self.server.shutdown_request(self.socket)
        self.server.places.give_back()

    # --- the poller's thread

    def on_ready(self) -> None:
        """Read what has come, and serve what is whole."""
        try:
            count = self.socket.recv_into(_SCRATCH, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self._on_end(is_gone=True)
            return
        if not count:
            self._on_end(is_gone=self._has_ended)
            return
        self._reader.feed(_SCRATCH[:count])
        self._go_on()

    def on_slow(self) -> None:
        """Let a thread wait for the rest of a request."""
        self._take_thread(self._read_one)

    def _go_on(self) -> None:
        """Serve one request of what is in hand; further ones have to let others go first."""
        if not self._is_polled:
            return
        reader, poller = self._reader, self.server.poller
        if not self._owes_answer:
            try:
                request = reader.take_short()
            except NotShortError:
                self._take_thread(self._read_one)
                return
            if request is None:
                self._read_on()
                if reader.in_hand and not self._has_begun:
                    self._has_begun = True
                    poller.expect(self, _PATIENCE_S)
                return
            if self._has_begun:
                self._has_begun = False
                poller.met(self)
            if request.path in self.server.long_paths:
                self._take_thread(functools.partial(self._serve_in_thread, request))
                return
            self._is_serving = True
            self._serve(request)
            self._is_serving = False  # before the answer is looked for: it may come meanwhile
            if not self._owes_answer:
                if request.is_last:
                    self.close()
                elif reader.in_hand:
                    self._pause()
                    poller.call(self._go_on)
                return
        if reader.in_hand:
            self._hold_back()

    def _hold_back(self) -> None:
        """Let what follows an unanswered request wait: answers go out in the order of requests.

        Behind one that is parked it would wait for ever: that is no conversation, and it ends.
        """
        exchange = self._exchange
        assert exchange is not None
        is_unstarted = exchange.is_unstarted  # before the other: an answer clears it after that
        on_disconnect = exchange.on_disconnect
        if is_unstarted is None and on_disconnect is not None:
            if not self._reader.has_only_line_ends:
                on_disconnect()
                self.close()
        elif self._reader.in_hand > FREE_BYTES:
            self._pause()

    def _on_end(self, *, is_gone: bool) -> None:
        """The peer sends no more. While it is owed an answer it may still read, unless parked."""
        exchange = self._exchange
        if exchange is None or not self._owes_answer:
            if self._reader.in_hand and not is_gone:  # a request that broke off
                self._take_thread(self._read_one)
            else:
                self.close()
            return
        is_unstarted = exchange.is_unstarted  # before the other: an answer clears it after that
        on_disconnect = exchange.on_disconnect
        if is_gone or (on_disconnect is not None and is_unstarted is None):
            if on_disconnect is not None:
                on_disconnect()
            self.close()
        elif on_disconnect is not None and is_unstarted is not None:
            self._take_thread(functools.partial(self._watch_peer, exchange, is_unstarted))
        else:  # the answer is on its way, or will come soon
            self._has_ended = True
            self._pause()
            self._resume()

    def _resume(self) -> None:
        """Go on after an answer, unless a thread has the connection and does so itself."""
        if self._owes_answer or not self._is_polled:
            return
        if self._has_ended or (self._exchange is not None and self._exchange.request.is_last):
            self.close()
            return
        self._read_on()
        self._go_on()

    def _return(self) -> None:
        """Take the connection back from a thread."""
        self._watch()
        if self._owes_answer and self._is_open:
            self._go_on()
        else:
            self._resume()

    def _watch(self) -> None:
        self._is_polled = True
        if not self.server.poller.watch(self.socket.fileno(), self):
            self.close()  # the poller has ended

    def _pause(self) -> None:
        self._is_paused = True
        self.server.poller.pause(self.socket.fileno())

    def _read_on(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self.server.poller.resume(self.socket.fileno())

    def _leave_poller(self) -> None:
        if self._is_polled:
            self._is_polled = False
            self._is_paused = False
            self.server.poller.forget(self.socket.fileno(), self)

    def _take_thread(self, work: Callable[[], None]) -> None:
        """Do ``work`` in a thread."""
        self._leave_poller()
        self._has_begun = False
        _WantedThread(self, work).on_slow()

    def give_up(self) -> None:
        """Go on without the thread that was wanted: refuse, or leave what is not answered."""
        if self._exchange is not None and self._exchange.on_disconnect is not None:
            self._exchange.on_disconnect()
        elif not self._owes_answer:
            with contextlib.suppress(OSError):
                self.socket.send(self.server.refusal, socket.MSG_DONTWAIT)
        self.close()

    # --- any thread

    def send_answer(self, head: bytes, body: bytes, is_last: bool) -> bool:
        """Write both without blocking; False when the peer is gone."""
        try:
            sent = _send_now(self.socket, head, body)
        except OSError:
            self._finish_answer(is_last)
            return False
        if sent == len(head) + len(body):
            self._finish_answer(is_last)
            return True
        on_sent = functools.partial(self._finish_answer, is_last)
        if sent < len(head):
            head, body = b"", head + body
        if self.server.sender.send(self.socket, body, on_sent, sent=sent - len(head)):
            return True
        with contextlib.suppress(OSError):  # half an answer is none
            self.socket.shutdown(socket.SHUT_RDWR)
        on_sent()
        return False

    def send_interim(self) -> None:
        """Send an interim response; raises ``OSError``."""
        self.socket.send(INTERIM_RESPONSE, socket.MSG_DONTWAIT)

    def render_error(self, status: int, message: str) -> tuple[Headers, bytes]:
        """Return the answer in the place of one that cannot be sent."""
        return self.server.render_error(status, message)

    def _finish_answer(self, is_last: bool) -> None:
        self._owes_answer = False
        on_sent = self._on_sent
        if on_sent is not None:
            on_sent.set()
        if is_last:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
        if (is_last or self._has_ended or self._reader.in_hand) and not self._is_serving:
            self.server.poller.call(self._resume)

    # --- the poller's thread, or the connection's own

    def _serve(self, request: Request) -> None:
        exchange = Exchange(self, request)
        self._owes_answer = True
        self._exchange = exchange
        try:
            self.server.handle_exchange(exchange)
        except Exception:
            logger.exception("request failed", extra={"service": self.server.name})
            headers, body = self.render_error(500, "Internal Server Error")
            exchange.answer(500, headers, body)

    # --- a thread of the connection's own

    def _read_one(self) -> None:
        """Read a request as its bytes come, and serve it."""
        self.server.pace.limit_waits(self.socket)
        try:
            request = self._reader.read_long(keeps_oversize=self.server.keeps_oversize)
        except BadRequestError as error:
            self._refuse(error)
            request = None
        if request is None:
            self.close()
        else:
            self._serve_in_thread(request)

    def _serve_in_thread(self, request: Request) -> None:
        self._serve(request)
        if request.is_oversize and request.is_last:
            self._reader.discard()
        is_over = request.is_last and not self._owes_answer
        if is_over or not self.server.poller.call(self._return):
            self.close()

    def _refuse(self, error: BadRequestError) -> None:
        headers, body = self.render_error(error.status, str(error))
        request = Request("", "", {})
        request.is_last = True
        Exchange(self, request).answer(error.status, headers, body)
        self._reader.discard()

    def _watch_peer(self, exchange: Exchange, may_probe: Callable[[], bool]) -> None:
        """Wait until the answer is sent; every call has an end. The peer may leave before."""
        peer = HttpPeer(self.socket, exchange.send_interim, http_version=exchange.request.version)
        on_sent = self._on_sent = threading.Event()
        check_s, longest_s = _PEER_CHECKS_S
        while self._owes_answer:  # looked at after _on_sent is there to be set
            if peer.has_left(may_probe=may_probe()):
                if exchange.on_disconnect is not None:
                    exchange.on_disconnect()
                break
            on_sent.wait(check_s)
            check_s = min(2 * check_s, longest_s)
        self.close()


def _send_now(sock: socket.socket, head: bytes, body: bytes) -> int:
    """Send what the kernel takes now, return its size; raises ``OSError`` if the peer is gone."""
    try:
        if body:
            return sock.sendmsg((head, body), (), socket.MSG_DONTWAIT)
        return sock.send(head, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return 0


class _WantedThread:
    """A thread for a connection. It is tried again: a killed function gives threads back."""

    def __init__(self, connection: Connection, work: Callable[[], None]) -> None:
        self._connection = connection
        self._work = work
        self._tries = 0

    def on_ready(self) -> None:
        """No descriptor is watched for a thread."""

    def on_slow(self) -> None:
        """Start the thread."""
        connection, server = self._connection, self._connection.server
        try:
            server.start_thread(connection, self._work)
        except (RuntimeError, MemoryError) as error:
            self._tries += 1
            if self._tries < _THREAD_TRIES:
                server.poller.expect(self, _PATIENCE_S)
                return
            server.warn("no thread for a connection", error=str(error))
            connection.give_up()

    def close(self) -> None:
        """Close the connection, which nobody serves."""
        self._connection.close()
