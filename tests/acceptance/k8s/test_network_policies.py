"""The evaluator of NetworkPolicies decides as Kubernetes documents it."""

from __future__ import annotations

from typing import Any, Final

import pytest
import yaml

from tests.acceptance.k8s.manifests import Cluster, Resource
from tests.acceptance.k8s.network_policies import OUTSIDE, Peer, allows, denies_by_default

PORTS: Final = [{"name": "amqp", "containerPort": 5672}, {"containerPort": 15672}]


def resource(kind: str, name: str, namespace: str = "", **spec: Any) -> Resource:
    labels = {"app": name, "team": name}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return Resource("test", {"kind": kind, "metadata": metadata, "spec": spec})


def policy(namespace: str = "messaging", **spec: Any) -> Resource:
    return resource("NetworkPolicy", "policy", namespace, **spec)


def pod(name: str, namespace: str) -> Resource:
    return resource("Pod", name, namespace, containers=[{"name": name, "ports": PORTS}])


BROKER, OTHER, SERVER = (
    pod("broker", "messaging"),
    pod("other", "messaging"),
    pod("server", "lambda"),
)
SOURCES: Final = {"other": Peer(OTHER.pod), "server": Peer(SERVER.pod), "outside": OUTSIDE}
NAMESPACES: Final = [resource("Namespace", name) for name in ("messaging", "lambda")]
DENY: Final = policy(podSelector={}, policyTypes=["Ingress"])


def cluster(*policies: Resource) -> Cluster:
    return Cluster("test", [*NAMESPACES, BROKER, OTHER, SERVER, *policies])


def who_reaches(port: int, *policies: Resource) -> str:
    """Return who reaches a port of the broker."""
    system = cluster(*policies)
    names = [name for name, peer in SOURCES.items() if allows(system, peer, Peer(BROKER.pod), port)]
    return " ".join(names)


@pytest.mark.parametrize(
    ("policies", "who"),
    [
        ([], "other server outside"),
        ([policy(podSelector={"matchLabels": {"app": "x"}}, ingress=[])], "other server outside"),
        (
            [policy("lambda", podSelector={}, policyTypes=["Ingress"])],
            "other server outside",
        ),
        ([DENY], ""),
        # The direction is ingress, unless egress is there.
        ([policy(podSelector={})], ""),
        ([policy("lambda", podSelector={}, egress=[])], "other outside"),
    ],
)
def test_which_policies_close_a_pod(policies: list[Resource], who: str) -> None:
    assert who_reaches(1, *policies) == who


def test_a_namespace_that_is_denied_by_default_is_known() -> None:
    assert denies_by_default(cluster(DENY), "messaging")
    assert not denies_by_default(cluster(DENY), "lambda")


@pytest.mark.parametrize(
    ("rule", "who"),
    [
        ("{}", "other server outside"),
        ("from: [{podSelector: {}}]", "other"),
        ("from: [{podSelector: {matchLabels: {app: server}}}]", ""),
        ("from: [{podSelector: {matchExpressions: [{key: app, operator: Exists}]}}]", "other"),
        ("from: [{namespaceSelector: {}}]", "other server"),
        ("from: [{namespaceSelector: {matchLabels: {team: lambda}}}]", "server"),
        # Every namespace has this label.
        (
            "from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: lambda}}}]",
            "server",
        ),
        # Both selectors of one entry have to hold, and one of two entries.
        (
            "from: [{namespaceSelector: {matchLabels: {team: lambda}}, "
            "podSelector: {matchLabels: {app: other}}}]",
            "",
        ),
        (
            "from: [{namespaceSelector: {matchLabels: {team: lambda}}}, "
            "{podSelector: {matchLabels: {app: other}}}]",
            "other server",
        ),
        ("from: [{ipBlock: {cidr: 172.18.0.0/16}}]", "outside"),
        ("from: [{ipBlock: {cidr: 10.9.0.0/16}}]", ""),
        ("from: [{ipBlock: {cidr: 172.0.0.0/8, except: [172.18.0.0/16]}}]", ""),
        # Pods have addresses too.
        ("from: [{ipBlock: {cidr: 0.0.0.0/0}}]", "other server outside"),
        ("from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.244.0.0/16]}}]", "outside"),
    ],
)
def test_who_is_let_in(rule: str, who: str) -> None:
    selector = {"matchLabels": {"app": "broker"}}

    assert who_reaches(1, DENY, policy(podSelector=selector, ingress=[yaml.safe_load(rule)])) == who


@pytest.mark.parametrize(
    ("ports", "open_ports"),
    [
        ([{"port": "amqp"}], [5672]),
        ([{"port": "http"}], []),
        ([{"port": 15672}], [15672]),
        ([{"port": 15000, "endPort": 16000}], [15672]),
        ([{"port": 5672, "protocol": "UDP"}], []),
        ([{"protocol": "TCP"}], [5672, 15672]),
        ([{"port": 5672}, {"port": 15672}], [5672, 15672]),
    ],
    ids=str,
)
def test_which_ports_are_open(ports: list[Any], open_ports: list[int]) -> None:
    opened = policy(podSelector={}, ingress=[{"ports": ports}])

    assert [port for port in (5672, 15672) if who_reaches(port, DENY, opened)] == open_ports


def test_who_may_not_leave_reaches_nobody() -> None:
    closed = policy("lambda", podSelector={}, policyTypes=["Egress"])
    to_broker = policy(
        "lambda",
        podSelector={"matchLabels": {"app": "server"}},
        policyTypes=["Egress"],
        egress=[{"to": [{"namespaceSelector": {"matchLabels": {"team": "messaging"}}}]}],
    )

    assert who_reaches(5672, closed) == "other outside"
    assert who_reaches(5672, closed, to_broker) == "other server outside"
    assert who_reaches(5672, closed, to_broker, DENY) == ""
