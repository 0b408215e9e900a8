"""The metadata endpoint, version 2026-01-15: in which Availability Zone the function runs.

Source: Lambda developer guide, "Using the Lambda metadata endpoint"; aws-lambda-rie, lmds.
"""

from __future__ import annotations

import json
import logging
from typing import Final

from rapid.environment.requests import EnvironmentRequests
from rapid.exchange import JSON, TEXT, Exchange

logger = logging.getLogger(__name__)

PATH: Final = "/2026-01-15/metadata/execution-environment"
#: How long a client may keep the answer, seconds.
_MAX_AGE_S: Final = 43_200


class MetadataApi:
    """The route; it shares the Runtime API's listener, as on AWS. Thread-safe."""

    def __init__(self, availability_zone_id: str) -> None:
        """Answer with ``availability_zone_id``."""
        self._body = json.dumps({"AvailabilityZoneID": availability_zone_id}).encode()

    def answer(self, environment: EnvironmentRequests, exchange: Exchange) -> None:
        """Answer a request that shows the token of its execution environment."""
        request = exchange.request
        if request.method != "GET":
            exchange.answer(405, TEXT, b"Method Not Allowed\n")
        elif request.headers.get("authorization") != f"Bearer {environment.metadata_token}":
            logger.warning("a request for metadata lacks the token of its environment")
            exchange.answer(401, TEXT, b"Unauthorized\n")
        else:
            cache = ("Cache-Control", f"private, max-age={_MAX_AGE_S}, immutable")
            exchange.answer(200, (*JSON, cache), self._body)
