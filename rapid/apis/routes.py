"""The routes of the APIs that a function's processes call: one table for all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rapid.environment.requests import EnvironmentRequests
from rapid.exchange import JSON, TEXT, Exchange, Headers

#: Answers a request of an environment's process, or parks it. Raises ``ApiError``.
Handler = Callable[[EnvironmentRequests, Exchange], None]


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What one path is for."""

    method: str | None  #: None: any
    handler: Handler
    not_allowed: tuple[Headers, bytes] = (TEXT, b"")  #: headers and body for another method
    is_served: Callable[[], bool] = _always  #: else the path is unknown

    def answer(self, environment: EnvironmentRequests, exchange: Exchange) -> None:
        """Answer or park a request of this path; raises ``ApiError``."""
        if not self.is_served():
            not_found(exchange)
        elif self.method in (None, exchange.request.method):
            self.handler(environment, exchange)
        else:
            exchange.answer(405, *self.not_allowed)


#: Routes by path.
Routes = Mapping[str, Route]


def not_found(exchange: Exchange) -> None:
    """Answer a path that no API has."""
    exchange.answer(404, TEXT, b"404 page not found\n")


def refuse(exchange: Exchange, status: int, error_type: str, message: str) -> None:
    """Answer an error in the form of the Runtime API."""
    exchange.answer(status, JSON, error_body(error_type, message))


def error_body(error_type: str, message: str) -> bytes:
    """Return the JSON of an error."""
    return json.dumps({"errorMessage": message, "errorType": error_type}).encode()
