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

from lambda_protocol.http1 import BadRequestError, Request, RequestReader
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
        self._peer: HttpPeer | None = None  # made when the caller is first looked at
        self._version = ""  # of HTTP, of the request that is served
        self._has_begun = False  # a request of which not all has come
        self._is_paused = False  # what the caller sends during a call waits in the kernel
        self._has_left = False
        self._is_broken = False
        self._is_serving = False  # :meth:`_go_on` is on the stack, and goes on
        self._unsent: list[bytes] = []  # of an answer

    def make_reader(self, **_options: Any) -> RequestReader:
        """Return the reader, which may have begun a request, to the thread that reads now."""
        self._has_begun = False
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

    def close(self) -> None:
        """Close it, also while a call runs."""
        self._has_left = True
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
            return not request.is_last

        self._give_thread(work)

    def has_left(self) -> bool:
        """Whether the caller is known to be gone."""
        if not self._has_left:
            if self._peer is None:
                self._peer = HttpPeer(self.sock, self._send_interim, http_version=self._version)
            self._has_left = self._peer.has_left(reset_wait_ms=0)
        return self._has_left

    def _go_on(self) -> None:
        """Serve what is in hand."""
        worker, reader = self.worker, self._reader
        self._is_serving = True
        while not self.is_busy:
            try:
                request = reader.take_short()
            except NotShortError:
                worker.give_thread(self)
                break
            if request is None:
                if reader.in_hand and not self._has_begun:  # the first of its bytes sets the limit
                    self._has_begun = True
                    worker.poller.expect(self, _PATIENCE_S)
                break
            worker.poller.met(self)
            self._begin(request)
            if self._plain.serve(self, request):
                worker.count_request()
            else:
                self.serve_in_thread(request)
            if not self.is_polled:
                break
        self._is_serving = False

    def _begin(self, request: Request) -> None:
        self.is_busy, self._has_begun = True, False
        self._peer, self._version = None, request.version
        self._is_paused = False

    def _on_news_of_caller(self) -> None:
        """Leave it in the kernel until the answer is sent, and see whether the caller has gone."""
        if self._is_paused or self.has_left():  # in a pause only a reset is told
            self._has_left = True
            self.worker.leave_poller(self)
            return
        self._is_paused = True
        self.worker.poller.pause(self.sock.fileno())

    def _give_thread(self, work: Callable[[], bool]) -> None:
        self.work = work
        self.worker.give_thread(self)

    # --- whoever has the connection: the poller's thread, or another

    def respond(self, request: Request, status: str, answer: HttpResponse) -> None:
        """Answer ``request``, and go on to the next one."""
        gateway = self.worker.gateway
        is_polled = self.is_polled
        if self._has_left:
            self.close()
            return
        gateway.decide_last(request)
        send = self._send if is_polled else functools.partial(gateway.send, self.sock)
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
        if is_polled:
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
            self.is_busy = True
            self._give_thread(functools.partial(self._send_rest, request))
        elif request.is_last or self._is_broken:
            self.close()
        else:
            worker = self.worker
            if self._is_paused:
                self._is_paused = False
                worker.poller.resume(self.sock.fileno())
            worker.poller.expect(self, worker.pace.idle_s)
            if self._reader.in_hand and not self._is_serving:
                self._go_on()

    def _send_rest(self, request: Request) -> bool:
        unsent, self._unsent = self._unsent, []
        for data in unsent:
            self.worker.gateway.send(self.sock, data)
        self.is_busy = False
        return not request.is_last

    def _send_interim(self) -> None:
        self.sock.send(INTERIM_RESPONSE, socket.MSG_DONTWAIT)


def _refuse(error: BadRequestError) -> bool:
    """Let the thread answer as it does to no request."""
    raise error
