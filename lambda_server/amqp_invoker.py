"""The ``Invoker`` of a server with a broker: the function's name is its queue."""

from __future__ import annotations

from collections.abc import Generator
from typing import cast

from lambda_protocol.amqp_stream import NotSentError
from lambda_protocol.errors import ServiceException
from lambda_protocol.http_peer import HttpPeer
from lambda_protocol.invocation import Invocation, InvocationType, Outcome
from lambda_protocol.response_stream import Parts, Streamed
from lambda_protocol.streamed_amqp import End, Head
from lambda_server.broker import Broker
from lambda_server.stream_reading import Windows


class AmqpInvoker:
    """Runs invocations by AMQP-RPC. Thread-safe: each thread has its own client."""

    def __init__(self, broker: Broker) -> None:
        """Use ``broker``'s connections."""
        self.broker = broker
        self._windows = Windows()

    def invoke(self, invocation: Invocation, caller: HttpPeer | None = None) -> Outcome:
        """Run, accept or check ``invocation``; see ``Invoker``."""
        try:
            return self._invoke(invocation, caller)
        except NotSentError:
            pass  # the connection had been lost since its last use: once more, on a new one
        try:
            return self._invoke(invocation, caller)
        except NotSentError as error:
            raise ServiceException("The connection to the broker was lost.") from error

    def stream(self, invocation: Invocation, caller: HttpPeer | None = None) -> Streamed:
        """Run ``invocation``, and return when its response begins; see ``StreamingInvoker``."""
        try:
            return self._begin(invocation, caller)
        except NotSentError:
            pass
        try:
            return self._begin(invocation, caller)
        except NotSentError as error:
            raise ServiceException("The connection to the broker was lost.") from error

    def announce(self) -> None:
        """Log whether the broker is reached, once it is known; returns at once."""
        self.broker.announce()

    def missing(self) -> str | None:
        """Return what keeps the server from being ready, or None."""
        return self.broker.missing()

    def silent(self) -> tuple[str, ...]:
        """Return no function: a function without instances is no fault of the broker's."""
        return ()

    def _begin(self, invocation: Invocation, caller: HttpPeer | None) -> Streamed:
        parts = self._stream(invocation, caller)
        try:
            head = next(parts)
        except StopIteration as end:
            return Streamed.whole(end.value.outcome, end.value.content_type)
        assert isinstance(head, Head)
        return Streamed(
            content_type=head.content_type,
            executed_version=head.executed_version,
            parts=_outcome_of(cast(Generator[bytes, None, End], parts)),
        )

    def _stream(
        self, invocation: Invocation, caller: HttpPeer | None
    ) -> Generator[Head | bytes, None, End]:
        with self.broker.client() as client, self._windows.opened() as window_bytes:
            return (yield from client.stream(invocation, caller, self.broker.aside, window_bytes))

    def _invoke(self, invocation: Invocation, caller: HttpPeer | None) -> Outcome:
        with self.broker.client() as client:
            if invocation.type is InvocationType.REQUEST_RESPONSE:
                return client.call(invocation, caller)
            if invocation.type is InvocationType.EVENT:
                client.publish_async(invocation)
            else:
                client.require_function(invocation.function)
            return Outcome()


def _outcome_of(parts: Generator[bytes, None, End]) -> Parts:
    return (yield from parts).outcome
