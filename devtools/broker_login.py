"""Whether a broker takes a login. The only script of the local stack that needs a library."""

from __future__ import annotations

import logging

import pika
import pika.exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from lambda_protocol.amqp_connection import connection_parameters
from lambda_protocol.environ import BrokerAddress

_LOGIN_LIMIT_S = 5.0
_REFUSED_LOGIN = (
    pika.exceptions.ConnectionClosedByBroker,
    pika.exceptions.ProbableAccessDeniedError,
    pika.exceptions.ProbableAuthenticationError,
)

logging.getLogger("pika").addHandler(logging.NullHandler())  # what it logs, we tell in one line


def refusal(address: BrokerAddress) -> str | None:
    """Return why a client cannot log in to the broker at ``address``, or None if it can.

    Raises ConfigError when the address has options that nobody understands.
    """
    parameters = connection_parameters(address, name="make up")
    parameters.connection_attempts = 1
    parameters.socket_timeout = parameters.stack_timeout = _LOGIN_LIMIT_S
    parameters.blocked_connection_timeout = _LOGIN_LIMIT_S
    try:
        pika.BlockingConnection(parameters).close()
    except _REFUSED_LOGIN:
        return "it refuses the login"
    except (OSError, AMQPConnectorException, pika.exceptions.AMQPError) as error:
        return f"it does not answer ({type(error).__name__})"
    return None
