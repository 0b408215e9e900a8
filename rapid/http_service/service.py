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
from lambda_protocol.byte_budget import UNLIMITED_BYTES, ByteBudget
from lambda_protocol.descriptors import SpareDescriptor
from lambda_protocol.http1 import Request
from lambda_protocol.http_head import Head
from lambda_protocol.pace import Pace
from lambda_protocol.places import Places
from lambda_protocol.polled_reader import PolledReader
from lambda_protocol.poller import Poller
from lambda_protocol.reserve import Reserve
from rapid.connection_limits import INVOKE_API_CONNECTIONS
from rapid.exchange import Exchange, KeptAnswer, RenderError
from rapid.http_service.connection import Connection
from rapid.rest_sender import RestSender

logger = logging.getLogger(__name__)

#: Of callers. Connections of theirs that are idle may stay.
PACE: Final = Pace()
#: How often the log tells that connections are refused, seconds.
_WARN_EVERY_S: Final = 10.0

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
        streams: Callable[[Request], bool] = lambda _request: False,
        long_paths: Collection[str] = (),
        has_health: bool = False,
        health_port: Address | None = None,
        render_error: RenderError,
    ) -> None:
        """Bind ``address`` (port 0: any free one); raises ``OSError`` when it is taken.

        ``poller``, which somebody else starts, serves the connections. ``needs_host`` refuses
        HTTP/1.1 without a Host header. ``pace`` is that of the peers. Their bodies have to fit into
        ``budget``; so have the answers they have yet to take. ``keeps_oversize`` tells of a path
        whether the beginning of a body over the limit is wanted. ``streams`` tells of a request
        whether the handler reads its body while it comes, in a thread. Each request of
        ``long_paths`` gets a thread: its answer takes long. If ``has_health``, the handler answers
        health checks at once, also where there is no place, and on ``health_port`` nothing else.
        ``render_error`` makes the answer to what is no HTTP, or whose handler failed.
        """
        self.handle_exchange = handler
        self.name = name
        self.make_reader = _reader_maker(max_body_bytes, needs_host, pace, budget, streams)
        self.pace = pace
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
        kept, request = KeptAnswer(self.render_error), Request(Head("", "", {}))
        request.is_last = True
        headers, body = self.render_error(status, message)
        Exchange(kept, request).answer(status, headers, body)
        return kept.data

    def handle_error(self, request: object, client_address: object) -> None:
        """Log why a connection was not taken."""
        logger.exception("connection failed", extra={"service": self.name})


def _reader_maker(
    max_body_bytes: int,
    needs_host: bool,
    pace: Pace,
    budget: ByteBudget | None,
    streams: Callable[[Request], bool],
) -> Callable[[socket.socket], PolledReader]:
    return functools.partial(
        PolledReader,
        max_body_bytes=max_body_bytes,
        needs_host=needs_host,
        pace=pace,
        budget=budget,
        streams=streams,
    )
