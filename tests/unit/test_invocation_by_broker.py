"""An invocation through both ends of the broker, in one process: no RabbitMQ, and no runtime."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from lambda_protocol.amqp_connection import connection_parameters
from lambda_protocol.environ import BrokerAddress
from lambda_protocol.errors import ResourceNotFoundException, ServiceUnavailable
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import UNHANDLED, Invocation, InvocationType, Outcome
from lambda_protocol.memory_broker import MemoryBroker
from lambda_protocol.poller import Poller
from lambda_server.link import SharedLink
from lambda_server.rpc_client import RpcClient
from rapid.broker.assembly import make_consumer
from rapid.call import Call
from rapid.environment.environment import ExecutionEnvironment
from rapid.environment.state import ParkedNext
from rapid.metrics import Metrics
from rapid.scheduling.scheduler import Scheduler
from rapid.settings.config import Config
from tests.support import LIMIT_S, make_invocation, wait_until

FUNCTION = FunctionRef(name="echo")


class Environment:
    """An execution environment that answers in no time, with what ``handler`` returns."""

    is_outdated = False
    tenant = None

    def __init__(self, scheduler: Scheduler, index: int, handler: Callable[..., Outcome]) -> None:
        self.index = index
        self._scheduler = scheduler
        self._handler = handler
        self._is_idle = False

    def start(self) -> None:
        with self._scheduler.lock:
            self._scheduler.on_init_done_locked(self._typed, 0.1)
        self._ask_for_next()

    def _ask_for_next(self) -> None:
        with self._scheduler.lock:
            self._is_idle = True
            self._scheduler.on_available_locked(self._typed)
        self._scheduler.dispatch()

    @property
    def _typed(self) -> ExecutionEnvironment:
        return cast(ExecutionEnvironment, self)

    @property
    def can_take_locked(self) -> bool:
        return self._is_idle

    def coming_slots_locked(self, now: float, patience_s: float) -> int:
        return int(not self._is_idle)

    def next_deadline_locked(self) -> float:
        return float("inf")

    def assign_locked(self, call: Call, now: float) -> ParkedNext:
        self._is_idle = False
        call.begin(now, LIMIT_S)
        return cast(ParkedNext, None)

    def deliver(self, call: Call, parked: ParkedNext) -> None:
        self._scheduler.finish(call, self._handler(call.invocation), "success")
        self._ask_for_next()


class Instance:
    """The half of a rapid that is between the broker and its execution environments."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.invocations: list[Invocation] = []
        self.threads: list[str] = []  # that gave them to the function
        self.function_error: str | None = None
        variables = {
            "AWS_LAMBDA_FUNCTION_NAME": FUNCTION.name,
            "RAPID_AMQP_EVENT_QUEUE_TYPE": "classic",
            "RAPID_AMQP_URI": broker.uri,
        }
        config = Config.from_environ(("bootstrap",), variables)
        assert config.broker is not None
        self.longest_delay_s = max(config.asynchronous.retry_policy.delays_s)
        metrics = Metrics(FUNCTION.name)
        scheduler = Scheduler(
            max_concurrency=1,
            queue_timeout_s=LIMIT_S,
            timeout_s=LIMIT_S,
            make_environment=self._make_environment,
            metrics=metrics,
        )
        self.poller = Poller()
        self.consumer = make_consumer(
            config,
            config.broker,
            scheduler=scheduler,
            metrics=metrics,
            send_by_http=lambda *_: None,
            poller=self.poller,
        )

    def _make_environment(
        self, scheduler: Scheduler, index: int, *, init_limit_s: float | None
    ) -> ExecutionEnvironment:
        return cast(ExecutionEnvironment, Environment(scheduler, index, self._handle))

    def _handle(self, invocation: Invocation) -> Outcome:
        self.invocations.append(invocation)
        self.threads.append(threading.current_thread().name)
        return Outcome(payload=invocation.payload, function_error=self.function_error)

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.consumer.missing is None, "a consumer of the function")


@pytest.fixture
def instance(memory_broker: MemoryBroker) -> Iterator[Instance]:
    instance = Instance(memory_broker)
    instance.poller.start()
    instance.consumer.start()
    instance.wait_until_ready()
    yield instance
    instance.consumer.drain(LIMIT_S)
    assert instance.consumer.stop(LIMIT_S)
    instance.poller.stop()


@pytest.fixture
def client(memory_broker: MemoryBroker) -> Iterator[RpcClient]:
    client = connect(memory_broker)
    yield client
    client.link.close()


def connect(broker: MemoryBroker) -> RpcClient:
    parameters = connection_parameters(BrokerAddress(uri=broker.uri), name="test")
    return RpcClient.over(SharedLink(parameters), queue_timeout_s=LIMIT_S)


def wait_for_message(broker: MemoryBroker, queue: str) -> None:
    wait_until(lambda: broker.waiting(queue) == 1, f"a message in {queue}")


def event(**changes: Any) -> Invocation:
    return make_invocation(function=FUNCTION, type=InvocationType.EVENT, **changes)


@pytest.mark.parametrize("function_error", [None, UNHANDLED])
def test_a_call_is_answered_by_its_functions_instance(
    memory_broker: MemoryBroker, instance: Instance, client: RpcClient, function_error: str | None
) -> None:
    instance.function_error = function_error
    invocation = make_invocation(function=FUNCTION, tenant_id="t", payload=b"[1]")

    outcome = client.call(invocation)

    assert outcome == Outcome(payload=b"[1]", function_error=function_error)
    assert [each.request_id for each in instance.invocations] == [invocation.request_id]
    assert memory_broker.waiting("echo") == 0


def test_a_call_needs_no_thread_but_the_poller(instance: Instance, client: RpcClient) -> None:
    def is_polled() -> bool:
        client.call(make_invocation(function=FUNCTION))
        return instance.threads[-1] == "http"

    wait_until(is_polled, "a call that the poller took")


def test_a_function_without_an_instance_ever_is_not_found(client: RpcClient) -> None:
    with pytest.raises(ResourceNotFoundException):
        client.call(make_invocation(function=FUNCTION))


def test_an_asynchronous_invocation_runs_once_if_it_succeeds(
    memory_broker: MemoryBroker, instance: Instance, client: RpcClient
) -> None:
    invocation = event(payload=b"[1]")

    client.publish_async(invocation)

    wait_until(lambda: bool(instance.invocations), "the attempt")
    assert instance.invocations[0].request_id == invocation.request_id
    memory_broker.advance(instance.longest_delay_s)
    assert client.call(make_invocation(function=FUNCTION)).function_error is None
    assert len(instance.invocations) == 2
    assert [memory_broker.waiting(f"echo.{queue}") for queue in ("events", "dead")] == [0, 0]


def test_a_failing_asynchronous_invocation_is_retried_as_aws_does_and_is_a_dead_letter(
    memory_broker: MemoryBroker, instance: Instance, client: RpcClient
) -> None:
    instance.function_error = UNHANDLED
    client.publish_async(event())

    for attempt, delay_s in enumerate((60, 120), 1):
        wait_for_message(memory_broker, f"lambda.retry.{delay_s * 1000}.classic")
        assert len(instance.invocations) == attempt
        memory_broker.advance(delay_s)

    wait_for_message(memory_broker, "echo.dead")
    assert len(instance.invocations) == 3
    assert len({each.request_id for each in instance.invocations}) == 1


def test_nothing_is_taken_in_an_alarm_and_everything_after_it(
    memory_broker: MemoryBroker, instance: Instance, client: RpcClient
) -> None:
    memory_broker.set_alarm("low on memory")
    with pytest.raises(ServiceUnavailable, match="low on memory"):
        client.call(make_invocation(function=FUNCTION))
    client.link.close()
    assert instance.invocations == []

    memory_broker.set_alarm(None)
    instance.wait_until_ready()
    caller = connect(memory_broker)
    assert caller.call(make_invocation(function=FUNCTION)).function_error is None
    caller.link.close()


def test_a_lost_connection_is_made_again(memory_broker: MemoryBroker, instance: Instance) -> None:
    memory_broker.drop_connections()

    caller = connect(memory_broker)
    assert caller.call(make_invocation(function=FUNCTION)).function_error is None
    caller.link.close()
