"""The ``Invoker`` of direct mode: the same Invoke request, sent on to the function's rapid."""

from __future__ import annotations

import http.client
import logging
import threading
from collections.abc import Mapping
from typing import Final

from lambda_protocol.address import Address
from lambda_protocol.errors import ResourceNotReadyException, ServiceException
from lambda_protocol.function_name import function_not_found
from lambda_protocol.http_client import AnswerTooLargeError, BoundedConnection
from lambda_protocol.http_peer import HttpPeer, has_ended
from lambda_protocol.invocation import Invocation, Outcome
from lambda_protocol.invoke_http import decode_response, encode_request
from lambda_protocol.limits import REPLY_GRACE_S, RESPONSE_PAYLOAD_BYTES
from lambda_server.caller import CallerGoneError
from lambda_server.config import KEPT_ENDPOINTS
from lambda_server.endpoints import Endpoints, shortened

logger = logging.getLogger(__name__)

_NOTHING_SET: Final = "AMQP_URI and LAMBDA_ENDPOINTS are unset or empty"
_WHAT_TO_SET: Final = (
    "set AMQP_URI=amqp://HOST:PORT to use a broker, or LAMBDA_ENDPOINTS=NAME=http://HOST:PORT"
)


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
        name = invocation.function.name
        address = self._endpoints.get(name)
        if address is None:
            raise function_not_found(invocation.function)
        connection = self._connected(name, address)
        connection.begin(self._answer_limit_s)
        path, headers = encode_request(invocation)
        try:
            connection.request("POST", path, invocation.payload, headers)
            if caller is not None and not caller.waits_for(connection.sock, self._answer_limit_s):
                connection.close()  # so the instance knows as well
                raise CallerGoneError
            response, body = connection.read_answer(RESPONSE_PAYLOAD_BYTES)
        except TimeoutError as error:
            connection.close()
            raise ServiceException(
                f"The instance of {name} did not answer within {self._answer_timeout_s:g} s."
            ) from error
        except AnswerTooLargeError as error:
            connection.close()
            logger.warning("answer too large", extra={"function": name})
            raise ServiceException(
                f"The instance of {name} answered more than {RESPONSE_PAYLOAD_BYTES} bytes."
            ) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            # It may have run: a resend could run it twice.
            logger.warning("instance lost", extra={"function": name, "error": repr(error)})
            raise ServiceException(f"The connection to the instance of {name} was lost.") from error
        return decode_response(response.status, response.headers.get, body)

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
