"""The answer of a function URL that streams: its head as soon as it is known, then its parts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lambda_protocol.errors import ServiceException
from lambda_protocol.http_answer import BODILESS, BadAnswerError, PreludeReader
from lambda_protocol.invocation import Outcome
from lambda_protocol.invoke_http import HttpResponse
from lambda_protocol.response_stream import Parts, Streamed
from lambda_protocol.url_exchange import UrlExchange
from lambda_server.streamed_response import StreamedHttpResponse, cut_off


def respond(
    url: UrlExchange, streamed: Streamed, *, is_head: bool
) -> HttpResponse | StreamedHttpResponse:
    """Return the response, once the function has written its head.

    Raises ``LambdaApiError`` and ``CallerGoneError``. The parts of what is returned raise
    ``OSError`` if the function fails later on: then the connection is to be cut.
    """
    parts = streamed.parts
    with contextlib.ExitStack() as stack:
        stack.callback(parts.close)
        reader = PreludeReader(streamed.content_type)
        try:
            found, outcome = None, None
            while found is None and outcome is None:
                data, outcome = _next(parts)
                if outcome is not None and outcome.function_error is not None:
                    return url.response(outcome)
                found = reader.feed(data)
            if found is None:
                raise BadAnswerError("the prelude does not end")
        except BadAnswerError as error:
            return url.unsendable(error)
        head, first = found
        response = url.begun(head)
        if is_head or response.status in BODILESS:
            return response
        stack.pop_all()  # the parts are closed when the answer ends
    rest = iter(()) if outcome is not None else _rest(parts)
    return StreamedHttpResponse(
        response.headers,
        cut_off(_joined(first, rest, parts), url.request_id),
        response.status,
    )


def _next(parts: Parts) -> tuple[bytes, Outcome | None]:
    """Return the next part, and the outcome if it is the last one."""
    try:
        return next(parts), None
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome.payload, outcome


def _rest(parts: Parts) -> Iterator[bytes]:
    outcome = yield from parts
    if outcome.function_error is not None:
        raise ServiceException("The function failed while it wrote its response.")
    yield outcome.payload


def _joined(first: bytes, rest: Iterator[bytes], parts: Parts) -> Iterator[bytes]:
    with contextlib.closing(parts):
        yield first  # though it may be empty: the head goes out with it
        yield from rest
