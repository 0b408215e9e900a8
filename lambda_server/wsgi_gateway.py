"""The way from an HTTP request to a WSGI application and back, for both workers."""

from __future__ import annotations

import datetime
import functools
import io
import socket
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from gunicorn.workers.gthread import TConn, ThreadWorker

from lambda_protocol.answers_in_hand import AnswersInHand
from lambda_protocol.byte_budget import too_many_bytes
from lambda_protocol.errors import (
    BadRequestException,
    LambdaApiError,
    ServiceException,
    ServiceUnavailable,
)
from lambda_protocol.http1 import Request
from lambda_protocol.http_head import BadRequestError
from lambda_protocol.invocation import new_request_id
from lambda_protocol.invoke_http import HttpResponse, encode_error
from lambda_protocol.pace import Pace
from lambda_server.caller import IS_COUNTED
from lambda_server.wsgi_response import JOINED_BYTES, Response


class WsgiGateway:
    """Serves requests by a worker's application. Thread-safe."""

    def __init__(
        self, worker: ThreadWorker, *, pace: Pace, limit_bytes: int, is_ending: Callable[[], bool]
    ) -> None:
        """Hold at most ``limit_bytes`` of answers; each is the last if the worker ``is_ending``."""
        self._wsgi = worker.wsgi
        self._cfg = worker.cfg
        self._log = worker.log
        self._pace = pace
        self._is_ending = is_ending
        self._answers = AnswersInHand(limit_bytes)

    def serve(self, connection: TConn, request: Request) -> None:
        """Answer ``request``, and wait for a slow client; raises ``OSError``."""
        send_part = functools.partial(self._pace.between_parts.send, connection.sock)
        response = Response(functools.partial(self.send, connection.sock), request, send_part)
        environ = self._environ(connection, request)
        try:
            chunks = self._wsgi(environ, response.start)
            self.decide_last(request)
            response.send(chunks)
        finally:
            request.release()
            self._log_access(response, request, environ)

    def decide_last(self, request: Request) -> None:
        """Let the answer to ``request`` be the last if the stop has begun during the call."""
        if self._is_ending():
            request.is_last = True

    def log_access(self, response: Response, request: Request, connection: TConn) -> None:
        """Log a request that the application has not served, if an access log is asked for."""
        if self._log.access_log.hasHandlers():
            self._log_access(response, request, self._environ(connection, request))

    def send(self, sock: socket.socket, data: bytes) -> None:
        """Write ``data``, and wait for a slow client; raises ``OSError``."""
        if len(data) <= JOINED_BYTES:
            self._pace.send(sock, data)
            return
        self._answers.add(sock, len(data))
        try:
            self._pace.send(sock, data)
        finally:
            self._answers.remove(sock)

    def answer_health(self, request: Request) -> bytes:
        """Return the response to a request that the reserve has read."""
        written: list[bytes] = []
        response = Response(written.append, request)
        response.send(self._wsgi(self._environ(None, request), response.start))
        return b"".join(written)

    def refuse(self, connection: TConn, error: BadRequestError) -> None:
        """Answer bytes that never became a request; raises ``OSError``."""
        head, body = render_error(error)
        self._pace.send(connection.sock, head + body)
        environ = dict.fromkeys(("REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL"), "-")
        if isinstance(connection.client, tuple):
            environ["REMOTE_ADDR"] = connection.client[0]
        response = SimpleNamespace(status=str(error.status), headers=[], sent=len(body))
        self._log.access(response, SimpleNamespace(headers={}), environ, datetime.timedelta())

    def _log_access(self, response: Response, request: Request, environ: dict[str, Any]) -> None:
        took = datetime.timedelta(seconds=time.monotonic() - request.began_at)
        self._log.access(response, request, environ, took)

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
            "wsgi.url_scheme": "https" if self._cfg.is_ssl else "http",
            "wsgi.input": io.BytesIO(request.body),
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": self._cfg.workers > 1,
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


@functools.lru_cache(maxsize=1024)
def _wsgi_name(header: str) -> str:
    name = header.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


def _decoded(path: str) -> str:
    return unquote_to_bytes(path).decode("latin-1") if "%" in path else path


def render_error(error: BadRequestError) -> tuple[bytes, bytes]:
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


#: To a connection for which there is no place.
REFUSAL: Final = b"".join(
    render_error(BadRequestError(503, "There is no place for another connection."))
)
