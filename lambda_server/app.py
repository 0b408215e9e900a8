"""The Flask application: the Invoke API, its errors, its health and its figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from flask import Flask, Response, g, jsonify
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from lambda_protocol.errors import (
    InvalidRequestContentException,
    LambdaApiError,
    MethodNotAllowedException,
    UnknownOperationException,
)
from lambda_protocol.http_peer import HttpPeer
from lambda_protocol.invocation import Invocation, Outcome, new_request_id
from lambda_protocol.invoke_http import encode_error
from lambda_protocol.response_stream import Streamed
from lambda_server.amqp_invoker import AmqpInvoker
from lambda_server.broker import Broker
from lambda_server.config import Config
from lambda_server.cors import CorsMiddleware
from lambda_server.http_invoker import HttpInvoker
from lambda_server.invoke_api import Accelerator, InvokeApi, as_api_error, to_flask
from lambda_server.metrics import MeteredInvoker, expose_metrics
from lambda_server.urls.announcements import Announcements
from lambda_server.urls.sources import AnnouncedUrls, AskedUrls, UrlSource
from lambda_server.urls.url_api import UrlApi, UrlMiddleware


class ReadyInvoker(Protocol):
    """An ``Invoker`` that can say whether it could work now, and for whom not."""

    def invoke(self, invocation: Invocation, caller: HttpPeer | None = None) -> Outcome:
        """See ``Invoker``."""

    def stream(self, invocation: Invocation, caller: HttpPeer | None = None) -> Streamed:
        """See ``StreamingInvoker``."""

    def missing(self) -> str | None:
        """Return what keeps it from working, or None."""

    def silent(self) -> tuple[str, ...]:
        """Return the functions that are known not to answer."""


#: Where ``Flask.extensions`` has the parts.
EXTENSION: Final = "lambda_server"


@dataclass(frozen=True, slots=True)
class Parts:
    """What an application is made of, for a worker that serves plain invocations itself."""

    app: Flask
    api: InvokeApi
    invoker: MeteredInvoker
    backend: ReadyInvoker
    accelerator: Accelerator
    urls: UrlApi
    wsgi_app: object  #: what Flask calls, outermost
    queue_timeout_s: float

    def is_untouched(self) -> bool:
        """Whether nothing of the user's stands in front of the application, or around requests."""
        return self.app.wsgi_app is self.wsgi_app and not self.accelerator.has_hooks()


def create_app(
    config: Config, invoker: ReadyInvoker | None = None, url_source: UrlSource | None = None
) -> Flask:
    """Return the application for ``config``; the others replace what the config asks for."""
    backend = make_invoker(config) if invoker is None else invoker
    app = Flask("lambda_server", static_folder=None)
    expose_metrics(app)
    app.url_map.merge_slashes = False  # a name with two slashes is malformed, not elsewhere
    metered = MeteredInvoker(backend)
    api = InvokeApi(config, metered)
    app.register_blueprint(api.blueprint())
    urls = UrlApi(config, metered, url_source or make_url_source(config), api)
    app.register_blueprint(urls.blueprint())

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    @app.get("/readyz")
    def readyz() -> tuple[Response, int]:
        missing, silent = backend.missing(), backend.silent()
        body = {"status": missing or "ready", **({"not_answering": silent} if silent else {})}
        return jsonify(body), 200 if missing is None else 503

    @app.errorhandler(Exception)
    def on_error(error: Exception) -> Response:
        request_id = g.get("request_id") or new_request_id()
        return to_flask(encode_error(_as_api_error(error, request_id), request_id))

    accelerator = Accelerator(app, api)
    outermost = UrlMiddleware(app, urls, CorsMiddleware(config.allowed_origins, accelerator))
    app.wsgi_app = outermost  # type: ignore[method-assign]
    app.extensions[EXTENSION] = Parts(
        app, api, metered, backend, accelerator, urls, outermost, config.queue_timeout_s
    )
    return app


def make_invoker(config: Config) -> AmqpInvoker | HttpInvoker:
    """Return the way to the functions: the broker when there is one, else their endpoints."""
    if config.broker is None:
        return HttpInvoker(
            config.endpoints,
            connect_timeout_s=config.connect_timeout_s,
            answer_timeout_s=config.invoke_timeout_s + config.queue_timeout_s,
        )
    return AmqpInvoker(
        Broker(
            config.broker,
            queue_timeout_s=config.queue_timeout_s,
            connect_timeout_s=config.connect_timeout_s,
            is_shared=config.shares_broker_connection,
        )
    )


def make_url_source(config: Config) -> UrlSource:
    """Return how function URLs are known: rapids announce them, or are asked."""
    if config.broker is None:
        return AskedUrls(config.endpoints)
    announcements = Announcements(config.broker, connect_timeout_s=config.connect_timeout_s)
    return AnnouncedUrls(announcements.listen)


def _as_api_error(error: Exception, request_id: str) -> LambdaApiError:
    """Return the API error for an exception, Flask's own exceptions included."""
    if isinstance(error, NotFound):
        return UnknownOperationException("No operation of the Invoke API has this path.")
    if isinstance(error, MethodNotAllowed):
        return MethodNotAllowedException("The operation does not take this method.")
    if isinstance(error, HTTPException) and (error.code or 500) < 500:
        return InvalidRequestContentException(error.description or error.name)
    return as_api_error(error, request_id)
