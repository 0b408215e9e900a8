"""A small Invoke API client, and the check that every call is answered with its own payload."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from bench.errors import CallFailed

CALL_TIMEOUT_S = 15.0


class InvokeClient:
    """One keep-alive connection to an Invoke URL. One thread."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._path = parts.path
        self._connection = HTTPConnection(parts.netloc, timeout=CALL_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def connect(self) -> bool:
        """Open the connection now, and return whether anybody listens."""
        try:
            self._connection.connect()
        except ConnectionRefusedError:
            return False
        return True

    def invoke(self, payload: bytes) -> bytes:
        """Return the answer's payload; after a failure the next call opens a new connection."""
        try:
            self._connection.request("POST", self._path, payload)
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, HTTPException) as error:
            self._connection.close()
            raise CallFailed(f"no answer: {error!r}") from error
        if answer.status != 200:
            raise CallFailed(f"HTTP {answer.status}: {body[:200]!r}")
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What became of the calls of one check."""

    own: int  #: answered with the payload that was sent
    other: int  #: answered with another payload
    missing: int  #: not answered, or not with HTTP 200


def check_answers(url: str, *, calls: int = 1000, connections: int = 16) -> Answers:
    """Make ``calls`` calls over ``connections`` at once, each with a payload of its own."""

    def check_share(first: int) -> Answers:
        own = other = missing = 0
        with InvokeClient(url) as client:
            for number in range(first, calls, connections):
                payload = json.dumps({"number": number}).encode()
                try:
                    answer = client.invoke(payload)
                except CallFailed:
                    missing += 1
                    continue
                own += answer == payload
                other += answer != payload
        return Answers(own=own, other=other, missing=missing)

    with ThreadPoolExecutor(connections) as pool:
        shares = list(pool.map(check_share, range(connections)))
    return Answers(
        own=sum(share.own for share in shares),
        other=sum(share.other for share in shares),
        missing=sum(share.missing for share in shares),
    )
