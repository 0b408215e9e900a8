"""Whether the NetworkPolicies of a cluster let one pod reach another.

Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/, 2026-11-24.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Final

from tests.k8s.checks.services import container_port
from tests.k8s.manifests import Cluster, Pod, Resource, at, matches

#: Somewhere outside: a node, which NodePorts are reached through, or Kubernetes' API server.
OUTSIDE_ADDRESS: Final = ipaddress.ip_address("172.18.0.2")


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod, or with neither field somebody outside the cluster."""

    pod: Pod | None = None


OUTSIDE: Final = Peer()


def allows(cluster: Cluster, source: Peer, target: Peer, port: int) -> bool:
    """Return whether ``source`` may open a TCP connection to ``port`` of ``target``."""
    return _is_open(cluster, "Egress", source, target, target, port) and _is_open(
        cluster, "Ingress", target, source, target, port
    )


def denies_by_default(cluster: Cluster, namespace: str) -> bool:
    """Return whether a policy closes every pod of a namespace to everybody."""
    return any(
        policy.namespace == namespace
        and policy.spec.get("podSelector") == {}
        and "Ingress" in _types(policy)
        and not policy.spec.get("ingress")
        for policy in cluster.of("NetworkPolicy")
    )


def _is_open(
    cluster: Cluster, direction: str, own: Peer, other: Peer, target: Peer, port: int
) -> bool:
    """Return whether ``own``'s policies let ``other`` through; policies only ever add."""
    if own.pod is None:
        return True
    policies = [
        each
        for each in cluster.of("NetworkPolicy")
        if each.namespace == own.pod.namespace
        and direction in _types(each)
        and matches(each.spec.get("podSelector"), own.pod.labels)
    ]
    if not policies:
        return True
    side = "from" if direction == "Ingress" else "to"
    return any(
        _is_peer(cluster, policy, rule.get(side), other) and _is_port(rule, target, port)
        for policy in policies
        for rule in policy.spec.get(direction.lower()) or []
    )


def _types(policy: Resource) -> list[str]:
    default = ["Ingress", "Egress"] if "egress" in policy.spec else ["Ingress"]
    types: list[str] = policy.spec.get("policyTypes", default)
    return types


def _is_peer(cluster: Cluster, policy: Resource, rules: Any, other: Peer) -> bool:
    return not rules or any(_is_one(cluster, policy, each, other) for each in rules)


def _is_one(cluster: Cluster, policy: Resource, rule: Any, other: Peer) -> bool:
    if "ipBlock" in rule:
        # Pods have addresses too, which no manifest knows: a rule for every address takes them.
        block = ipaddress.ip_network(rule["ipBlock"]["cidr"])
        return block.prefixlen == 0 or (other.pod is None and OUTSIDE_ADDRESS in block)
    if other.pod is None:
        return False
    if "namespaceSelector" in rule:
        name = other.pod.namespace
        found = cluster.find("Namespace", name)
        labels = {**(found.labels if found else {}), "kubernetes.io/metadata.name": name}
        if not matches(rule["namespaceSelector"], labels):
            return False
    elif other.pod.namespace != policy.namespace:
        return False
    return matches(rule.get("podSelector"), other.pod.labels)


def _is_port(rule: Any, target: Peer, port: int) -> bool:
    ports = rule.get("ports")
    return not ports or any(_is_one_port(each, target, port) for each in ports)


def _is_one_port(rule: Any, target: Peer, port: int) -> bool:
    if rule.get("protocol", "TCP") != "TCP":
        return False
    first = rule.get("port")
    if first is None:
        return True
    if isinstance(first, str):
        return target.pod is not None and container_port(target.pod, first) == port
    return bool(first <= port <= at(rule, "endPort", first))
