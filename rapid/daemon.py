"""The daemon: wires the parts, waits for signals, and stops everything in reverse."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import queue
import select
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from lambda_protocol.address import Address
from lambda_protocol.byte_budget import ByteBudget, default_bytes
from lambda_protocol.descriptors import descriptor_limit, raise_descriptor_limit
from lambda_protocol.errors import LambdaApiError
from lambda_protocol.invocation import Invocation
from lambda_protocol.poller import Poller
from lambda_protocol.terminal import has_terminal
from rapid.apis.invoke_api import InvokeApi
from rapid.apis.runtime_api import RuntimeApiListener
from rapid.connection_limits import share_descriptors
from rapid.deadline import Deadline, StopDeadlines
from rapid.environment.context import EnvironmentContext
from rapid.environment.control_groups import EnvironmentGroups
from rapid.environment.environment import ExecutionEnvironment
from rapid.invocations.destinations import (
    AmqpDestination,
    FunctionDestination,
    HttpDestination,
    OnDelivered,
)
from rapid.invocations.memory_queue import MemoryQueue
from rapid.logs.output import Outputs
from rapid.logs.platform_lines import PlatformLines
from rapid.metrics import Metrics
from rapid.processes import Reaper, adopt_orphans, hide_environment
from rapid.scheduling.scheduler import Scheduler
from rapid.settings.config import Config

if TYPE_CHECKING:
    from rapid.apis.function_url import FunctionUrl
    from rapid.broker.amqp_consumer import AmqpConsumer
    from rapid.invocations.http_sender import HttpSender

logger = logging.getLogger(__name__)

_STOP_SIGNALS: Final = {signal.SIGTERM, signal.SIGINT}
#: What a stop may take when nothing is in hand any more, and after a second signal, seconds: the
#: shutdown phase of an environment takes 2.
STOP_LIMIT_S: Final = 8.0
HURRIED_STOP_LIMIT_S: Final = 3.0
#: How long the broker may take of that to let a drained consumer go, seconds.
CONSUMER_STOP_S: Final = 3.0
#: How much later than it should a stop may be over before rapid exits without it, seconds.
_STOP_OVERRUN_S: Final = 2.0
#: How often the main thread looks whether a stop is over, and reaps again after an error, seconds.
_LOOK_S: Final = 0.05

#: Errors of an address that has another port as its remedy.
_PORT_ERRORS: Final = (errno.EADDRINUSE, errno.EACCES)


class Daemon:
    """One rapid. One thread, the main one, runs it; it alone knows all the parts."""

    def __init__(self, config: Config, outputs: Outputs) -> None:
        """Bind every port. Raises ``OSError`` if a port is taken, and ``ConfigError``."""
        self._signals = _catch_signals()  # before a port is open: whoever sees it may stop us
        self._config = config
        environment = config.environment
        function = environment.function
        self._outputs = outputs
        self._has_terminal = has_terminal()
        self._bytes_in_hand = config.bytes_in_hand or default_bytes()
        self._groups = EnvironmentGroups(config.environment.memory_mb)
        self._reaper = Reaper(raise_descriptor_limit())
        self._connection_limits = share_descriptors(
            descriptor_limit(),
            environments=config.max_concurrency,
            calls_per_environment=environment.runtime_concurrency,
        )
        self._platform_lines = PlatformLines(
            as_json=config.environment.logs_json, level=config.system_log_level
        )
        metrics = self._metrics = Metrics(function.name)
        self._scheduler = Scheduler(
            max_concurrency=config.max_concurrency,
            queue_timeout_s=config.queue_timeout_s,
            timeout_s=config.environment.timeout_s,
            make_environment=self._make_environment,
            metrics=metrics,
        )
        metrics.running = lambda: self._scheduler.running
        self._poller = Poller()
        self._listeners: dict[int, RuntimeApiListener] = {}
        with _chosen_by("RAPID_RUNTIME_API_PORT", host="RAPID_RUNTIME_API_HOST"):
            self._open_first_listener()
        self._sender = _make_sender(config)
        self._consumer = self._make_consumer()
        self._memory_queue = self._make_memory_queue()
        health = " or RAPID_HEALTH_PORT" if config.health_port else ""
        with _chosen_by(f"--port or RAPID_PORT{health}", host="RAPID_INVOKE_API_HOST"):
            self._invoke_api = self._make_invoke_api()
        self._is_stopping = False
        self._stops: queue.SimpleQueue[StopDeadlines] = queue.SimpleQueue()
        # Started before any function, which might use up the process limit: a stop needs it.
        self._stopper = threading.Thread(target=self._stop_parts, name="stop", daemon=True)

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, or a closed terminal; return the exit code.

        SIGHUP has environments replaced, for there is new code.
        """
        adopt_orphans()
        if self._config.broker is not None:
            hide_environment()
        if self._config.enforces_memory:
            self._groups.enforce_memory()
        if self._config.environment.command.note:
            logger.info(self._config.environment.command.note)
        try:
            self._start()
        except RuntimeError as error:
            logger.critical("cannot start: %s; is the limit of processes too low?", error)
            return 1
        gc.freeze()  # what is here now stays: the collector need not look at it again
        gc.enable()  # off until here in the static executable
        logger.info(
            "serving",
            extra={
                "function": self._config.environment.function.name,
                "port": self._invoke_api.port,
            },
        )
        self._wait_for_stop(self._signals)
        return self._stop(self._signals)

    def _start(self) -> None:
        """Start every thread that is not an environment's or a connection's."""
        self._stopper.start()
        self._poller.start()
        self._scheduler.start(eager=self._config.has_eager_init)  # the runtime starts meanwhile
        if self._sender is not None:
            self._sender.start()
        if self._memory_queue is not None:
            self._memory_queue.start()
        self._invoke_api.start()
        if self._consumer is not None:
            self._consumer.start()

    def _wait_for_stop(self, reader: int) -> None:
        limit_s = None
        while True:
            numbers = _read_signals(reader, limit_s)
            limit_s = None if self._reap() else _LOOK_S
            if numbers & _STOP_SIGNALS:
                return
            if signal.SIGHUP in numbers:
                if self._has_terminal and not has_terminal():
                    logger.info("the terminal was closed")
                    return
                logger.info("new code: the next invocations start fresh environments")
                self._scheduler.renew()

    def _reap(self) -> bool:
        try:
            self._reaper.reap()
        except Exception:
            logger.exception("reaping failed; trying again")
            return False
        return True

    def _stop(self, reader: int) -> int:
        """Stop in reverse: the APIs, invocations in hand, processes, the broker's connection."""
        self._is_stopping = True
        self._invoke_api.refuse_invocations()
        logger.info("stopping")
        deadlines = StopDeadlines(
            self._config.drain_timeout_s, end_s=STOP_LIMIT_S, hurried_end_s=HURRIED_STOP_LIMIT_S
        )
        self._stops.put(deadlines)
        while self._stopper.is_alive() and deadlines.end.left_s > -_STOP_OVERRUN_S:
            if _read_signals(reader, _LOOK_S) & _STOP_SIGNALS:
                deadlines.shorten()  # asked twice
            self._reap()
        if left := self._reaper.kill_all():
            logger.error("processes killed at the end", extra={"processes": left})
        logger.info("stopped")
        return 0

    def _stop_parts(self) -> None:
        deadlines = self._stops.get()
        self._drain(deadlines.drain)
        deadlines.end_drain()
        self._end(deadlines.end)

    def _drain(self, drain: Deadline) -> None:
        """Take nothing more, and let what is in hand end."""
        if self._consumer is not None:
            _try(drain, self._consumer.drain, at_most_s=CONSUMER_STOP_S)
        if self._memory_queue is not None:
            _try(drain, self._memory_queue.drain)
            self._memory_queue.stop_retries()
        _try(drain, self._scheduler.drain)

    def _end(self, end: Deadline) -> None:
        """End the environments, send what is left to send, and count what is lost."""
        _try(end, self._scheduler.stop)
        _try(end, self._invoke_api.stop)
        if self._sender is not None:
            _try(end, self._sender.stop)
        if self._consumer is not None:
            _try(end, self._consumer.stop, at_most_s=CONSUMER_STOP_S)
        if self._memory_queue is not None:
            self._memory_queue.tell_losses()

    def _missing(self) -> str | None:
        """Return what keeps us from being ready, or None."""
        if self._is_stopping:
            return "rapid is stopping"
        if self._scheduler.has_failed:
            return "the function's init has failed"
        if not self._scheduler.is_ready and self._config.has_eager_init:
            return "the function's init is not done"
        return None if self._consumer is None else self._consumer.missing

    def _make_invoke_api(self) -> InvokeApi:
        config = self._config
        return InvokeApi(
            config.invoke_api,
            poller=self._poller,
            function=config.environment.function,
            version=config.environment.version,
            submit=self._scheduler.submit,
            abandon=self._scheduler.abandon,
            accept_async=self._accept_async,
            is_ready=self._missing,
            render_metrics=self._metrics.render,
            accepts_any_name=config.accepts_any_name,
            checks_payload=config.checks_payload,
            has_openfaas=config.has_openfaas,
            allowed_origins=config.allowed_origins,
            function_url=self._make_function_url(),
            max_connections=self._connection_limits.invoke_api,
            health_port=config.health_port,
            budget=ByteBudget(self._bytes_in_hand),
        )

    def _make_function_url(self) -> FunctionUrl | None:
        config = self._config
        if config.function_url is None:
            return None
        from rapid.apis.function_url import FunctionUrl  # brings a codec

        return FunctionUrl(
            config.function_url,
            function=config.environment.function,
            submit=self._scheduler.submit,
            abandon=self._scheduler.abandon,
        )

    def _make_environment(
        self, scheduler: Scheduler, index: int, *, init_limit_s: float | None
    ) -> ExecutionEnvironment:
        context = EnvironmentContext(
            index=index,
            settings=self._config.environment,
            owner=scheduler,
            lock=scheduler.lock,
            init_phase="init" if init_limit_s is None else "invoke",
            init_limit_s=self._config.init_timeout_s if init_limit_s is None else init_limit_s,
        )
        return ExecutionEnvironment(
            context,
            reaper=self._reaper,
            listen=lambda environment: self._listener(index).attach(environment),
            platform_lines=self._platform_lines,
            outputs=self._outputs,
            open_group=lambda: self._groups.of_environment(index),
        )

    def _open_first_listener(self) -> None:
        """Open the Runtime API of environment 0, which has an address that is known beforehand."""
        address = self._config.runtime_api
        try:
            self._open_listener(0, address)
        except OSError as error:
            if error.errno not in _PORT_ERRORS or not self._config.takes_any_runtime_port:
                raise
            listener = self._open_listener(0, address._replace(port=0))
            logger.info("%s is taken: the Runtime API listens on %s", address, listener.address)

    def _listener(self, index: int) -> RuntimeApiListener:
        """Return the Runtime API of environment ``index``: one address for as long as we live."""
        listener = self._listeners.get(index)
        return listener or self._open_listener(index, self._config.runtime_api._replace(port=0))

    def _open_listener(self, index: int, address: Address) -> RuntimeApiListener:
        most = self._connection_limits.runtime_api
        listener = RuntimeApiListener(
            address,
            index,
            poller=self._poller,
            settings=self._config.environment,
            max_connections=most,
        )
        self._listeners[index] = listener
        return listener

    def _accept_async(
        self, invocation: Invocation, on_accepted: Callable[[LambdaApiError | None], None]
    ) -> None:
        """Queue an asynchronous invocation that came by HTTP: in RabbitMQ, or in memory."""
        if self._consumer is not None:
            self._consumer.asynchronous.acceptance.accept(invocation, on_accepted)
        else:
            assert self._memory_queue is not None
            self._memory_queue.accept(invocation)
            on_accepted(None)

    def _send_by_http(
        self, destination: HttpDestination, record: bytes, on_delivered: OnDelivered
    ) -> None:
        """Post a record."""
        assert self._sender is not None
        self._sender.send(destination, record, on_delivered)

    def _make_memory_queue(self) -> MemoryQueue | None:
        config = self._config
        if config.broker is not None:
            return None
        assert not isinstance(config.asynchronous.on_success, FunctionDestination | AmqpDestination)
        assert not isinstance(config.asynchronous.on_failure, FunctionDestination | AmqpDestination)
        return MemoryQueue(
            policy=config.asynchronous.retry_policy,
            on_success=config.asynchronous.on_success,
            on_failure=config.asynchronous.on_failure,
            submit=self._scheduler.submit,
            metrics=self._metrics,
            max_bytes=self._bytes_in_hand,
            send_by_http=self._send_by_http,
        )

    def _make_consumer(self) -> AmqpConsumer | None:
        config, broker = self._config, self._config.broker
        if broker is None:
            return None
        from rapid.broker.assembly import make_consumer  # pika: only with a broker

        return make_consumer(
            config,
            broker,
            scheduler=self._scheduler,
            metrics=self._metrics,
            send_by_http=self._send_by_http,
            poller=self._poller,
        )


def _make_sender(config: Config) -> HttpSender | None:
    """Return what posts records, if any destination wants them posted."""
    if not any(
        isinstance(d, HttpDestination)
        for d in (config.asynchronous.on_success, config.asynchronous.on_failure)
    ):
        return None
    from rapid.invocations.http_sender import HttpSender  # brings TLS

    return HttpSender()


def _try(
    deadline: Deadline, step: Callable[[float], bool], *, at_most_s: float = float("inf")
) -> None:
    """Wait for one part of a stop; the others come after it, whatever happens."""
    try:
        deadline.wait(step, at_most_s=at_most_s)
    except Exception:
        logger.exception("stop failed")


@contextlib.contextmanager
def _chosen_by(port: str, *, host: str) -> Iterator[None]:
    """Add to the ``OSError`` of a listener what chooses its port, or its host."""
    try:
        yield
    except OSError as error:
        remedy = f"port by {port}" if error.errno in _PORT_ERRORS else f"address by {host}"
        raise OSError(error.errno, f"{error.strerror}; choose another {remedy}") from error


def _catch_signals() -> int:
    """Catch what concerns us from now on; return the descriptor that tells which came."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writer)
    for number in (*_STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(number, _wake_only)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, _wake_only)
    return reader


def _wake_only(_number: int, _frame: object) -> None:
    """Do nothing: the wake-up descriptor carries the signal."""


def _read_signals(reader: int, timeout_s: float | None) -> set[int]:
    """Wait for signals; return which came, empty after ``timeout_s``."""
    with contextlib.suppress(BlockingIOError, InterruptedError):
        select.select([reader], [], [], timeout_s)
        return set(os.read(reader, 4096))
    return set()
