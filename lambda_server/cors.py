"""CORS for the whole server, as WSGI middleware: refusals, preflights, response headers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from lambda_protocol import cors
from lambda_protocol.cors import AllowedOrigins
from lambda_protocol.errors import AccessDeniedException
from lambda_protocol.invocation import new_request_id
from lambda_protocol.invoke_http import encode_error

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

_WSGI_NAMES: Final = {
    name: "HTTP_" + name.upper().replace("-", "_")
    for name in (
        cors.ORIGIN,
        cors.FETCH_SITE,
        cors.HOST,
        cors.FORWARDED_PROTO,
        cors.REQUEST_METHOD,
        cors.REQUEST_HEADERS,
    )
}


class CorsMiddleware:
    """Hands on what may go on. Thread-safe."""

    def __init__(self, allowed: AllowedOrigins, application: WSGIApplication) -> None:
        """Guard ``application``."""
        self._allowed = allowed
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, as WSGI asks."""
        try:
            admission = self._allowed.admit(
                environ["REQUEST_METHOD"],
                environ["PATH_INFO"],
                lambda name: environ.get(_WSGI_NAMES[name]),
                is_tls=environ["wsgi.url_scheme"] == "https",
            )
        except AccessDeniedException as error:
            response = encode_error(error, new_request_id())
            length = ("Content-Length", str(len(response.body)))
            start_response("403 Forbidden", [*response.headers, length])
            return (response.body,)
        if admission.is_preflight:
            start_response("204 No Content", [*admission.headers])
            return (b"",)
        if not admission.headers:
            return self._application(environ, start_response)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
            return start_response(status, [*headers, *admission.headers], exc_info)

        return self._application(environ, start)
