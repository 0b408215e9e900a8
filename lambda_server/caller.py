"""The HTTP caller of an invocation, as far as gunicorn lets it be seen."""

from __future__ import annotations

from typing import Any, Final

from lambda_protocol.http_peer import INTERIM_RESPONSE, HttpPeer

#: In the WSGI environment of a worker that counts the bytes of payloads before it reads them.
IS_COUNTED: Final = "lambda_server.is_counted"


class CallerGoneError(Exception):
    """The caller hung up before its answer."""


def caller_of(environ: dict[str, Any]) -> HttpPeer | None:
    """Return the caller of a WSGI request; None behind a server that does not give its socket.

    Every worker of gunicorn gives it. Source: gunicorn documentation, ``gunicorn.socket``.
    """
    sock = environ.get("gunicorn.socket")
    if sock is None:
        return None
    return HttpPeer(
        sock, lambda: sock.send(INTERIM_RESPONSE), http_version=environ["SERVER_PROTOCOL"]
    )
