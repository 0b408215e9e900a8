"""Which endpoints of direct mode answer, asked side by side and remembered for a second."""

from __future__ import annotations

import http.client
import logging
import math
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

from lambda_protocol.address import Address
from lambda_protocol.http_client import BoundedConnection

logger = logging.getLogger(__name__)

#: How long an endpoint may take to answer, seconds: below the usual limit of a readiness probe.
ANSWER_LIMIT_S: Final = 0.8
#: How long an answer counts, seconds.
REMEMBERED_S: Final = 1.0
#: How many endpoints are asked at a time.
_SIDE_BY_SIDE: Final = 64


class Endpoints:
    """The endpoints' health. Thread-safe; a thread that asks makes the others wait for it."""

    def __init__(self, endpoints: Mapping[str, Address]) -> None:
        """``endpoints`` maps a function's name to its rapid."""
        self._endpoints = endpoints
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_SIDE_BY_SIDE, "endpoint")  # its threads start on use
        self._asked: dict[Address, Future[bool]] = {}  # guarded by _lock
        self._silent: tuple[str, ...] = ()  # guarded by _lock
        self._silent_until = -math.inf  # guarded by _lock; monotonic

    def silent(self) -> tuple[str, ...]:
        """Return the functions whose endpoint does not answer HTTP, whatever the status.

        Takes 0.8 s at most for each 64 endpoints. A change is logged.
        """
        with self._lock:
            if time.monotonic() < self._silent_until:
                return self._silent
            before, self._silent = self._silent, self._ask_locked()
            self._silent_until = time.monotonic() + REMEMBERED_S
            after = self._silent
        if after != before:
            level, message = logging.INFO, "every endpoint answers"
            if after:
                level, message = logging.WARNING, "endpoints do not answer"
            logger.log(level, message, extra={"functions": shortened(after)} if after else {})
        return after

    def _ask_locked(self) -> tuple[str, ...]:
        for address in set(self._endpoints.values()):
            # A resolver may hold a thread for long: an endpoint has one thread at most.
            if address not in self._asked or self._asked[address].done():
                self._asked[address] = self._pool.submit(_answers, address)
        rounds = math.ceil(len(self._asked) / _SIDE_BY_SIDE)
        wait(self._asked.values(), timeout=rounds * ANSWER_LIMIT_S)
        live = {
            address for address, future in self._asked.items() if future.done() and future.result()
        }
        return tuple(name for name, address in self._endpoints.items() if address not in live)


def shortened(names: tuple[str, ...], most: int = 10) -> str:
    """Return names for a message, the first ten of them and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _answers(address: Address) -> bool:
    connection = BoundedConnection(address)
    connection.begin(ANSWER_LIMIT_S)
    try:
        connection.request("GET", "/healthz")
        connection.read_status()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True
