"""Calls and events with a payload each, and what became of them."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.request
import uuid
from dataclasses import dataclass, field

import pika
import pika.adapters.blocking_connection

from devtools.ports import LOOPBACK
from lambda_protocol.invoke_amqp import DIRECT_REPLY_TO

_HTTP_LIMIT_S = 120.0


@dataclass(slots=True, kw_only=True)
class Calls:
    """Calls that were published, and when each was answered with its own payload."""

    sent: dict[str, bytes] = field(default_factory=dict)
    answered_at: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(
        default_factory=list
    )  #: another's payload, an error, or a second answer
    started_at: float = 0.0

    @property
    def open(self) -> int:
        """How many are not answered yet."""
        return len(self.sent) - len(self.answered_at)

    @property
    def last_at(self) -> float:
        """When the last answer came."""
        return max(self.answered_at.values(), default=self.started_at)

    def take(self, correlation_id: str, body: bytes) -> None:
        """Note an answer."""
        is_own = self.sent.get(correlation_id) == body and correlation_id not in self.answered_at
        if not is_own:
            self.wrong.append(f"{correlation_id}: {body[:200]!r}")
        self.answered_at.setdefault(correlation_id, time.monotonic())


class AmqpCaller:
    """A plain AMQP-RPC client, with calls that wait for as long as it takes.

    A thread of its own publishes and reads; ``calls`` may be read by any.
    """

    def __init__(self, uri: str, queue: str, payloads: list[dict[str, object]]) -> None:
        self.calls = Calls()
        self._uri = uri
        self._queue = queue
        for payload in payloads:
            name = uuid.uuid4().hex
            self.calls.sent[name] = json.dumps({**payload, "id": name}).encode()
        self._thread = threading.Thread(target=self._run, name="caller", daemon=True)

    def start(self) -> None:
        """Publish all calls."""
        self._thread.start()

    def _run(self) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(self._uri))
        try:
            channel = connection.channel()

            def on_answer(
                _channel: pika.adapters.blocking_connection.BlockingChannel,
                _method: pika.spec.Basic.Deliver,
                properties: pika.BasicProperties,
                body: bytes,
            ) -> None:
                self.calls.take(str(properties.correlation_id), body)

            channel.basic_consume(DIRECT_REPLY_TO, on_answer, auto_ack=True)
            self.calls.started_at = time.monotonic()
            for name, payload in self.calls.sent.items():
                properties = pika.BasicProperties(
                    content_type="application/json", correlation_id=name, reply_to=DIRECT_REPLY_TO
                )
                channel.basic_publish("", self._queue, payload, properties)
            while self.calls.open:
                connection.process_data_events(time_limit=1)
        finally:
            connection.close()


def invoke(port: int, function: str, payload: dict[str, object], *, event: bool = False) -> int:
    """Invoke through the Lambda Server; return the status, after checking a call's payload."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_HTTP_LIMIT_S)
    body = json.dumps(payload).encode()
    headers = {"X-Amz-Invocation-Type": "Event"} if event else {}
    connection.request(
        "POST", f"/2015-03-31/functions/{function}/invocations", body, headers=headers
    )
    answer = connection.getresponse()
    received = answer.read()
    connection.close()
    if not event and received != body:
        return -answer.status
    return answer.status


@dataclass(frozen=True, slots=True, kw_only=True)
class Management:
    """RabbitMQ's management API, as guest."""

    port: int

    def queue(self, name: str) -> dict[str, object] | None:
        """Return what it says of a queue, or None where there is none."""
        return self._request("GET", name)

    def delete(self, name: str) -> None:
        """Delete a queue, if it is there."""
        self._request("DELETE", name)

    def _request(self, method: str, queue: str) -> dict[str, object] | None:
        request = urllib.request.Request(
            f"http://{LOOPBACK}:{self.port}/api/queues/%2F/{queue}", method=method
        )
        request.add_header("Authorization", "Basic Z3Vlc3Q6Z3Vlc3Q=")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                body = answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise
        found: dict[str, object] = json.loads(body) if body else {}
        return found
