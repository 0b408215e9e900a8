"""What Prometheus has of a real broker, server and function: all that is asked for is there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devtools.ports import LOOPBACK, free_ports
from devtools.rabbitmq_node import RabbitmqNode, find_server
from tests.acceptance.k8s.prometheus import (
    Prometheus,
    discovered,
    need_prometheus,
)
from tests.acceptance.k8s.promql import expressions, for_prometheus, metric_names
from tests.acceptance.system.amqp import AmqpClient
from tests.support import MISBEHAVE, Rapid, Server, give_up, wait_for, wait_until

#: What a kubelet measures, which no test can scrape. Source: cAdvisor, docs/storage/prometheus.md.
CADVISOR = {"container_cpu_usage_seconds_total", "container_memory_working_set_bytes"}


pytestmark = [pytest.mark.broker, pytest.mark.slow]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Give a Prometheus that has scraped a broker, a server, and a function that was used."""
    need_prometheus()
    if find_server() is None:
        give_up("no rabbitmq-server on this machine; scripts/test-setup installs one")
    [metrics] = free_ports(1)
    node = RabbitmqNode(
        tmp_path_factory.mktemp("rabbitmq"),
        plugins=["rabbitmq_prometheus"],
        settings=[
            f"prometheus.tcp.ip = {LOOPBACK}",
            f"prometheus.tcp.port = {metrics}",
            "collect_statistics_interval = 1000",
        ],
    )
    with (
        node,
        Rapid(
            MISBEHAVE,
            RAPID_AMQP_URI=node.uri,
            AWS_LAMBDA_FUNCTION_NAME="echo-lambda",
            RAPID_MAX_RETRY_ATTEMPTS="0",
        ) as rapid,
        Server(AMQP_URI=node.uri) as server,
        Prometheus(
            tmp_path_factory.mktemp("prometheus"),
            [
                # Each port of the broker's pod is found, the annotated one and the others.
                *(
                    discovered(
                        f"{LOOPBACK}:{port}",
                        name="rabbitmq",
                        namespace="messaging",
                        component="broker",
                        port=metrics,
                        pod_container_port_number=number,
                    )
                    for port, number in ((node.port, "5672"), (metrics, "15692"))
                ),
                discovered(f"{LOOPBACK}:1", name="echo-lambda", port=rapid.port),
                discovered(LOOPBACK, name="lambda-server", component="server", port=server.port),
                discovered(f"{LOOPBACK}:{rapid.port}", name="not-annotated"),
                discovered(f"{LOOPBACK}:1", name="ended", port=rapid.port, pod_phase="Succeeded"),
            ],
        ) as prometheus,
        AmqpClient(node.uri) as amqp,
    ):
        assert server.invoke("echo-lambda", '{"do": "echo"}').status == 200
        event = server.invoke(
            "echo-lambda", '{"do": "raise", "body": "{}"}', X_Amz_Invocation_Type="Event"
        )
        assert event.status == 202
        amqp.channel.queue_declare("waiting-lambda", durable=True)
        for _ in range(3):
            amqp.publish("waiting-lambda")
        wait_until(lambda: prometheus.value("sum(up)") == 4, "three pods and the broker's queues")
        wait_for(
            lambda: prometheus.value('rabbitmq_queue_messages{queue="echo-lambda.dead"}'),
            "the dead letter in Prometheus",
        )
        wait_until(
            lambda: prometheus.value('sum(rabbitmq_queue_messages{queue="waiting-lambda"})') == 3,
            "three messages in Prometheus",
        )
        yield prometheus


def test_a_queue_is_counted_once_by_name_with_its_consumers(prometheus: Prometheus) -> None:
    [(labels, value)] = prometheus.query('rabbitmq_queue_messages{queue="waiting-lambda"}')
    consumers = {one["queue"]: n for one, n in prometheus.query("rabbitmq_queue_consumers")}

    assert value == 3
    assert labels["vhost"] == "/"
    assert (labels["namespace"], labels["pod"]) == ("messaging", "rabbitmq-0")
    assert prometheus.query('rabbitmq_queue_messages{queue=""}') == []
    assert consumers["waiting-lambda"] == 0
    assert min(consumers["echo-lambda"], consumers["echo-lambda.events"]) > 0


def test_one_port_of_the_broker_is_asked_for_queues_and_four_metrics_are_kept(
    prometheus: Prometheus,
) -> None:
    names = {labels["__name__"] for labels, _ in prometheus.query('{job="rabbitmq-queues"}')}

    assert [up for _, up in prometheus.query('up{job="rabbitmq-queues"}')] == [1]
    assert {name for name in names if name.startswith("rabbitmq")} == {
        "rabbitmq_queue_consumers",
        "rabbitmq_queue_messages",
        "rabbitmq_queue_messages_ready",
        "rabbitmq_queue_messages_unacked",
    }


def test_an_annotated_pod_is_scraped_once_and_labelled(prometheus: Prometheus) -> None:
    targets = prometheus.query('up{job="pods"}')

    found = [(labels["app"], labels["component"], labels["pod"], up) for labels, up in targets]
    assert sorted(found) == [
        ("echo-lambda", "function", "echo-lambda-0", 1),
        ("lambda-server", "server", "lambda-server-0", 1),
        ("rabbitmq", "broker", "rabbitmq-0", 1),
    ]


def test_function_and_server_are_told_apart(prometheus: Prometheus) -> None:
    succeeded = 'lambda_invocations_total{outcome="success", function_name="echo-lambda"}'

    calls = prometheus.query(f"sum by (component) ({succeeded})")

    # The server's second is the event: that it was accepted is all that the server knows.
    assert {labels["component"]: value for labels, value in calls} == {"function": 1, "server": 2}


def test_rules_are_evaluated_without_an_error(prometheus: Prometheus) -> None:
    wait_until(lambda: rule_health(prometheus) != {"unknown"}, "the rules' first evaluation")

    assert rule_health(prometheus) == {"ok"}


def rule_health(prometheus: Prometheus) -> set[str]:
    groups = prometheus.api("/rules")["groups"]
    return {rule["health"] for group in groups for rule in group["rules"]}


@pytest.mark.parametrize(
    ("who", "expression"), [pytest.param(*each, id=each[0]) for each in expressions()]
)
def test_what_is_asked_for_exists_and_can_be_evaluated(
    prometheus: Prometheus, who: str, expression: str
) -> None:
    asked = metric_names(for_prometheus(expression))

    assert asked
    assert asked - prometheus.metrics() <= CADVISOR, who
    prometheus.query(for_prometheus(expression))
