"""The ways to a function: a rapid's own port, a Server over the broker, a Server in direct mode."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import boto3
import botocore.config

from devtools.ports import LOOPBACK
from tests.support import LIMIT_S, Answer, Client, Rapid, RawConnection, wait_for

#: Sizes at the limits. Source: Lambda quotas.
SYNC_PAYLOAD_BYTES: Final = 6_291_456
ASYNC_PAYLOAD_BYTES: Final = 1_048_576
RESPONSE_BYTES: Final = 6_291_556


@dataclass(frozen=True, slots=True)
class Door:
    """An Invoke API and one function behind it."""

    name: str  #: rapid, broker or direct
    port: int
    function: Rapid

    @property
    def function_name(self) -> str:
        """The function's name."""
        return self.function.function_name

    @property
    def url(self) -> str:
        """The endpoint URL for an SDK."""
        return f"http://{LOOPBACK}:{self.port}"

    def path(self, name: str | None = None, query: str = "") -> str:
        """Return the path that invokes the function under one of its names."""
        encoded = quote(name or self.function_name, safe="")
        return f"/2015-03-31/functions/{encoded}/invocations{query}"

    def invoke(
        self,
        payload: bytes | str = b"{}",
        *,
        name: str | None = None,
        query: str = "",
        **headers: str,
    ) -> Answer:
        """Invoke on a new connection; header names with ``_`` for ``-``."""
        body = payload.encode() if isinstance(payload, str) else payload
        with self.client() as client:
            return client.post(self.path(name, query), body, **headers)

    def do(self, **event: Any) -> Answer:
        """Invoke with ``event`` as a JSON object, as ``misbehave`` reads it."""
        return self.invoke(json.dumps(event))

    def result(self, **event: Any) -> Any:
        """Return what the function answers to ``event``; an error is a failure."""
        answer = self.do(**event)
        assert answer.status == 200, answer.body
        assert "X-Amz-Function-Error" not in answer.headers, answer.body
        return answer.json()

    def runtime_headers(self, *, name: str | None = None, query: str = "", **headers: str) -> Any:
        """Return the headers of ``next`` for one call, by name; and the call's own answer."""
        answer = self.invoke(b'{"do":"headers"}', name=name, query=query, **headers)
        assert answer.status == 200, answer.body
        return dict(answer.json()["headers"]), answer

    def client(self) -> Client:
        """Return a keep-alive client."""
        return Client(self.port)

    def raw(self) -> RawConnection:
        """Return a raw connection."""
        return RawConnection(self.port)


def boto3_client(url: str) -> Any:
    """Return boto3's Lambda client for an endpoint, without retries."""
    return _session().client(
        "lambda",
        endpoint_url=url,
        config=botocore.config.Config(
            retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=LIMIT_S
        ),
    )


@cache
def _session() -> Any:
    return boto3.session.Session(
        aws_access_key_id="dummy", aws_secret_access_key="dummy", region_name="us-east-1"
    )


def assert_error(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """Check the form every error has, and return its body."""
    assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (status, code), answer.body
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["x-amzn-RequestId"]
    members: dict[str, Any] = answer.json()
    return members


def assert_function_error(answer: Answer) -> dict[str, Any]:
    """Check the form every failure of a function has, and return its payload."""
    assert (answer.status, answer.headers["X-Amz-Function-Error"]) == (200, "Unhandled"), (
        answer.body
    )
    members: dict[str, Any] = answer.json()
    return members


class Calls:
    """Calls in the background. One thread: the test's."""

    def __init__(self) -> None:
        """Have none yet."""
        self._pool = ThreadPoolExecutor(16)

    def start(
        self, door: Door | Rapid, payload: bytes | str = b"{}", **headers: str
    ) -> Future[Answer]:
        """Start a call."""
        return self._pool.submit(door.invoke, payload, **headers)

    def run(self, work: Callable[..., Answer], *arguments: str) -> Future[Answer]:
        """Do ``work`` in the background."""
        return self._pool.submit(work, *arguments)

    def close(self) -> None:
        """Wait for what still runs."""
        self._pool.shutdown()


class Gate:
    """Holds a handler: ``misbehave`` with ``gate.event`` waits in it until the gate is opened."""

    def __init__(self, path: Path) -> None:
        """Make a named pipe at ``path``: reading it blocks."""
        os.mkfifo(path)
        self._path = path
        self._writer: int | None = None

    @property
    def event(self) -> str:
        """The event that waits, and answers the text the gate was opened with."""
        return json.dumps({"do": "read_tmp", "path": str(self._path)})

    def wait_reached(self) -> None:
        """Wait until a handler stands at the gate."""
        self._writer = wait_for(self._try_open, "the handler to reach the gate")

    def open(self, text: str = "opened") -> None:
        """Let the handler at the gate go on."""
        if self._writer is None:
            self.wait_reached()
        assert self._writer is not None
        os.write(self._writer, text.encode())
        os.close(self._writer)
        self._writer = None

    def close(self) -> None:
        """Let go whoever still waits, and whoever would come."""
        self._path.unlink()
        if self._writer is not None:
            os.close(self._writer)

    def _try_open(self) -> int | None:
        try:
            return os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nobody reads yet
                raise
            return None
