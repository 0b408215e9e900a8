"""Serves function URLs: WSGI middleware in front of the application, and a Flask blueprint.

The middleware answers a request to a function URL itself, as the accelerator answers an
invocation. If the application has hooks of its own, the blueprint answers, so that they run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from flask import Blueprint, Flask, Response, request
from werkzeug.exceptions import HTTPException, NotFound

from lambda_protocol.byte_budget import Share
from lambda_protocol.errors import LambdaApiError
from lambda_protocol.function_name import FunctionRef, parse_function_name
from lambda_protocol.function_url import PATH_PREFIX
from lambda_protocol.http_answer import BODILESS
from lambda_protocol.http_head import METHODS
from lambda_protocol.http_peer import shown_address
from lambda_protocol.invoke_http import HeaderLookup, HttpResponse
from lambda_protocol.limits import SYNC_PAYLOAD_BYTES
from lambda_protocol.url_exchange import UrlExchange
from lambda_server.caller import IS_COUNTED, caller_of
from lambda_server.invoke_api import (
    InvokeApi,
    as_api_error,
    count_hooks,
    read_payload,
    status_line,
    to_flask,
)
from lambda_server.streamed_response import StreamedHttpResponse
from lambda_server.urls.forms import Forms, Target
from lambda_server.urls.sources import UrlSource
from lambda_server.urls.url_stream import respond

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

    from lambda_server.config import Config
    from lambda_server.metrics import MeteredInvoker

#: Where the WSGI environment has what the middleware has found.
_TARGET: Final = "lambda_server.url_target"


class UrlApi:
    """Answers requests to function URLs. Thread-safe."""

    def __init__(
        self, config: Config, invoker: MeteredInvoker, source: UrlSource, invoke_api: InvokeApi
    ) -> None:
        """Give invocations to ``invoker``; bodies count against the budget of ``invoke_api``."""
        self.forms = Forms(config, source)
        self.source = source
        self._config = config
        self._invoker = invoker
        self._budget = invoke_api.budget

    def serve(self, environ: dict[str, Any], target: Target) -> HttpResponse | StreamedHttpResponse:
        """Answer a request that ``target`` was found for."""
        header = _header_lookup(environ)
        share = None if IS_COUNTED in environ else Share(self._budget)
        url = UrlExchange(None, header)
        try:
            if target.error is not None:
                raise target.error
            function = self._function(target)
            if function is not None:
                url.settings = self.source.settings(function.name)
            refusal = url.refusal(environ["REQUEST_METHOD"])
            if refusal is not None:
                return refusal
            assert function is not None  # else it was refused
            path, query = _raw_target(environ)
            invocation = url.invocation(
                function,
                method=environ["REQUEST_METHOD"],
                path=path.removeprefix(target.prefix),
                query=query,
                headers=_headers(environ),
                body=read_payload(environ, SYNC_PAYLOAD_BYTES, share),
                source_ip=shown_address(environ.get("REMOTE_ADDR", "")),
                scheme=environ["wsgi.url_scheme"],
                protocol=environ["SERVER_PROTOCOL"],
                prefix=target.prefix,
            )
            caller = caller_of(environ)
            if url.settings is not None and url.settings.streams:
                streamed = self._invoker.stream(invocation, caller)
                return respond(url, streamed, is_head=environ["REQUEST_METHOD"] == "HEAD")
            return url.response(self._invoker.invoke(invocation, caller))
        except Exception as error:
            return url.response(as_api_error(error, url.request_id))
        finally:
            if share is not None:
                share.give()

    def _function(self, target: Target) -> FunctionRef | None:
        """Return the function that is meant; None if no function can have the name."""
        if target.function is None:
            return None
        config = self._config
        try:
            return parse_function_name(
                target.function.name,
                target.function.qualifier,
                region=config.region,
                account_id=config.account_id,
            )
        except LambdaApiError:
            return None

    def blueprint(self) -> Blueprint:
        """Return the route by which hooks of the application's own are run."""
        blueprint = Blueprint("urls", __name__)

        def url(**_name: str) -> Response:
            return to_flask(self.serve(request.environ, request.environ[_TARGET]))

        blueprint.add_url_rule(
            f"{PATH_PREFIX}<path:name>",
            view_func=url,
            methods=sorted(METHODS),
            provide_automatic_options=False,
        )
        return blueprint


class UrlMiddleware:
    """WSGI middleware: hands on what is for no function URL. Thread-safe."""

    def __init__(self, app: Flask, api: UrlApi, others: WSGIApplication) -> None:
        """Stand in front of ``others``. ``app`` itself serves URLs if it has hooks of its own."""
        self._app = app
        self._flask = app.wsgi_app
        self._api = api
        self._forms = api.forms
        self._others = others
        self._own_hooks = count_hooks(app)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, as WSGI asks."""
        host = environ.get("HTTP_HOST", "")
        if not self._forms.may_be_url(host, environ["PATH_INFO"]):
            return self._others(environ, start_response)
        try:
            target = self._forms.find(host, _raw_target(environ)[0], lambda: self._is_own(environ))
        except LambdaApiError as error:  # the host may be a function's
            target = Target(None, error=error)
        if target is None or environ["REQUEST_METHOD"] not in METHODS:
            return self._others(environ, start_response)
        self._api.source.start()
        if count_hooks(self._app) != self._own_hooks:
            environ[_TARGET] = target
            environ["PATH_INFO"] = f"{PATH_PREFIX}url"
            return self._flask(environ, start_response)
        response = self._api.serve(environ, target)
        if isinstance(response, StreamedHttpResponse):
            start_response(status_line(response.status), response.headers)
            return response.parts
        if response.status not in BODILESS:
            response.headers.append(("Content-Length", str(len(response.body))))
        start_response(status_line(response.status), response.headers)
        return (b"" if environ["REQUEST_METHOD"] == "HEAD" else response.body,)

    def _is_own(self, environ: dict[str, Any]) -> bool:
        """Return whether the application has a route for the path, also one of the user's."""
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
        try:
            self._app.url_map.bind("").match(path, method=environ["REQUEST_METHOD"])
        except NotFound:
            return False
        except HTTPException:  # it is for another method, or leads elsewhere
            return True
        return True


def _raw_target(environ: dict[str, Any]) -> tuple[str, str]:
    """Return path and query as they came, where the WSGI server tells; gunicorn does."""
    target = environ.get("RAW_URI")
    if target is None:
        return quote(environ["PATH_INFO"].encode("latin-1")), environ.get("QUERY_STRING", "")
    if not target.startswith("/") and "://" in target:  # as sent to a proxy
        target = "/" + target.partition("://")[2].partition("/")[2]
    path, _, query = target.partition("?")
    return path, query


def _headers(environ: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            yield name[5:].lower().replace("_", "-"), value
    if environ.get("CONTENT_TYPE"):
        yield "content-type", environ["CONTENT_TYPE"]


def _header_lookup(environ: dict[str, Any]) -> HeaderLookup:
    return lambda name: environ.get("HTTP_" + name.upper().replace("-", "_"))
