"""The dead letters of a function: list them, invoke with them again, or delete them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from lambda_protocol import headers as names
from lambda_protocol.amqp_connection import (
    AmqpConnection,
    ChannelClosedByBroker,
    connection_parameters,
)
from lambda_protocol.amqp_frames import Delivery, encode_ack
from lambda_protocol.amqp_refusals import Permissions, exactly
from lambda_protocol.async_amqp import decode_async, encode_async
from lambda_protocol.clock import now_ms
from lambda_protocol.confirmed_publisher import Confirm, ConfirmedPublisher
from lambda_protocol.environ import BrokerAddress
from lambda_protocol.errors import LambdaApiError
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.limits import ASYNC_PAYLOAD_BYTES
from lambda_protocol.queues import async_queue_name, dead_letter_queue_name
from lambda_protocol.validation import payload_too_large

#: How long the broker may be silent while letters are read or moved, seconds.
SILENCE_LIMIT_S: Final = 10.0
#: Letters that are on their way at once while they are moved.
_IN_FLIGHT: Final = 100


def permissions(function: FunctionRef) -> Permissions:
    """Return what the user of ``lambda-server dead`` has to be granted for a function."""
    return Permissions(write=exactly("amq.default"), read=exactly(dead_letter_queue_name(function)))


class DeadLettersError(Exception):
    """The letters cannot be reached or moved; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One asynchronous invocation that was discarded."""

    request_id: str
    first_queued_ms: int | None  #: epoch milliseconds
    attempts: int
    error_code: int | None  #: the status of the last attempt's answer
    error_message: str
    payload: bytes


class DeadLetters:
    """The dead letters of one function. One thread; a context of one connection to the broker."""

    def __init__(self, address: BrokerAddress, function: FunctionRef) -> None:
        """Connect; raises one of ``BrokerLost``."""
        self._function = function
        self._queue = dead_letter_queue_name(function)
        self._deliveries: list[Delivery] = []
        parameters = connection_parameters(address, name="lambda-server dead")
        self._connection = AmqpConnection(parameters, self._deliveries.append)

    def count(self) -> int:
        """Return how many there are; raises ``DeadLettersError`` for an unknown function."""
        channel = self._connection.open_channel()
        try:
            answer: Any = self._connection.call(
                channel, "queue_declare", queue=self._queue, passive=True
            )
        except ChannelClosedByBroker as error:
            raise DeadLettersError(
                f"no queue {self._queue}: no rapid of the function {self._function.name} has "
                "used this broker yet"
            ) from error
        channel.close()
        return int(answer.method.message_count)

    def read(self, limit: int) -> list[DeadLetter]:
        """Return the oldest letters, at most ``limit``; they stay where they are.

        Whatever was read goes back when the connection is closed.
        """
        wanted = min(limit, self.count())
        if wanted == 0:
            return []
        channel = self._connection.open_channel()
        self._connection.call(channel, "basic_qos", prefetch_count=min(wanted, 65_535))
        self._connection.consume(channel, self._queue)
        self._wait(lambda: len(self._deliveries) >= wanted)
        return [_letter(delivery) for delivery in self._deliveries[:wanted]]

    def redrive(self, on_moved: Callable[[], None]) -> int:
        """Publish every letter that is there now as a new asynchronous invocation; return how many.

        A letter is removed when RabbitMQ has confirmed its invocation. So an interrupted redrive
        loses none, and may leave one twice. A letter that is no invocation stays where it is.
        """
        left = total = self.count()
        if total == 0:
            return 0
        channel = self._connection.open_channel()
        publisher = ConfirmedPublisher(self._connection, channel)
        self._connection.call(channel, "basic_qos", prefetch_count=min(total, _IN_FLIGHT))
        self._connection.consume(channel, self._queue)
        confirms: list[tuple[Delivery, Confirm]] = []
        unusable = 0
        while left:
            self._wait(lambda: bool(self._deliveries or confirms))
            while self._deliveries:
                try:
                    self._publish(publisher, self._deliveries.pop(0), confirms)
                except LambdaApiError:
                    unusable += 1
                    left -= 1
            while confirms:
                letter, confirm = confirms.pop(0)
                if confirm is not Confirm.TAKEN:
                    raise DeadLettersError(
                        f"the broker took no invocation ({confirm}); the rest stays where it is"
                    )
                self._connection.send(encode_ack(letter.channel, letter.delivery_tag))
                left -= 1
                on_moved()
        return total - unusable

    def purge(self) -> int:
        """Remove every letter; return how many."""
        self.count()
        channel = self._connection.open_channel()
        answer: Any = self._connection.call(channel, "queue_purge", queue=self._queue)
        return int(answer.method.message_count)

    def close(self) -> None:
        """Hang up; what was only read goes back to its queue."""
        self._connection.shut_down()

    def _publish(
        self,
        publisher: ConfirmedPublisher,
        letter: Delivery,
        confirms: list[tuple[Delivery, Confirm]],
    ) -> None:
        """Publish a letter afresh; raises ``LambdaApiError`` if it is no invocation."""
        async_invocation = decode_async(letter, self._function)
        fresh = replace(async_invocation, first_queued_ms=now_ms(), attempt=1, backoffs=0)
        publisher.publish(
            "",
            async_queue_name(self._function),
            encode_async(fresh),
            letter.body,
            lambda confirm: confirms.append((letter, confirm)),
        )

    def _wait(self, is_done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SILENCE_LIMIT_S
        while not is_done():
            if time.monotonic() > deadline:
                raise DeadLettersError(f"the broker was silent for {SILENCE_LIMIT_S:g} s")
            self._connection.poll(0.1)


def _letter(delivery: Delivery) -> DeadLetter:
    headers = delivery.properties.headers
    request_id = headers.get(names.DEAD_REQUEST_ID) or delivery.properties.correlation_id
    error_code = headers.get(names.DEAD_ERROR_CODE)
    first_queued_ms, attempts = headers.get(names.FIRST_QUEUED_MS), headers.get(names.ATTEMPT)
    return DeadLetter(
        request_id=str(request_id or ""),
        first_queued_ms=first_queued_ms if isinstance(first_queued_ms, int) else None,
        attempts=attempts if isinstance(attempts, int) else 0,
        error_code=error_code if isinstance(error_code, int) else None,
        error_message=str(headers.get(names.DEAD_ERROR_MESSAGE) or _reason_of_broker(delivery)),
        payload=delivery.body,
    )


def _reason_of_broker(delivery: Delivery) -> str:
    """Return why RabbitMQ itself dead-lettered a message: rapid rejected it, or it expired."""
    if delivery.body_size > ASYNC_PAYLOAD_BYTES:
        return payload_too_large(delivery.body_size, ASYNC_PAYLOAD_BYTES).message
    return "EventAgeExceeded"
