"""A gunicorn worker that serves plain invocations in one thread for all connections.

:class:`ConnectionWorker` keeps a thread for each call that runs. Here only what has to wait for
something gets one: long payloads, slow clients, events, whatever is no plain invocation. So 1,000
callers cost no 1,000 threads. Without a broker, or over TLS, it is the same as the other.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from gunicorn.workers.gthread import TConn

from lambda_protocol.http1 import Request, RequestReader
from lambda_protocol.http_head import BadRequestError
from lambda_protocol.http_peer import INTERIM_RESPONSE, HttpPeer
from lambda_protocol.invoke_http import HttpResponse
from lambda_protocol.limits import SYNC_PAYLOAD_BYTES
from lambda_protocol.polled_reader import NotShortError, PolledReader
from lambda_server.worker import Connection, ConnectionWorker
from lambda_server.wsgi_response import JOINED_BYTES, Response

if TYPE_CHECKING:
    from lambda_server.plain_invocations import PlainInvocations

#: What is read at a time. The poller's thread alone reads into it.
_SCRATCH: Final = memoryview(bytearray(65_536))
#: How long a request may be incomplete before a thread waits for the rest of it, seconds.
_PATIENCE_S: Final = 0.5


class PollingWorker(ConnectionWorker):
    """The worker for many callers at a time: ``gunicorn -k lambda_server.PollingWorker``."""

    plain: PlainInvocations | None = None  #: None: threads serve everything

    def open(self) -> None:
        """Open what belongs to this process."""
        super().open()
        if not self.cfg.is_ssl:
            from lambda_server.plain_invocations import PlainInvocations

            self.plain = PlainInvocations.of(self.wsgi, self.poller)

    def make_connection(self, accepted: TConn) -> Connection:
        """Return one that reads its requests itself, if that is of use."""
        if self.plain is None:
            return super().make_connection(accepted)
        return PolledConnection(self, self.plain, accepted)


class PolledConnection(Connection):
    """A connection that the poller's thread reads, unless a thread has it."""

    worker: PollingWorker

    def __init__(self, worker: PollingWorker, plain: PlainInvocations, accepted: TConn) -> None:
        """Own what ``worker`` has accepted."""
        super().__init__(worker, accepted)
        self._plain = plain
        self._reader = PolledReader(
            accepted.sock,
            max_body_bytes=SYNC_PAYLOAD_BYTES,
            pace=worker.pace,
            budget=worker.budget,
        )
        self._request: Request | None = None  # the one that is served
        self._peer: HttpPeer | None = None  # made when the caller is first looked at
        self._has_begun = False  # a request of which not all has come
        self._is_paused = False  # what the caller sends during a call waits in the kernel
        self._has_left = False
        self._is_broken = False
        self._unsent: list[bytes] = []  # of an answer

    def make_reader(self, **_options: Any) -> RequestReader:
        """Return the reader, which may have begun a request, to the thread that reads now."""
        self._has_begun = self._is_paused = False
        return self._reader

    # --- the poller's thread

    def on_ready(self) -> None:
        """Read what has come, and serve what is whole."""
        if self.is_busy:
            self._on_news_of_caller()
            return
        try:
            count = self.sock.recv_into(_SCRATCH, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if count:
            self._reader.feed(_SCRATCH[:count])
            self._go_on()
        elif self._reader.in_hand:
            self.worker.give_thread(self)  # for a request that broke off
        else:
            self.close()

    def on_slow(self) -> None:
        """Let a thread wait for the rest of a request; close what was idle for keepalive."""
        if self._reader.in_hand:
            self.worker.give_thread(self)
        else:
            self.close()

    @property
    def is_idle(self) -> bool:
        """Whether nothing of a request has been read."""
        return not self.is_busy and not self._reader.in_hand

    def close(self) -> None:
        """Close it, also while a call runs."""
        self._has_left = True
        if self._request is not None:
            self._request.release()
        super().close()

    def serve_in_thread(self, request: Request) -> None:
        """Let a thread serve ``request`` by the application."""

        def work() -> bool:
            self.worker.serve(self, request)
            return not request.is_last

        self._give_thread(work)

    def wait_in_thread(self, request: Request, wait: Callable[[], object]) -> None:
        """Let a thread do ``wait``, which responds."""

        def work() -> bool:
            wait()
            return not request.is_last and not self._has_left

        self._give_thread(work)

    def has_left(self) -> bool:
        """Whether the caller is known to be gone."""
        if not self._has_left:
            if self._peer is None:
                version = self._request.version if self._request is not None else ""
                self._peer = HttpPeer(self.sock, self._send_interim, http_version=version)
            self._has_left = self._peer.has_left(reset_wait_ms=0)
        return self._has_left

    def _go_on(self) -> None:
        """Serve one request of what is in hand; further ones have to let others go first."""
        worker, reader = self.worker, self._reader
        if self.is_busy or not self.is_polled:
            return
        try:
            request = reader.take_short()
        except NotShortError:
            worker.give_thread(self)
            return
        if request is None:
            self._resume()
            if reader.in_hand and not self._has_begun:  # the first of its bytes sets the limit
                self._has_begun = True
                worker.poller.expect(self, _PATIENCE_S)
            return
        worker.poller.met(self)
        self.is_busy, self._has_begun = True, False
        self._request, self._peer = request, None
        if self._plain.serve(self, request):
            worker.count_request()
        else:
            self.serve_in_thread(request)

    def _pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self.worker.poller.pause(self.sock.fileno())

    def _resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self.worker.poller.resume(self.sock.fileno())

    def _on_news_of_caller(self) -> None:
        """Leave it in the kernel until the answer is sent, and see whether the caller has gone."""
        if self._is_paused:  # only a reset is told then
            self._has_left = True
            self.worker.leave_poller(self)
        else:
            self._pause()

    def _give_thread(self, work: Callable[[], bool]) -> None:
        self.work = work
        self.worker.give_thread(self)

    # --- whoever has the connection: the poller's thread, or another

    def respond(self, request: Request, status: str, answer: HttpResponse) -> None:
        """Answer ``request``, and go on to the next one."""
        gateway = self.worker.gateway
        is_polled = self.is_polled
        gateway.decide_last(request)
        send: Callable[[bytes], object] = functools.partial(gateway.send, self.sock)
        if self._has_left:
            send = _send_nothing
        elif is_polled:
            send = self._send
        response = Response(send, request)
        response.start(status, answer.headers)
        try:
            response.send((answer.body,))
        except BadRequestError as error:
            if not is_polled:
                raise
            self._give_thread(functools.partial(_refuse, error))
            return
        finally:
            request.release()
            gateway.log_access(response, request, self.accepted)
        self.is_busy = False
        if self._has_left:
            self.close()
        elif is_polled:
            self._after(request)

    def _send(self, data: bytes) -> None:
        """Send what the caller takes now; what it does not is left to a thread."""
        if not self._unsent and len(data) <= JOINED_BYTES:
            try:
                sent = self.sock.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._is_broken = True
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._unsent.append(data)

    def _after(self, request: Request) -> None:
        """Wait for the next request, or serve what has come of it."""
        if self._unsent and not self._is_broken:
            self.is_busy, self.may_refuse = True, False
            self._give_thread(functools.partial(self._send_rest, request))
        elif request.is_last or self._is_broken:
            self.close()
        else:
            worker = self.worker
            worker.poller.expect(self, worker.pace.idle_s)
            if self._reader.in_hand:
                self._pause()
                worker.poller.call(self._go_on)
            else:
                self._resume()

    def _send_rest(self, request: Request) -> bool:
        unsent, self._unsent = self._unsent, []
        for data in unsent:
            self.worker.gateway.send(self.sock, data)
        self.is_busy, self.may_refuse = False, True
        return not request.is_last

    def _send_interim(self) -> None:
        self.sock.send(INTERIM_RESPONSE, socket.MSG_DONTWAIT)


def _send_nothing(_data: bytes) -> None:
    """Send a caller who has left nothing."""


def _refuse(error: BadRequestError) -> bool:
    """Let the thread answer as it does to no request."""
    raise error
