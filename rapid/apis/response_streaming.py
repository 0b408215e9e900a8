"""The answer to InvokeWithResponseStream: an event stream that is sent while it is made.

Source: API_InvokeWithResponseStream.
"""

from __future__ import annotations

import threading
from http import HTTPStatus

from lambda_protocol import headers
from lambda_protocol.errors import LambdaApiError
from lambda_protocol.invocation import Invocation, Outcome
from lambda_protocol.invoke_http import RELAYED_REQUEST_ID, encode_error
from lambda_protocol.response_stream import (
    encode_chunk,
    encode_end,
    encode_fault,
    stream_headers,
)
from rapid.call import Call
from rapid.exchange import Exchange
from rapid.streamed_answer import StreamedAnswer


def streamed_call(exchange: Exchange, invocation: Invocation, version: str) -> Call:
    """Return the call whose response ``exchange`` is answered with."""
    answer = _EventStreamAnswer(exchange, invocation, version)
    return Call(invocation, answer.on_outcome, sink=answer)


class _EventStreamAnswer:
    """The answer; a :class:`rapid.response_sink.ResponseSink`."""

    def __init__(self, exchange: Exchange, invocation: Invocation, version: str) -> None:
        self.patience_s: float | None = None  # each part is sent at once
        self._exchange = exchange
        self._invocation = invocation
        self._version = version
        self._lock = threading.Lock()
        self._answer: StreamedAnswer | None = None  # guarded by _lock
        self._is_over = False  # guarded by _lock

    def begin(self, content_type: str) -> None:
        """Answer 200, with the first part."""
        with self._lock:
            if not self._is_over:
                self._answer = self._begin(content_type)

    def write(self, data: bytes) -> None:
        """Send a part at once."""
        if self._answer is not None:
            self._answer.write(encode_chunk(data))

    def flush(self) -> None:
        """Do nothing: no part was kept."""

    def on_outcome(self, outcome: Outcome | LambdaApiError) -> None:
        """End the answer."""
        with self._lock:
            self._is_over = True
            answer = self._answer
        if isinstance(outcome, Outcome):
            if answer is None:
                answer = self._begin("application/json")
            if answer is not None:
                answer.end(encode_end(outcome))
        elif answer is not None:
            answer.end(encode_fault(outcome), is_clean=False)
        else:
            response = encode_error(outcome, self._invocation.request_id)
            self._exchange.answer(response.status, response.headers, response.body)

    def _begin(self, content_type: str) -> StreamedAnswer | None:
        fields = stream_headers(self._invocation, self._version)
        if RELAYED_REQUEST_ID in self._exchange.request.headers:
            fields.append((headers.RESPONSE_CONTENT_TYPE, content_type))
        return self._exchange.stream(HTTPStatus.OK, fields)
