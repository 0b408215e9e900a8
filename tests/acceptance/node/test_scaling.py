"""KEDA on a real node: from no pod to many, and back."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import pika
import pika.adapters.blocking_connection
import pytest
import yaml

from devtools.kind_cluster.credentials import decode
from devtools.ports import LOOPBACK
from devtools.progress import wait_until
from lambda_protocol.invoke_amqp import DIRECT_REPLY_TO
from tests.acceptance.node.functions import Function, MakeFunction, Recorder, invoke
from tests.acceptance.node.kube import Object
from tests.acceptance.node.workplace import Workplace
from tests.support import ROOT

_ECHO: Final = "echo-lambda"
_BURST: Final = 400


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


@pytest.fixture(scope="module")
def keda(cluster: Workplace) -> Workplace:
    """Give the cluster with KEDA, which ``scripts/cluster`` brings in."""
    if not cluster.has_keda:
        pytest.skip("KEDA is not built: make node-check KEDA=1")
    cluster.cluster("up", "--scaling", "keda")
    return cluster


def wanted(cluster: Workplace, name: str) -> int:
    """Return how many pods a function is to have."""
    found = cluster.kube.get(f"/apis/apps/v1/namespaces/lambda/deployments/{name}")
    return int(found["spec"]["replicas"])


def test_a_call_wakes_a_function_that_has_no_pod(
    keda: Workplace, make_function: MakeFunction
) -> None:
    function = make_function("called")
    _scale_from_zero(function)

    started = time.monotonic()

    answer = invoke(function.name, {"key": "value"})

    print(f"\n  a call from 0 pods: answered after {time.monotonic() - started:.1f} s")
    assert (answer.status, answer.body) == (200, b'{"key": "value"}')


def test_an_event_wakes_a_function_that_has_no_pod(
    keda: Workplace, make_function: MakeFunction, recorder: Recorder
) -> None:
    function = make_function("told")
    _scale_from_zero(function)
    started = time.monotonic()

    answer = invoke(function.name, {"id": "told"}, is_event=True)

    assert answer.status == 202
    assert wait_until(lambda: recorder.runs["told"] == 1, 60.0)
    print(f"\n  an event from 0 pods: it ran after {time.monotonic() - started:.1f} s")


def test_a_burst_of_calls_is_answered_while_pods_come_and_go(
    keda: Workplace, make_function: MakeFunction, recorder: Recorder
) -> None:
    function = make_function("burst")
    function.set_environ(RAPID_MAX_CONCURRENCY="1")
    function.apply()
    keda.kube.apply([_scaled_object(function.name)])
    payloads: list[dict[str, object]] = [{"sleep": 1} for _ in range(_BURST)]
    caller = AmqpCaller(_broker(keda), function.name, payloads)

    caller.start()
    assert wait_until(lambda: len(_ready(function)) >= 10, 120.0)
    ten_s = time.monotonic() - caller.calls.started_at
    assert wait_until(lambda: caller.calls.open == 0, 240.0)
    all_s = caller.calls.last_at - caller.calls.started_at
    assert wait_until(lambda: wanted(keda, function.name) == 0, 180.0)
    none_s = time.monotonic() - caller.calls.last_at
    print(
        f"\n  {_BURST} calls: 10 pods ready after {ten_s:.1f} s, all answered after {all_s:.1f} s, "
        f"no pod wanted {none_s:.1f} s later"
    )

    assert caller.calls.wrong == []
    assert set(Counter(recorder.runs[name] for name in caller.calls.sent)) == {1}


def _scaled_object(name: str) -> Object:
    """Return k8s/components/keda's for another function, with a runtime in each pod."""
    text = (ROOT / "k8s/components/keda/echo-lambda.yaml").read_text()
    found: Object = yaml.safe_load(text.replace(_ECHO, name))
    found["metadata"]["namespace"] = "lambda"
    for trigger in found["spec"]["triggers"]:
        trigger["metadata"]["value"] = "1"
    return found


def _broker(cluster: Workplace) -> str:
    """Return RabbitMQ's address on this machine, with the password that the script made."""
    secret = decode(cluster.kube.get("/api/v1/namespaces/messaging/secrets/rabbitmq"))
    return f"amqp://{secret['username']}:{secret['password']}@{LOOPBACK}:5672"


def _ready(function: Function) -> list[str]:
    return [
        name
        for name, pod in function.pods().items()
        if all(each["ready"] for each in pod["status"].get("containerStatuses", [{"ready": False}]))
    ]


def _scale_from_zero(function: Function) -> None:
    """Let KEDA scale a function, and take its pods away as KEDA does after a while without work."""
    function.apply()
    function.workplace.kube.apply([_scaled_object(function.name)])
    function.scale(0)
