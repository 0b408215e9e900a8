"""AMQP-RPC against RabbitMQ and the broker in memory, with the test in the function's place."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pika
import pytest

from lambda_protocol.amqp_connection import BrokerLost, Parameters, connection_parameters
from lambda_protocol.amqp_frames import Properties
from lambda_protocol.amqp_stream import NotSentError
from lambda_protocol.environ import BrokerAddress
from lambda_protocol.errors import (
    LambdaApiError,
    ResourceNotFoundException,
    ResourceNotReadyException,
    ServiceException,
    ServiceUnavailable,
    TooManyRequestsException,
)
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.http_peer import HttpPeer
from lambda_protocol.invocation import Invocation, InvocationType, Outcome
from lambda_protocol.invoke_amqp import (
    encode_error,
    encode_outcome,
    encode_question,
    encode_started,
)
from lambda_protocol.poller import Poller
from lambda_protocol.queues import async_queue_name
from lambda_server import polled_link, rpc_client
from lambda_server.caller import CallerGoneError
from lambda_server.link import OwnLink, SharedLink
from lambda_server.polled_link import PolledLink, Question
from lambda_server.rpc_client import RpcClient
from tests.acceptance.system.amqp import AmqpClient
from tests.acceptance.system.conftest import port_of, through
from tests.acceptance.system.proxy import Proxy
from tests.support import LIMIT_S, make_invocation, unique_name, wait_for, wait_until


class Taken(NamedTuple):
    """A message out of a function's queue."""

    properties: pika.BasicProperties
    body: bytes


class Function:
    """A queue, and the test as what consumes it. One thread: the test's."""

    def __init__(self, uri: str) -> None:
        self.ref = FunctionRef(name=unique_name())
        self.connection = pika.BlockingConnection(pika.URLParameters(uri))
        self.channel = self.connection.channel()
        self._queues = (self.ref.name, async_queue_name(self.ref))
        for queue in self._queues:
            self.channel.queue_declare(queue)

    def take(self) -> Taken:
        """Return the next call."""
        return wait_for(lambda: self._get(self._queues[0]), "a call in the queue")

    def take_event(self) -> Taken:
        """Return the next event."""
        return wait_for(lambda: self._get(self._queues[1]), "an event in its queue")

    def reply(self, to: Taken, properties: Properties, body: bytes = b"") -> None:
        """Answer a call as rapid does."""
        assert to.properties.reply_to is not None
        self.channel.basic_publish(
            "",
            to.properties.reply_to,
            body,
            pika.BasicProperties(
                correlation_id=properties.correlation_id, headers=dict(properties.headers)
            ),
        )

    def answer(self, to: Taken, body: bytes) -> None:
        """Answer a call with a payload."""
        outcome = Outcome(payload=body)
        self.reply(to, encode_outcome(to.properties.correlation_id, outcome), body)

    def close(self) -> None:
        """Delete the queues and hang up."""
        for queue in self._queues:
            self.channel.queue_delete(queue)
        self.connection.close()

    def _get(self, queue: str) -> Taken | None:
        got: Any = self.channel.basic_get(queue, auto_ack=True)
        method, properties, body = got  # the stubs give every part the wrong type
        return None if method is None else Taken(properties, body)


@pytest.fixture
def function(either_broker: str) -> Iterator[Function]:
    function = Function(either_broker)
    yield function
    function.close()


@pytest.fixture
def proxy(either_broker: str) -> Iterator[Proxy]:
    with Proxy(port_of(either_broker)) as proxy:
        yield proxy


class PolledClient(RpcClient):
    """Calls by a link that the poller has; all else as any client, by a shared link."""

    @classmethod
    def connect(cls, parameters: Parameters, queue_timeout_s: float) -> PolledClient:
        """Connect twice."""
        client = cls.over(SharedLink(parameters), queue_timeout_s=queue_timeout_s)
        client.limit_s = queue_timeout_s
        client.poller = Poller()
        client.poller.start()
        client.polled = client.connect_polled(parameters)
        return client

    limit_s: float
    poller: Poller
    polled: PolledLink

    def connect_polled(self, parameters: Parameters) -> PolledLink:
        """Return a link that is the poller's."""
        link = PolledLink(
            parameters,
            self.poller,
            on_alarm=lambda _reason: None,
            on_lost=lambda _error: None,
            unreachable_of=lambda queues: [q for q in queues if self.queues.is_unreachable(q)],
        )
        self.poller.call(link.begin)
        return link

    def call(self, invocation: Invocation, caller: HttpPeer | None = None) -> Outcome:
        """Wait for what the listener hears."""
        del caller
        listener = Listener()
        link = self.polled
        self.poller.call(lambda: link.call(invocation, listener, queue_timeout_s=self.limit_s))
        question = listener.result.result(LIMIT_S)
        if isinstance(question, Outcome):
            return question
        raise question(self)

    def close(self) -> None:
        """End both connections."""
        self.poller.stop()
        self.link.close()


class Listener:
    """Keeps what becomes of a call."""

    def __init__(self) -> None:
        self.result: Future[Outcome | Question] = Future()
        self.is_gone = False
        self.on_outcome = self.on_question = self.result.set_result
        self.on_error = self.result.set_exception

    def on_not_sent(self) -> None:
        """The call has not run."""
        self.result.set_exception(NotSentError())

    def has_left(self) -> bool:
        """Whether the test says so."""
        return self.is_gone

    def close(self) -> None:
        """Something went wrong, of which the test is told."""
        self.result.set_exception(RuntimeError("closed"))


MakeClient = Callable[..., RpcClient]


@pytest.fixture(params=["own", "shared", "polled"])
def make_client(either_broker: str, request: pytest.FixtureRequest) -> Iterator[MakeClient]:
    with contextlib.ExitStack() as stack:

        def make(*, uri: str = either_broker, queue_timeout_s: float = LIMIT_S) -> RpcClient:
            parameters = connection_parameters(BrokerAddress(uri=uri), name="test")
            if request.param == "polled":
                polled = PolledClient.connect(parameters, queue_timeout_s)
                stack.callback(polled.close)
                return polled
            link = (OwnLink if request.param == "own" else SharedLink)(parameters)
            stack.callback(link.close)
            return RpcClient.over(link, queue_timeout_s=queue_timeout_s)

        yield make


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (rpc_client, polled_link):
        monkeypatch.setattr(module, "REPLY_GRACE_S", 0.1)


def test_a_call_is_answered_with_what_the_reply_says(
    make_client: MakeClient, function: Function, pool: ThreadPoolExecutor
) -> None:
    invocation = make_invocation(function=function.ref, payload=b'{"x": 1}', wants_log_tail=True)
    result = pool.submit(make_client().call, invocation)
    taken = function.take()
    outcome = Outcome(
        payload=b"\x00\xff", function_error="Unhandled", executed_version="3", log_tail=b"END"
    )

    function.reply(taken, encode_outcome(invocation.request_id, outcome), outcome.payload)

    assert result.result(LIMIT_S) == outcome
    assert taken.body == b'{"x": 1}'
    assert taken.properties.correlation_id == invocation.request_id
    assert taken.properties.expiration == str(int(LIMIT_S * 1000))


def test_a_client_works_on_after_a_404(
    make_client: MakeClient, function: Function, pool: ThreadPoolExecutor
) -> None:
    client = make_client()
    nobody = FunctionRef(name=unique_name())
    with pytest.raises(ResourceNotFoundException):
        client.call(make_invocation(function=nobody))
    with pytest.raises(ResourceNotFoundException):
        client.publish_async(make_invocation(function=nobody, type=InvocationType.EVENT))

    result = pool.submit(client.call, make_invocation(function=function.ref))
    function.answer(function.take(), b'"here"')

    assert result.result(LIMIT_S).payload == b'"here"'


@pytest.mark.parametrize(
    "error", [TooManyRequestsException("No more."), ServiceUnavailable("Away.")], ids=repr
)
def test_a_relayed_error_is_raised(
    make_client: MakeClient, function: Function, pool: ThreadPoolExecutor, error: LambdaApiError
) -> None:
    result = pool.submit(make_client().call, make_invocation(function=function.ref))
    taken = function.take()

    function.reply(taken, encode_error(taken.properties.correlation_id, error), error.body())

    with pytest.raises(type(error)) as caught:
        result.result(LIMIT_S)
    assert (caught.value.status, caught.value.message) == (error.status, error.message)


@pytest.mark.usefixtures("short_grace")
def test_a_late_reply_of_an_earlier_call_is_dropped(
    make_client: MakeClient, function: Function, pool: ThreadPoolExecutor
) -> None:
    client = make_client(queue_timeout_s=0.3)
    early: Future[Outcome] = pool.submit(client.call, make_invocation(function=function.ref))
    first = function.take()
    with pytest.raises(ResourceNotReadyException):
        early.result(LIMIT_S)

    result = pool.submit(client.call, make_invocation(function=function.ref))
    second = function.take()
    function.answer(first, b'"of the first call"')
    function.answer(second, b'"of the second call"')

    assert result.result(LIMIT_S).payload == b'"of the second call"'


@pytest.mark.usefixtures("short_grace")
def test_a_call_that_has_started_is_waited_for_as_long_as_it_says(
    make_client: MakeClient, function: Function, pool: ThreadPoolExecutor
) -> None:
    client = make_client(queue_timeout_s=0.2)
    started = time.monotonic()
    result = pool.submit(client.call, make_invocation(function=function.ref))
    taken = function.take()

    function.reply(taken, encode_started(taken.properties.correlation_id, LIMIT_S))
    function.connection.sleep(max(0.0, started + 0.6 - time.monotonic()))
    function.answer(taken, b'"at last"')

    assert result.result(LIMIT_S).payload == b'"at last"'


def test_the_question_whether_a_call_is_waited_for_is_answered(
    make_client: MakeClient, function: Function, pool: ThreadPoolExecutor, either_broker: str
) -> None:
    invocation = make_invocation(function=function.ref)
    result = pool.submit(make_client().call, invocation)
    taken = function.take()
    answers = {}

    with AmqpClient(either_broker, direct=True) as asker:
        for correlation_id in (invocation.request_id, "of another call"):
            question = encode_question(correlation_id)
            asker.publish(
                str(taken.properties.reply_to),
                b"",
                pika.BasicProperties(
                    reply_to=question.reply_to,
                    correlation_id=question.correlation_id,
                    headers=dict(question.headers),
                ),
            )
            reply = asker.next_reply()
            answers[reply.properties.correlation_id] = reply.headers["X-Lambda-Wanted"]
    function.answer(taken, b"[1]")

    assert answers == {invocation.request_id: 1, "of another call": 0}
    assert result.result().payload == b"[1]"


@pytest.mark.usefixtures("short_grace")
def test_the_reply_address_of_a_call_that_was_given_up_exists_no_more(
    make_client: MakeClient, function: Function, pool: ThreadPoolExecutor
) -> None:
    client = make_client(queue_timeout_s=0.5)
    result = pool.submit(client.call, make_invocation(function=function.ref))
    reply_to = str(function.take().properties.reply_to)

    with pytest.raises(ResourceNotReadyException):
        result.result()

    wait_until(lambda: not client.queues.ask(reply_to).exists, "the address to be gone")


@pytest.mark.usefixtures("short_grace")
def test_a_call_that_no_instance_took_is_502(make_client: MakeClient, function: Function) -> None:
    client = make_client(queue_timeout_s=0.05)

    with pytest.raises(ResourceNotReadyException, match="No instance"):
        client.call(make_invocation(function=function.ref))


@pytest.mark.usefixtures("short_grace")
def test_a_call_that_every_instance_was_too_busy_for_is_429(
    make_client: MakeClient, function: Function
) -> None:
    client = make_client(queue_timeout_s=0.05)
    function.channel.basic_consume(function.ref.name, lambda *_: None)

    with pytest.raises(TooManyRequestsException):
        client.call(make_invocation(function=function.ref))


def test_an_accepted_event_is_in_the_queue_and_persistent(
    make_client: MakeClient, function: Function
) -> None:
    client = make_client()
    invocation = make_invocation(function=function.ref, type=InvocationType.EVENT)

    client.publish_async(invocation)

    taken = function.take_event()
    headers = taken.properties.headers or {}
    assert taken.body == invocation.payload
    assert taken.properties.delivery_mode == 2
    assert taken.properties.reply_to is None
    assert taken.properties.correlation_id == invocation.request_id
    assert headers["X-Lambda-Attempt"] == 1
    assert abs(int(str(headers["X-Lambda-First-Queued-Ms"])) - time.time() * 1000) < 60_000


def test_events_and_calls_share_a_client(
    make_client: MakeClient, function: Function, pool: ThreadPoolExecutor
) -> None:
    client = make_client()
    for _ in range(3):
        client.publish_async(make_invocation(function=function.ref, type=InvocationType.EVENT))
        function.take_event()
        result = pool.submit(client.call, make_invocation(function=function.ref))
        function.answer(function.take(), b"1")
        assert result.result(LIMIT_S).payload == b"1"


@pytest.mark.usefixtures("short_grace")
def test_an_event_may_follow_a_call_that_was_given_up(
    make_client: MakeClient, function: Function
) -> None:
    client = make_client(queue_timeout_s=0.05)
    with pytest.raises(ResourceNotReadyException):
        client.call(make_invocation(function=function.ref))
    event = make_invocation(function=function.ref, type=InvocationType.EVENT)
    patient = make_client()  # for the time that RabbitMQ takes

    client.require_function(function.ref)
    patient.publish_async(event)

    assert function.take_event().body == event.payload


def test_consumers_are_counted_where_there_is_a_queue(
    make_client: MakeClient, function: Function
) -> None:
    client = make_client()
    assert client.queues.ask(unique_name()).exists is False
    counts: list[Any] = [client.queues.ask(function.ref.name).consumers]
    for _ in range(2):
        function.channel.basic_consume(function.ref.name, lambda *_: None)
        counts.append(client.queues.ask(function.ref.name).consumers)

    assert counts == [0, 1, 2]


def test_a_connection_lost_in_a_call_raises_at_once(
    make_client: MakeClient,
    function: Function,
    pool: ThreadPoolExecutor,
    proxy: Proxy,
    either_broker: str,
) -> None:
    client = make_client(uri=through(proxy, either_broker))
    result = pool.submit(client.call, make_invocation(function=function.ref))
    function.take()

    proxy.cut()

    with pytest.raises((*BrokerLost, ServiceException)):  # the latter is what the caller is told
        result.result(LIMIT_S)


def test_a_connection_lost_before_an_event_raises(
    make_client: MakeClient, function: Function, proxy: Proxy, either_broker: str
) -> None:
    client = make_client(uri=through(proxy, either_broker))
    client.publish_async(make_invocation(function=function.ref, type=InvocationType.EVENT))

    proxy.cut()

    with pytest.raises(BrokerLost):
        client.publish_async(make_invocation(function=function.ref, type=InvocationType.EVENT))


def test_a_broker_that_is_not_there_raises(make_client: MakeClient, either_broker: str) -> None:
    with Proxy(1) as nobody:
        before = _eventfds()
        for _ in range(5):
            with pytest.raises(BrokerLost):
                make_client(uri=through(nobody, either_broker))
        assert _eventfds() <= before


def _eventfds() -> int:
    count = 0
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += "eventfd" in str(path.readlink())
    return count


# --- calls that no thread waits for


def test_a_listener_that_fails_costs_no_other_call(
    function: Function, pool: ThreadPoolExecutor, either_broker: str
) -> None:
    parameters = connection_parameters(BrokerAddress(uri=either_broker), name="test")
    with contextlib.closing(PolledClient.connect(parameters, LIMIT_S)) as client:
        broken = Listener()
        broken.on_outcome = None  # type: ignore[assignment]
        link, invocation = client.polled, make_invocation(function=function.ref)
        client.poller.call(lambda: link.call(invocation, broken, queue_timeout_s=LIMIT_S))
        function.answer(function.take(), b"1")
        with pytest.raises(RuntimeError, match="closed"):
            broken.result.result(LIMIT_S)

        after = pool.submit(client.call, make_invocation(function=function.ref))
        function.answer(function.take(), b"2")

        assert after.result(LIMIT_S).payload == b"2"


def test_a_call_that_the_lost_connection_never_took_can_be_made_again(
    function: Function, either_broker: str
) -> None:
    parameters = connection_parameters(BrokerAddress(uri=either_broker), name="test")
    with contextlib.closing(PolledClient.connect(parameters, LIMIT_S)) as client:
        listener, link = Listener(), client.polled
        told: list[str] = []
        listener.on_error = lambda _error: told.append("error")  # type: ignore[assignment]

        def call_and_lose() -> None:
            invocation = make_invocation(function=function.ref)
            link.call(invocation, listener, queue_timeout_s=LIMIT_S)
            link.close()

        client.poller.call(call_and_lose)

        with pytest.raises(NotSentError):
            listener.result.result(LIMIT_S)
        assert told == []
        assert function.channel.queue_declare(function.ref.name).method.message_count == 0


def test_a_call_whose_caller_is_gone_is_not_wanted_any_more(
    function: Function, either_broker: str
) -> None:
    parameters = connection_parameters(BrokerAddress(uri=either_broker), name="test")
    with contextlib.closing(PolledClient.connect(parameters, LIMIT_S)) as client:
        listener = Listener()
        link, invocation = client.polled, make_invocation(function=function.ref)
        client.poller.call(lambda: link.call(invocation, listener, queue_timeout_s=LIMIT_S))
        function.take()

        listener.is_gone = True

        with pytest.raises(CallerGoneError):
            listener.result.result(LIMIT_S)


# --- one connection for many threads


@pytest.fixture
def shared(either_broker: str, proxy: Proxy) -> Iterator[RpcClient]:
    address = BrokerAddress(uri=through(proxy, either_broker))
    link = SharedLink(connection_parameters(address, name="test"))
    yield RpcClient.over(link, queue_timeout_s=LIMIT_S)
    link.close()


def test_threads_share_one_connection_and_each_gets_its_own_answer(
    shared: RpcClient, function: Function, proxy: Proxy
) -> None:
    payloads = [b"%d" % number for number in range(32)]
    with ThreadPoolExecutor(len(payloads)) as threads:
        results = [
            threads.submit(
                shared.for_another_thread().call,
                make_invocation(function=function.ref, payload=payload),
            )
            for payload in payloads
        ]
        calls = [function.take() for _ in payloads]
        for taken in reversed(calls):
            function.answer(taken, taken.body)

        assert [result.result(LIMIT_S).payload for result in results] == payloads
    assert proxy.accepted == 1
    assert len({taken.properties.reply_to for taken in calls}) == 1


def test_an_idle_connection_that_has_ended_is_known_before_its_reader_sees_it(
    shared: RpcClient, proxy: Proxy
) -> None:
    assert isinstance(shared.link, SharedLink)
    is_held, is_free = threading.Event(), threading.Event()

    def hold(_connection: object) -> bool:
        is_held.set()
        return is_free.wait(LIMIT_S)

    with ThreadPoolExecutor(1) as threads:
        reader = threads.submit(shared.link.run, hold)
        assert is_held.wait(LIMIT_S)
        assert not shared.link.is_lost
        proxy.cut()

        try:
            wait_until(lambda: shared.link.is_lost, "the end to be known")  # type: ignore[attr-defined]
        finally:
            is_free.set()
        assert reader.result(LIMIT_S)


@pytest.mark.usefixtures("short_grace")
def test_a_call_that_vanishes_takes_no_other_with_it(shared: RpcClient, function: Function) -> None:
    hasty = RpcClient.over(shared.link, queue_timeout_s=0.3)
    with ThreadPoolExecutor(3) as threads:
        patient = threads.submit(shared.call, make_invocation(function=function.ref))
        first = function.take()
        vanished = threads.submit(hasty.call, make_invocation(function=function.ref))
        function.take()
        with pytest.raises(ResourceNotReadyException):
            vanished.result(LIMIT_S)
        later = threads.submit(shared.call, make_invocation(function=function.ref))
        last = function.take()

        function.answer(last, b'"by another channel"')
        function.answer(first, b'"by the old one"')

        assert later.result(LIMIT_S).payload == b'"by another channel"'
        assert patient.result(LIMIT_S).payload == b'"by the old one"'
    old = str(first.properties.reply_to)
    assert last.properties.reply_to != old
    wait_until(lambda: not shared.queues.ask(old).exists, "the old channel to be closed")


def test_a_shared_connection_that_is_lost_ends_every_call_at_once(
    shared: RpcClient, function: Function, proxy: Proxy
) -> None:
    with ThreadPoolExecutor(8) as threads:
        calls = [
            threads.submit(shared.call, make_invocation(function=function.ref)) for _ in range(8)
        ]
        for _ in calls:
            function.take()

        proxy.cut()

        for call in calls:
            with pytest.raises(BrokerLost):
                call.result(LIMIT_S)
