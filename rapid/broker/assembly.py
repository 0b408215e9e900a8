"""Makes the consumer of a function's queues from rapid's settings."""

from __future__ import annotations

from typing import Final

from lambda_protocol.amqp_connection import connection_parameters
from lambda_protocol.amqp_refusals import Permissions, Refusals, exactly
from lambda_protocol.poller import Poller
from lambda_protocol.queues import (
    ANNOUNCEMENTS,
    async_queue_name,
    call_queue,
    dead_letter_queue_name,
)
from rapid.broker.alarm import Alarm
from rapid.broker.amqp_consumer import AmqpConsumer
from rapid.broker.announcer import Announcer
from rapid.broker.async_consumer import AsyncConsumer
from rapid.broker.call_consumer import CallConsumer
from rapid.broker.commands import Commands
from rapid.broker.loan import Loan
from rapid.broker.slots import Slots
from rapid.invocations.destinations import AmqpDestination, SendByHttp
from rapid.metrics import Metrics
from rapid.scheduling.scheduler import Scheduler
from rapid.settings.config import BrokerSettings, Config

#: The exchanges and queues of delays, which all functions share.
_RETRY_NAMES: Final = "lambda.retry.*"


def make_consumer(
    config: Config,
    broker: BrokerSettings,
    *,
    scheduler: Scheduler,
    metrics: Metrics,
    send_by_http: SendByHttp,
    poller: Poller,
) -> AmqpConsumer:
    """Return the consumer, which is to be started. Raises ``ConfigError`` for a wrong URI."""
    function = config.environment.function
    parameters = connection_parameters(broker.address, name=f"rapid {function.name}")
    refusals = Refusals(address=broker.address, needs=permissions(config))
    slots, alarm, commands = Slots(config.slots), Alarm(metrics), Commands()
    calls = CallConsumer(
        parameters,
        function=function,
        version=config.environment.version,
        scheduler=scheduler,
        slots=slots,
        alarm=alarm,
        commands=commands,
        refusals=refusals,
        longest_s=config.environment.timeout_s,
        queue=call_queue(function, broker.queue_type, broker.queue_expires_s),
        reruns_redelivered=broker.reruns_redelivered,
        checks_payload=config.checks_payload,
    )
    asynchronous = _make_async_consumer(
        config, broker, scheduler, slots, metrics, send_by_http, commands
    )
    return AmqpConsumer(
        parameters,
        calls=calls,
        asynchronous=asynchronous,
        slots=slots,
        alarm=alarm,
        refusals=refusals,
        loan=Loan(poller, commands),
        announcer=_make_announcer(config, refusals),
    )


def _make_async_consumer(
    config: Config,
    broker: BrokerSettings,
    scheduler: Scheduler,
    slots: Slots,
    metrics: Metrics,
    send_by_http: SendByHttp,
    commands: Commands,
) -> AsyncConsumer:
    return AsyncConsumer(
        function=config.environment.function,
        queue_type=broker.async_queue_type,
        longest_s=config.environment.timeout_s,
        checks_payload=config.checks_payload,
        settings=config.asynchronous,
        scheduler=scheduler,
        slots=slots,
        metrics=metrics,
        send_by_http=send_by_http,
        commands=commands,
    )


def _make_announcer(config: Config, refusals: Refusals) -> Announcer:
    url = config.function_url
    name = config.environment.function.name
    return Announcer(name, None if url is None else url.settings, refusals=refusals)


def permissions(config: Config) -> Permissions:
    """Return what rapid's user has to be granted for this function: a test holds it to be enough.

    RabbitMQ asks for read on a queue that has a dead-letter exchange, and write on the exchange.
    """
    function = config.environment.function
    calls, asynchronous = function.queue_name, async_queue_name(function)
    given = (config.asynchronous.on_success, config.asynchronous.on_failure)
    exchanges = [d.exchange for d in given if isinstance(d, AmqpDestination) and d.exchange]
    announced = () if config.function_url is None else (ANNOUNCEMENTS,)
    queues = (calls, asynchronous, dead_letter_queue_name(function))
    return Permissions(
        configure=exactly(*queues, _RETRY_NAMES, *announced),
        write=exactly("amq.default", _RETRY_NAMES, *dict.fromkeys(exchanges), *announced),
        read=exactly(calls, asynchronous, _RETRY_NAMES),
    )
