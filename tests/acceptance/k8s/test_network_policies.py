"""The evaluator of NetworkPolicies decides as Kubernetes documents it."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.acceptance.k8s.manifests import Cluster, Pod, Resource
from tests.acceptance.k8s.network_policies import OUTSIDE, Peer, allows, denies_by_default

PORTS: Final = [{"name": "amqp", "containerPort": 5672}, {"containerPort": 15672}]


def pod(name: str, namespace: str) -> Resource:
    labels = {"app": name}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    spec = {"containers": [{"name": name, "ports": PORTS}]}
    return Resource("test", {"kind": "Pod", "metadata": metadata, "spec": spec})


def namespace(name: str) -> Resource:
    metadata = {"name": name, "labels": {"team": name}}
    return Resource("test", {"kind": "Namespace", "metadata": metadata})


def policy(in_namespace: str = "messaging", **spec: Any) -> Resource:
    metadata = {"name": "policy", "namespace": in_namespace}
    return Resource("test", {"kind": "NetworkPolicy", "metadata": metadata, "spec": spec})


def cluster(*policies: Resource) -> Cluster:
    pods = [pod("broker", "messaging"), pod("other", "messaging"), pod("server", "lambda")]
    return Cluster("test", [namespace("messaging"), namespace("lambda"), *pods, *policies])


def peer(of: Cluster, name: str) -> Peer:
    (found,) = [each for each in of.pods if each.labels["app"] == name]
    assert isinstance(found, Pod)
    return Peer(found)


def reaches(source: str, port: int, *policies: Resource) -> bool:
    """Return whether ``source`` ("outside" or a pod) reaches a port of the broker."""
    system = cluster(*policies)
    start = OUTSIDE if source == "outside" else peer(system, source)
    return allows(system, start, peer(system, "broker"), port)


DENY: Final = policy(podSelector={}, policyTypes=["Ingress"])
BROKER: Final[dict[str, Any]] = {"podSelector": {"matchLabels": {"app": "broker"}}}


def test_without_policies_everybody_reaches_everything() -> None:
    assert reaches("server", 5672)
    assert reaches("outside", 1)


def test_a_policy_that_selects_no_pod_of_ours_changes_nothing() -> None:
    assert reaches("server", 5672, policy(podSelector={"matchLabels": {"app": "x"}}, ingress=[]))
    assert reaches("server", 5672, policy("lambda", podSelector={}, policyTypes=["Ingress"]))


@pytest.mark.parametrize("source", ["server", "other", "outside"])
def test_denied_by_default_nobody_reaches_anything(source: str) -> None:
    assert denies_by_default(cluster(DENY), "messaging")
    assert not denies_by_default(cluster(DENY), "lambda")
    assert not reaches(source, 5672, DENY)


@pytest.mark.parametrize(
    ("rule", "who"),
    [
        pytest.param({}, {"server", "other", "outside"}, id="everybody"),
        pytest.param({"from": [{"podSelector": {}}]}, {"other"}, id="own namespace"),
        pytest.param(
            {"from": [{"podSelector": {"matchLabels": {"app": "server"}}}]},
            set(),
            id="a pod's label alone means the own namespace",
        ),
        pytest.param({"from": [{"namespaceSelector": {}}]}, {"server", "other"}, id="all pods"),
        pytest.param(
            {"from": [{"namespaceSelector": {"matchLabels": {"team": "lambda"}}}]},
            {"server"},
            id="a namespace",
        ),
        pytest.param(
            {
                "from": [
                    {
                        "namespaceSelector": {
                            "matchLabels": {"kubernetes.io/metadata.name": "lambda"}
                        }
                    }
                ]
            },
            {"server"},
            id="the label that every namespace has",
        ),
        pytest.param(
            {
                "from": [
                    {
                        "namespaceSelector": {"matchLabels": {"team": "lambda"}},
                        "podSelector": {"matchLabels": {"app": "other"}},
                    }
                ]
            },
            set(),
            id="both of one entry have to hold",
        ),
        pytest.param(
            {
                "from": [
                    {"namespaceSelector": {"matchLabels": {"team": "lambda"}}},
                    {"podSelector": {"matchLabels": {"app": "other"}}},
                ]
            },
            {"server", "other"},
            id="one of two entries has to hold",
        ),
        pytest.param(
            {"from": [{"ipBlock": {"cidr": "172.18.0.0/16"}}]}, {"outside"}, id="an address"
        ),
        pytest.param(
            {"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]},
            {"server", "other", "outside"},
            id="every address, pods' too",
        ),
        pytest.param(
            {"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.0.0/16"]}}]},
            {"outside"},
            id="every address but pods'",
        ),
        pytest.param({"from": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}, set(), id="another address"),
        pytest.param(
            {"from": [{"ipBlock": {"cidr": "172.0.0.0/8", "except": ["172.18.0.0/16"]}}]},
            set(),
            id="an exception",
        ),
        pytest.param(
            {
                "from": [
                    {"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}
                ]
            },
            {"other"},
            id="an expression",
        ),
    ],
)
def test_who_is_let_in(rule: dict[str, Any], who: set[str]) -> None:
    policies = [DENY, policy(**BROKER, ingress=[rule])]

    assert {each for each in ("server", "other", "outside") if reaches(each, 1, *policies)} == who


@pytest.mark.parametrize(
    ("ports", "open_ports"),
    [
        pytest.param([{"port": "amqp"}], {5672}, id="by name"),
        pytest.param([{"port": "http"}], set(), id="by a name that the pod has not"),
        pytest.param([{"port": 15672}], {15672}, id="by number"),
        pytest.param([{"port": 15000, "endPort": 16000}], {15672}, id="a range"),
        pytest.param([{"port": 5672, "protocol": "UDP"}], set(), id="another protocol"),
        pytest.param([{"protocol": "TCP"}], {5672, 15672}, id="any of a protocol"),
        pytest.param([{"port": 5672}, {"port": 15672}], {5672, 15672}, id="two"),
    ],
)
def test_which_ports_are_open(ports: list[Any], open_ports: set[int]) -> None:
    policies = [DENY, policy(**BROKER, ingress=[{"ports": ports}])]

    assert {port for port in (5672, 15672) if reaches("server", port, *policies)} == open_ports


def test_who_may_not_leave_reaches_nobody() -> None:
    closed = policy("lambda", podSelector={}, policyTypes=["Egress"])
    to_broker = policy(
        "lambda",
        podSelector={"matchLabels": {"app": "server"}},
        policyTypes=["Egress"],
        egress=[{"to": [{"namespaceSelector": {"matchLabels": {"team": "messaging"}}}]}],
    )

    assert not reaches("server", 5672, closed)
    assert reaches("server", 5672, closed, to_broker)
    assert not reaches("server", 5672, closed, to_broker, DENY)
    assert reaches("other", 5672, closed)


def test_the_direction_is_ingress_unless_egress_is_there() -> None:
    assert not reaches("server", 5672, policy(podSelector={}))
    assert reaches("server", 5672, policy("lambda", podSelector={}))
    assert not reaches("server", 5672, policy("lambda", podSelector={}, egress=[]))
