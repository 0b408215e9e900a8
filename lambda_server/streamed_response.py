"""A response that is sent to its HTTP caller while its function writes it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from typing import NamedTuple

from lambda_protocol.errors import LambdaApiError
from lambda_server.caller import CallerGoneError

logger = logging.getLogger(__name__)


class StreamedHttpResponse(NamedTuple):
    """A response still apart from any HTTP library."""

    headers: list[tuple[str, str]]
    parts: Iterator[bytes]  #: of the body; closed when no more is wanted
    status: int = 200


def cut_off(parts: Iterator[bytes], request_id: str) -> Iterator[bytes]:
    """Yield ``parts``; what breaks them off becomes the ``OSError`` of a lost connection.

    Every worker of gunicorn then closes the connection without the end of the body, and says no
    more about it.
    """
    try:
        yield from parts
    except LambdaApiError as error:
        logger.warning(
            "a response broke off", extra={"request_id": request_id, "error": error.message}
        )
        raise ConnectionResetError(errno.ECONNRESET, "the response broke off") from error
    except CallerGoneError as error:
        raise ConnectionResetError(errno.ECONNRESET, "the caller hung up") from error
