"""Whether the NetworkPolicies of a cluster let one pod reach another.

Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/, 2026-11-24.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Final

from tests.acceptance.k8s.checks.names import container_port
from tests.acceptance.k8s.manifests import Cluster, Pod, Resource, at, matches


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod, or an address outside the cluster."""

    pod: Pod | None = None
    address: str = "172.18.0.2"


#: A node, which NodePorts are reached through, or Kubernetes' API server.
OUTSIDE: Final = Peer()
#: Where clouds hand out their credentials.
METADATA_SERVICES: Final = tuple(
    Peer(address=address)
    for address in (
        "169.254.169.254",  # AWS, Google Cloud, Azure, Oracle Cloud and others
        "169.254.170.2",  # ECS
        "168.63.129.16",  # Azure's WireServer
        "100.100.100.200",  # Alibaba Cloud
        "192.0.0.192",  # Oracle Cloud, classic
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google Cloud
        "fe80::a9fe:a9fe",  # OpenStack
    )
)
#: The addresses of kind's pods.
POD_NETWORKS: Final = frozenset({"10.244.0.0/16", "fd00:10:244::/56"})


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
        # Pods have addresses too: a rule for every address takes them, in kind's network.
        block = rule["ipBlock"]
        if other.pod is not None:
            is_every = ipaddress.ip_network(block["cidr"]).prefixlen == 0
            return is_every and not POD_NETWORKS & set(block.get("except", []))
        excepted = any(_is_in(other.address, each) for each in block.get("except", []))
        return _is_in(other.address, block["cidr"]) and not excepted
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


def _is_in(address: str, block: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(block)


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
