"""The answer of a function URL that streams: sent to the caller while its function writes it."""

from __future__ import annotations

import threading

from lambda_protocol.errors import LambdaApiError
from lambda_protocol.http_answer import BODILESS, BadAnswerError, PreludeReader
from lambda_protocol.invocation import Outcome
from lambda_protocol.invoke_http import HttpResponse
from lambda_protocol.url_exchange import UrlExchange
from rapid.exchange import Exchange
from rapid.streamed_answer import StreamedAnswer


class UrlStream:
    """The answer; a :class:`rapid.response_sink.ResponseSink`."""

    def __init__(self, exchange: Exchange, url: UrlExchange) -> None:
        """Answer ``exchange``, of which ``url`` knows what every answer has."""
        self.patience_s: float | None = None  # each part is sent at once
        self._exchange = exchange
        self._url = url
        self._reader = PreludeReader(None)
        self._lock = threading.Lock()
        self._answer: StreamedAnswer | None = None  # guarded by _lock
        self._is_over = False  # guarded by _lock: answered whole, or the outcome has come

    def begin(self, content_type: str) -> None:
        """Note whether a prelude follows."""
        self._reader = PreludeReader(content_type)

    def write(self, data: bytes) -> None:
        """Send a part at once, once status and headers are known."""
        with self._lock:
            answer = self._answer
            if answer is None and not self._is_over:
                answer, data = self._read_head(data)
        if answer is not None:
            answer.write(data)

    def flush(self) -> None:
        """Do nothing: no part was kept."""

    def on_outcome(self, outcome: Outcome | LambdaApiError) -> None:
        """End the answer, or break it off if the function has failed meanwhile."""
        with self._lock:
            rest = _what_is_left(outcome)
            if self._answer is None and not self._is_over and rest is not None:
                _, rest = self._read_head(rest)
                if self._answer is None and not self._is_over:
                    self._send(self._url.unsendable(BadAnswerError("the prelude does not end")))
            answer, is_over, self._is_over = self._answer, self._is_over, True
        if answer is not None:
            answer.end(rest or b"", is_clean=rest is not None)
        elif not is_over:
            self._send(self._url.response(outcome))

    def _read_head(self, data: bytes) -> tuple[StreamedAnswer | None, bytes]:
        """Begin the answer, if ``data`` ends the prelude; return it, and what follows."""
        try:
            found = self._reader.feed(data)
        except BadAnswerError as error:
            self._send(self._url.unsendable(error))
            return None, b""
        if found is None:
            return None, b""
        response = self._url.begun(found[0])
        if response.status in BODILESS or self._exchange.request.method == "HEAD":
            self._send(response)
            return None, b""
        self._answer = self._exchange.stream(response.status, response.headers)
        return self._answer, found[1]

    def _send(self, response: HttpResponse) -> None:
        """Answer whole; what the function still writes is dropped."""
        self._is_over = True
        self._exchange.answer(response.status, response.headers, response.body)


def _what_is_left(outcome: Outcome | LambdaApiError) -> bytes | None:
    """Return the last bytes of a response; None if the function has failed."""
    if isinstance(outcome, LambdaApiError) or outcome.function_error is not None:
        return None
    return outcome.payload
