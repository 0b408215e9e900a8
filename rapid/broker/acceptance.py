"""Accepts asynchronous invocations from the Invoke API: publishes them to the function's queue."""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable

from lambda_protocol.amqp_connection import broker_blocked
from lambda_protocol.async_amqp import encode_async
from lambda_protocol.confirmed_publisher import CONFIRM_IN_ALARM_S, Confirm
from lambda_protocol.errors import LambdaApiError, ServiceException
from lambda_protocol.invocation import AsyncInvocation, Invocation
from rapid.broker.async_channel import AsyncChannel
from rapid.broker.commands import Commands

#: Gets None when RabbitMQ has an invocation, or why it has not.
OnAccepted = Callable[[LambdaApiError | None], None]


class Acceptance:
    """Invocations on their way in. One thread, amqp-consumer, but for what says otherwise."""

    def __init__(self, queue: str, commands: Commands) -> None:
        """Publish to ``queue``, once there is a channel."""
        self._queue = queue
        self._commands = commands
        self._channel: AsyncChannel | None = None
        self._keys = itertools.count()
        self._entering: deque[tuple[Invocation, OnAccepted]] = deque()  # not yet published
        self._unconfirmed: dict[int, OnAccepted] = {}  # of those that are published, by key

    def open(self, channel: AsyncChannel) -> None:
        """Publish by ``channel`` from now on."""
        self._channel = channel

    def accept(self, invocation: Invocation, on_accepted: OnAccepted) -> None:
        """Publish ``invocation`` to the queue; ``on_accepted`` gets the result. Any thread.

        Raises ``ServiceException`` when the broker is away or takes no messages.
        """
        channel = self._channel
        if channel is None:
            raise ServiceException("The broker is not reachable.")
        if channel.blocked_reason is not None:
            raise broker_blocked(channel.blocked_reason)
        self._entering.append((invocation, on_accepted))
        self._commands.defer(self._publish)

    def on_blocked(self, reason: str, blocked_s: float) -> None:
        """Refuse what has not been published, while RabbitMQ reads nothing, for so long now.

        What was published just before may be confirmed yet.
        """
        while self._entering:
            _, on_accepted = self._entering.popleft()
            on_accepted(broker_blocked(reason))
        if blocked_s >= CONFIRM_IN_ALARM_S:
            unconfirmed, self._unconfirmed = self._unconfirmed, {}
            for on_accepted in unconfirmed.values():
                on_accepted(
                    ServiceException("RabbitMQ did not confirm the invocation; it may have it.")
                )

    def lose(self) -> None:
        """Refuse what has not been published: the connection is gone."""
        self._channel = None
        self._publish()

    # --- inside

    def _publish(self) -> None:
        channel = self._channel
        if channel is not None and self._entering:
            channel.ask()  # else RabbitMQ could read, later, an invocation that was answered 500
            if channel.blocked_reason is not None:
                return  # the consumer refuses them
        while self._entering:
            invocation, on_accepted = self._entering.popleft()
            if channel is None:
                on_accepted(ServiceException("The connection to the broker was lost."))
                continue
            key = next(self._keys)  # a caller may give two the same request id
            self._unconfirmed[key] = on_accepted
            channel.publisher.publish(
                "",
                self._queue,
                encode_async(AsyncInvocation.accepted(invocation)),
                invocation.payload,
                functools.partial(self._on_confirm, key),
            )

    def _on_confirm(self, key: int, confirm: Confirm) -> None:
        on_accepted = self._unconfirmed.pop(key, None)
        if on_accepted is None:
            return
        if confirm is Confirm.TAKEN:
            on_accepted(None)
        else:
            on_accepted(ServiceException("The broker did not take the invocation."))
