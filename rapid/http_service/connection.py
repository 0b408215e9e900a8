"""A client connection of an HTTP service: what the poller does with it, and what a thread does."""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from lambda_protocol.byte_budget import FREE_BYTES
from lambda_protocol.http1 import Request
from lambda_protocol.http_head import BadRequestError, Head
from lambda_protocol.http_peer import INTERIM_RESPONSE, HttpPeer, address_of
from lambda_protocol.polled_reader import NotShortError
from rapid.exchange import Exchange, Headers

if TYPE_CHECKING:
    from rapid.http_service.service import HttpService

logger = logging.getLogger(__name__)

#: What is read at a time. The poller's thread alone reads into it.
_SCRATCH: Final = memoryview(bytearray(65_536))
#: How long a request may be incomplete before its connection gets a thread that waits for the rest,
#: and how long until a thread that could not be started is tried again, seconds.
_PATIENCE_S: Final = 0.5
_THREAD_TRIES: Final = 3
#: How often a peer that has sent a FIN is looked at, seconds: at first, and at last.
_PEER_CHECKS_S: Final = (0.01, 1.0)


class Connection:
    """One client connection: the poller's, or for a while a thread's. Only :meth:`send_answer` is
    for others.
    """

    __slots__ = (
        "_exchange", "_has_begun", "_has_ended", "_is_open", "_is_paused", "_is_polled",
        "_is_serving", "_on_sent", "_owes_answer", "_reader", "lock", "server", "socket",
    )  # fmt: skip

    def __init__(self, server: HttpService, sock: socket.socket) -> None:
        """Own ``sock`` and one of the places of ``server``."""
        self.server = server
        self.socket = sock
        self.lock = threading.Lock()  #: of its exchanges
        self._reader = server.make_reader(sock)
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
        if self._exchange is not None and self._exchange.streamed is not None:
            self._exchange.streamed.on_gone()  # before the descriptor is another's
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
        on_sent = functools.partial(self._finish_answer, is_last)
        is_sent = self.server.sender.send(self.socket, head, body, on_sent)
        if is_sent is not None:
            self._finish_answer(is_last)
        return is_sent is not False

    def send_part(self, data: bytes, on_sent: Callable[[], None]) -> bool | None:
        """Write a part of an answer without blocking; see :class:`PartSender`."""
        return self.server.sender.send(self.socket, data, b"", on_sent, is_part=True)

    def end_parts(self, data: bytes, is_last: bool) -> None:
        """Write the last bytes of an answer in parts, without blocking."""
        assert self._exchange is not None
        self._exchange.request.is_last = is_last
        self.send_answer(data, b"", is_last)

    def send_interim(self) -> None:
        """Send an interim response; raises ``OSError``."""
        self.socket.send(INTERIM_RESPONSE, socket.MSG_DONTWAIT)

    @property
    def peer_address(self) -> str:
        """The IP address of the peer, empty if it is gone."""
        return address_of(self.socket)

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
        if request.is_last and (request.is_oversize or request.read_into is not None):
            self._reader.discard()
        is_over = request.is_last and not self._owes_answer
        if is_over or not self.server.poller.call(self._return):
            self.close()

    def _refuse(self, error: BadRequestError) -> None:
        headers, body = self.render_error(error.status, str(error))
        request = Request(Head("", "", {}))
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
