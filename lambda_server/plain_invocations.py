"""Invocations that need no thread: a short payload by POST, answered when its outcome comes.

The poller's thread decodes, publishes and answers them, by the functions that the Flask application
uses. All else is left to a thread and the application: another type of invocation, web pages,
hooks of the user's, and every call while there is no connection to RabbitMQ.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

from flask import Flask

from lambda_protocol.amqp_stream import NotSentError
from lambda_protocol.errors import LambdaApiError, ServiceException
from lambda_protocol.http1 import Request
from lambda_protocol.invocation import Invocation, InvocationType, Outcome, new_request_id
from lambda_protocol.invoke_http import (
    INVOCATION_TYPE,
    HttpResponse,
    InvokePath,
    encode_error,
    encode_outcome,
    parse_invoke_path,
)
from lambda_protocol.poller import Poller
from lambda_server.amqp_invoker import AmqpInvoker
from lambda_server.app import EXTENSION, Parts
from lambda_server.broker import RETRY_S, Broker
from lambda_server.invoke_api import STATUS_LINES, as_api_error
from lambda_server.polled_link import PolledLink, Question

#: Headers of web pages.
_OF_PAGES: Final = ("origin", "sec-fetch-site")


class Connection(Protocol):
    """The caller's. For the poller's thread, but for what says otherwise."""

    def respond(self, request: Request, status: str, answer: HttpResponse) -> None:
        """Answer ``request``, and go on to the next one; any thread that has the connection."""

    def serve_in_thread(self, request: Request) -> None:
        """Let a thread serve ``request`` by the application."""

    def wait_in_thread(self, request: Request, wait: Callable[[], object]) -> None:
        """Let a thread do ``wait``, which responds to ``request``."""

    def has_left(self) -> bool:
        """Whether the caller is gone."""

    def close(self) -> None:
        """End it."""


class PlainInvocations:
    """Serves them by a link of its own. The poller's thread."""

    def __init__(self, parts: Parts, broker: Broker, poller: Poller) -> None:
        """Connect on use."""
        self.parts = parts
        self.broker = broker
        self._poller = poller
        self._link: PolledLink | None = None
        self._is_opening = False
        self._tries_at = 0.0  # when it may be tried again to connect, monotonic seconds

    @classmethod
    def of(cls, application: object, poller: Poller) -> PlainInvocations | None:
        """Return those of a WSGI application; None if it is not ours, or has no broker."""
        parts = application.extensions.get(EXTENSION) if isinstance(application, Flask) else None
        if parts is None or not isinstance(parts.backend, AmqpInvoker):
            return None
        plain = cls(parts, parts.backend.broker, poller)
        poller.call(plain.connect)
        return plain

    def serve(self, connection: Connection, request: Request) -> bool:
        """Take ``request``, and answer it in the end; False if a thread has to serve it."""
        path = _path_of(request)
        if path is None or not self.parts.is_untouched():
            return False
        if self.parts.urls.forms.is_url_host(request.headers.get("host", "")):
            return False
        link = self._link
        if link is None or link.is_over:
            self.connect()
            return False
        if link.is_full or self.broker.has_alarm:
            return False
        exchange = _Exchange(self, connection, request)
        try:
            invocation = exchange.invocation = self.parts.api.decode(
                path, request.headers.get, lambda: request.body, exchange.request_id
            )
            link.call(invocation, exchange, queue_timeout_s=self.parts.queue_timeout_s)
        except NotSentError:
            return False
        except Exception as error:
            exchange.refuse(as_api_error(error, exchange.request_id))
        return True

    def connect(self) -> None:
        """Have a thread connect, unless one does or has failed to just now."""
        if self._is_opening or time.monotonic() < self._tries_at:
            return
        self._is_opening = True
        try:
            threading.Thread(target=self._connect, name="broker-connect", daemon=True).start()
        except RuntimeError:
            self._on_connected(None)

    def _connect(self) -> None:
        link: PolledLink | None = None
        try:
            link = self.broker.connect_polled(self._poller)
        except LambdaApiError:
            pass  # the log tells, and so does the thread that serves the call
        finally:
            self._poller.call(lambda: self._on_connected(link))

    def _on_connected(self, link: PolledLink | None) -> None:
        self._is_opening = False
        if link is None:
            self._tries_at = time.monotonic() + RETRY_S
            return
        link.begin()
        self._link = link


class _Exchange:
    """A request, its invocation and its one answer; a ``Listener``."""

    __slots__ = ("_connection", "_owner", "_request", "invocation", "request_id")

    def __init__(self, owner: PlainInvocations, connection: Connection, request: Request) -> None:
        self._owner = owner
        self._connection = connection
        self._request = request
        self.request_id = new_request_id()
        self.invocation: Invocation | None = None

    def on_outcome(self, outcome: Outcome) -> None:
        invocation = self.invocation
        assert invocation is not None
        took_s = time.monotonic() - self._request.began_at
        self._owner.parts.invoker.count(invocation, outcome, took_s)
        self._respond(encode_outcome(invocation, outcome))

    def on_error(self, error: Exception) -> None:
        assert self.invocation is not None
        self._owner.parts.invoker.count_failure(self.invocation, error)
        self.refuse(as_api_error(error, self.request_id))

    def on_question(self, question: Question) -> None:
        self._connection.wait_in_thread(self._request, lambda: self._ask(question))

    def on_not_sent(self) -> None:
        self._connection.serve_in_thread(self._request)

    def has_left(self) -> bool:
        return self._connection.has_left()

    def close(self) -> None:
        self._connection.close()

    def refuse(self, error: LambdaApiError) -> None:
        """Answer with ``error``."""
        self._respond(encode_error(error, self.request_id))

    def _ask(self, question: Question) -> None:
        try:
            with self._owner.broker.client() as client:
                error = question(client)
        except LambdaApiError as reason:
            error = reason
        except OSError:
            error = ServiceException("The connection to the broker was lost.")
        self.on_error(error)

    def _respond(self, response: HttpResponse) -> None:
        if response.status != HTTPStatus.NO_CONTENT:
            response.headers.append(("Content-Length", str(len(response.body))))
        self._connection.respond(self._request, STATUS_LINES[response.status], response)


def _path_of(request: Request) -> InvokePath | None:
    """Return what a plain invocation asks for; None for any other request."""
    headers, path = request.headers, request.path
    if request.method != "POST" or not path.isascii() or any(map(headers.__contains__, _OF_PAGES)):
        return None
    kind = headers.get(INVOCATION_TYPE, InvocationType.REQUEST_RESPONSE)
    if kind != InvocationType.REQUEST_RESPONSE:
        return None
    if "%" in path:
        path = unquote_to_bytes(path).decode("utf-8", "replace")
    found = parse_invoke_path(path, request.query)
    return None if found is None or found.is_async or found.is_streaming else found
