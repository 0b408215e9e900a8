"""Who may reach whom: nobody, but for the flows that the system is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.acceptance.k8s.checks.services import container_port, pods_behind
from tests.acceptance.k8s.manifests import Cluster, Pod
from tests.acceptance.k8s.network_policies import (
    METADATA_SERVICES,
    OUTSIDE,
    Peer,
    allows,
    denies_by_default,
)

_SYSTEM: Final = "kube-system"


@dataclass(frozen=True)
class Flow:
    """Who must reach whom; names are those of workloads, ``*function`` is each function."""

    source: tuple[str, str]
    target: tuple[str, str]
    port: int


FLOWS: Final = (
    Flow(("lambda", "lambda-server"), ("messaging", "rabbitmq"), 5672),
    Flow(("lambda", "*function"), ("messaging", "rabbitmq"), 5672),
    Flow(("keda", "keda-operator"), ("messaging", "rabbitmq"), 5672),
    Flow(("keda", "keda-operator"), ("messaging", "rabbitmq"), 15672),
    Flow(("keda", "keda-operator"), ("monitoring", "prometheus"), 9090),
    Flow(("keda", "keda-metrics-apiserver"), ("keda", "keda-operator"), 9666),
    Flow(("monitoring", "prometheus-adapter"), ("monitoring", "prometheus"), 9090),
    Flow(("kubernetes-dashboard", "kubernetes-dashboard"),
         ("kubernetes-dashboard", "dashboard-metrics-scraper"), 8000),
)  # fmt: skip
#: Who must not.
CLOSED: Final = (
    Flow(("lambda", "*function"), ("messaging", "rabbitmq"), 15672),
    Flow(("lambda", "*function"), ("messaging", "rabbitmq"), 15692),
    Flow(("lambda", "lambda-server"), ("messaging", "rabbitmq"), 15672),
    Flow(("lambda", "*function"), ("keda", "keda-operator"), 9666),
    Flow(("lambda", "lambda-server"), ("lambda", "*function"), 8080),
    Flow(("registry", "registry"), ("lambda", "*function"), 8080),
)


def namespaces_with_pods_are_closed(cluster: Cluster) -> Iterator[str]:
    for namespace in sorted({pod.namespace for pod in cluster.pods} - {_SYSTEM}):
        if not denies_by_default(cluster, namespace):
            yield f"nothing closes the namespace {namespace}"


def what_belongs_together_may_talk(cluster: Cluster) -> Iterator[str]:
    for flow in FLOWS:
        for source, target in _ends(cluster, flow):
            if not allows(cluster, Peer(source), Peer(target), flow.port):
                yield f"{source.owner} does not reach port {flow.port} of {target.owner}"


def nobody_else_may(cluster: Cluster) -> Iterator[str]:
    for flow in CLOSED:
        for source, target in _ends(cluster, flow):
            if allows(cluster, Peer(source), Peer(target), flow.port):
                yield f"{source.owner} reaches port {flow.port} of {target.owner}"


def functions_do_not_reach_the_clouds_credentials(cluster: Cluster) -> Iterator[str]:
    for each in cluster.functions:
        for service in METADATA_SERVICES:
            for port in (53, 80, 32526):  # the last is the WireServer's too
                if each.pod and allows(cluster, Peer(each.pod), service, port):
                    yield f"{each} reaches port {port} of {service.address}"


def functions_do_not_reach_node_ports(cluster: Cluster) -> Iterator[str]:
    """A node lets pass to a NodePort what policies would not: its calls come from the node."""
    ports = [
        port["nodePort"]
        for service in cluster.of("Service")
        for port in service.spec.get("ports", [])
        if "nodePort" in port
    ]
    for each in cluster.functions:
        for port in ports:
            if each.pod and allows(cluster, Peer(each.pod), OUTSIDE, port):
                yield f"{each} reaches the NodePort {port}"


def prometheus_may_read_what_says_so(cluster: Cluster) -> Iterator[str]:
    """Every pod with the annotation, on the port that it names."""
    prometheus = _workload(cluster, "monitoring", "prometheus")
    for pod in cluster.pods:
        annotations = pod.metadata.get("annotations", {})
        port = int(annotations.get("prometheus.io/port", 0))
        if annotations.get("prometheus.io/scrape") == "true":
            for source in prometheus:
                if not allows(cluster, Peer(source), Peer(pod), port):
                    yield f"Prometheus does not reach port {port} of {pod.owner}"


def node_ports_are_open(cluster: Cluster) -> Iterator[str]:
    for service in cluster.of("Service"):
        if service.spec.get("type") == "NodePort":
            yield from _closed_to_outside(cluster, service.namespace, service.name)


def what_the_api_asks_is_open(cluster: Cluster) -> Iterator[str]:
    """Kubernetes' API server, which asks extensions and webhooks, comes from a node's address."""
    for each in cluster.of("APIService"):
        service = each.spec.get("service")
        if service:
            yield from _closed_to_outside(cluster, service["namespace"], service["name"])
    for each in cluster.of("ValidatingWebhookConfiguration"):
        for webhook in each.data["webhooks"]:
            service = webhook["clientConfig"]["service"]
            yield from _closed_to_outside(cluster, service["namespace"], service["name"])


def _closed_to_outside(cluster: Cluster, namespace: str, name: str) -> Iterator[str]:
    service = cluster.get("Service", name, namespace)
    is_public = service.spec.get("type") == "NodePort"
    for pod in pods_behind(cluster, service):
        for port in service.spec["ports"]:
            if not is_public and port["port"] != 443:
                continue  # a port beside the one that the API server asks
            number = container_port(pod, port.get("targetPort", port["port"]))
            if number is not None and not allows(cluster, OUTSIDE, Peer(pod), number):
                yield f"nobody outside reaches port {number} of {pod.owner}, as {service} promises"


def _ends(cluster: Cluster, flow: Flow) -> Iterator[tuple[Pod, Pod]]:
    for source in _workload(cluster, *flow.source):
        for target in _workload(cluster, *flow.target):
            if source is not target:
                yield source, target


def _workload(cluster: Cluster, namespace: str, name: str) -> list[Pod]:
    """Return the pods of a workload; none, where this cluster has it not."""
    functions = [each.name for each in cluster.functions]
    names = functions if name == "*function" else [name]
    return [pod for pod in cluster.pods if pod.namespace == namespace and pod.owner.name in names]


CHECKS: Final = (
    namespaces_with_pods_are_closed,
    what_belongs_together_may_talk,
    nobody_else_may,
    functions_do_not_reach_the_clouds_credentials,
    functions_do_not_reach_node_ports,
    prometheus_may_read_what_says_so,
    node_ports_are_open,
    what_the_api_asks_is_open,
)
