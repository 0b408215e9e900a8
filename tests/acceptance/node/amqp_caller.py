"""Calls over AMQP with a payload each, and what became of them."""

from __future__ import annotations

import json
import threading
import time
import uuid
from dataclasses import dataclass, field

import pika
import pika.adapters.blocking_connection

from lambda_protocol.invoke_amqp import DIRECT_REPLY_TO


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
