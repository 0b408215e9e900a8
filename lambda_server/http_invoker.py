"""The ``Invoker`` of direct mode: the same Invoke request, sent on to the function's rapid."""

from __future__ import annotations

import contextlib
import http.client
import logging
import threading
from collections.abc import Generator, Iterator, Mapping
from typing import Final, NamedTuple, cast

from lambda_protocol import eventstream
from lambda_protocol import headers as names
from lambda_protocol.address import Address
from lambda_protocol.errors import (
    ResourceNotReadyException,
    ServiceException,
    UnknownOperationException,
)
from lambda_protocol.eventstream import BrokenStreamError, Decoder
from lambda_protocol.function_name import function_not_found
from lambda_protocol.http_client import AnswerTooLargeError, BoundedConnection
from lambda_protocol.http_peer import HttpPeer, has_ended
from lambda_protocol.invocation import Invocation, Outcome
from lambda_protocol.invoke_http import decode_response, encode_request
from lambda_protocol.limits import REPLY_GRACE_S, RESPONSE_PAYLOAD_BYTES, STREAMED_BYTES
from lambda_protocol.response_stream import Parts, Streamed, decode_part
from lambda_server.caller import CallerGoneError
from lambda_server.config import KEPT_ENDPOINTS
from lambda_server.endpoints import Endpoints, shortened

logger = logging.getLogger(__name__)

_NOTHING_SET: Final = "AMQP_URI and LAMBDA_ENDPOINTS are unset or empty"
_WHAT_TO_SET: Final = (
    "set AMQP_URI=amqp://HOST:PORT to use a broker, or LAMBDA_ENDPOINTS=NAME=http://HOST:PORT"
)


#: How much of a streamed response is read at a time, bytes.
_PART_BYTES: Final = 131_072


class _Head(NamedTuple):
    """How a streamed response begins."""

    content_type: str
    executed_version: str


class HttpInvoker:
    """Runs invocations over HTTP. Thread-safe: each thread has its own connections."""

    def __init__(
        self, endpoints: Mapping[str, Address], *, connect_timeout_s: float, answer_timeout_s: float
    ) -> None:
        """``endpoints`` maps a function's name to its rapid."""
        self._endpoints = endpoints
        self._health = Endpoints(endpoints)
        self._connect_timeout_s = connect_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._answer_limit_s = answer_timeout_s + REPLY_GRACE_S
        self._local = threading.local()

    def invoke(self, invocation: Invocation, caller: HttpPeer | None = None) -> Outcome:
        """Run, accept or check ``invocation``; see ``Invoker``."""
        with self._connection(invocation, caller) as connection:
            path, headers = encode_request(invocation)
            connection.request("POST", path, invocation.payload, headers)
            self._wait(connection, caller)
            response, body = connection.read_answer(RESPONSE_PAYLOAD_BYTES)
        return decode_response(response.status, response.headers.get, body)

    def stream(self, invocation: Invocation, caller: HttpPeer | None = None) -> Streamed:
        """Run ``invocation``, and return when its response begins; see ``StreamingInvoker``."""
        parts = self._stream(invocation, caller)
        try:
            head = next(parts)
        except UnknownOperationException:  # an instance of before: it has not run
            return Streamed.whole(self.invoke(invocation, caller))
        assert isinstance(head, _Head)
        return Streamed(
            content_type=head.content_type,
            executed_version=head.executed_version,
            parts=cast(Parts, parts),
        )

    def _stream(
        self, invocation: Invocation, caller: HttpPeer | None
    ) -> Generator[_Head | bytes, None, Outcome]:
        """Yield how the response begins, then its parts."""
        with self._connection(invocation, caller) as connection:
            path, headers = encode_request(invocation, is_streaming=True)
            connection.request("POST", path, invocation.payload, headers)
            self._wait(connection, caller)
            response = connection.begin_answer(2 * STREAMED_BYTES)
            if response.getheader("Content-Type") != eventstream.CONTENT_TYPE:
                body = connection.read_body(response, RESPONSE_PAYLOAD_BYTES)
                decode_response(response.status, response.headers.get, body)
                raise ServiceException("The function's instance answered no stream.")
            version = response.getheader(names.EXECUTED_VERSION) or "$LATEST"
            content_type = response.getheader(names.RESPONSE_CONTENT_TYPE)
            if caller is not None:
                caller.stop_probing()
            yield _Head(content_type or "application/octet-stream", version)
            connection.before_read = lambda _socket: self._wait(connection, caller)
            try:
                return (yield from _decode_parts(response, version))
            finally:
                connection.before_read = None

    @contextlib.contextmanager
    def _connection(
        self, invocation: Invocation, caller: HttpPeer | None
    ) -> Iterator[BoundedConnection]:
        """Lend the connection to the function's instance; an exchange that breaks off closes it."""
        name = invocation.function.name
        address = self._endpoints.get(name)
        if address is None:
            raise function_not_found(invocation.function)
        connection = self._connected(name, address)
        connection.begin(self._answer_limit_s)
        is_whole = False
        try:
            yield connection
            is_whole = True
        except TimeoutError as error:
            raise ServiceException(
                f"The instance of {name} did not answer within {self._answer_timeout_s:g} s."
            ) from error
        except AnswerTooLargeError as error:
            logger.warning("answer too large", extra={"function": name})
            raise ServiceException(
                f"The instance of {name} answered more than {RESPONSE_PAYLOAD_BYTES} bytes."
            ) from error
        except (OSError, http.client.HTTPException, BrokenStreamError) as error:
            # It may have run: a resend could run it twice.
            logger.warning("instance lost", extra={"function": name, "error": repr(error)})
            raise ServiceException(f"The connection to the instance of {name} was lost.") from error
        finally:
            if not is_whole:
                connection.close()  # so the instance knows as well

    def _wait(self, connection: BoundedConnection, caller: HttpPeer | None) -> None:
        """Wait for bytes of the answer; raises ``CallerGoneError``."""
        if caller is not None and not caller.waits_for(connection.sock, self._answer_limit_s):
            raise CallerGoneError

    def announce(self) -> None:
        """Log that no function is configured, if so."""
        if not self._endpoints:
            logger.warning("no function can be called: %s; %s", _NOTHING_SET, _WHAT_TO_SET)

    def missing(self) -> str | None:
        """Return what keeps the server from being ready, or None: one live endpoint is enough."""
        if not self._endpoints:
            return _NOTHING_SET
        silent = self._health.silent()
        if len(silent) < len(self._endpoints):
            return None
        return f"no endpoint of LAMBDA_ENDPOINTS answers: {shortened(silent)}"

    def silent(self) -> tuple[str, ...]:
        """Return the functions whose endpoint does not answer."""
        return self._health.silent()

    def _connected(self, name: str, address: Address) -> BoundedConnection:
        """Return this thread's connection to ``address``, live as far as one can tell."""
        connections: dict[Address, BoundedConnection] | None
        connections = getattr(self._local, "connections", None)
        if connections is None:
            connections = self._local.connections = {}
        connection = connections.get(address)
        if connection is not None and connection.sock is not None:
            if not has_ended(connection.sock):
                return connection
            connection.close()
        connection = BoundedConnection(address)
        connection.begin(self._connect_timeout_s)
        try:
            connection.connect()
        except OSError as error:
            raise ResourceNotReadyException(
                f"No instance of the function {name} is running at {address.url}."
            ) from error
        connections.pop(address, None)
        if len(connections) >= KEPT_ENDPOINTS:
            connections.pop(next(iter(connections))).close()  # the oldest
        connections[address] = connection
        return connection


def _decode_parts(response: http.client.HTTPResponse, version: str) -> Parts:
    """Yield the parts in a response that is an event stream; raises what reading it raises."""
    decoder = Decoder()
    while data := response.read1(_PART_BYTES):
        for message in decoder.feed(data):
            part = decode_part(message, version)
            if isinstance(part, Outcome):
                response.read()  # the end of the body
                return part
            yield part
    raise http.client.IncompleteRead(b"")
