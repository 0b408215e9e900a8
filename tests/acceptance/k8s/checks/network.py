"""Who may reach whom: nobody, but for the flows that the system is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.acceptance.k8s.checks.names import container_port, has_port, pods_behind
from tests.acceptance.k8s.checks.table import check
from tests.acceptance.k8s.manifests import Cluster, Pod, everything_at
from tests.acceptance.k8s.network_policies import (
    METADATA_SERVICES,
    OUTSIDE,
    Peer,
    allows,
    denies_by_default,
)

_SYSTEM: Final = "kube-system"


#: Who reaches whom, on which port; names are those of workloads, ``*function`` is each function.
Flow = tuple[tuple[str, str], tuple[str, str], int]

FLOWS: Final[tuple[Flow, ...]] = (
    (("lambda", "lambda-server"), ("messaging", "rabbitmq"), 5672),
    (("lambda", "*function"), ("messaging", "rabbitmq"), 5672),
    (("keda", "keda-operator"), ("messaging", "rabbitmq"), 5672),
    (("keda", "keda-operator"), ("messaging", "rabbitmq"), 15672),
    (("keda", "keda-operator"), ("monitoring", "prometheus"), 9090),
    (("keda", "keda-metrics-apiserver"), ("keda", "keda-operator"), 9666),
    (("monitoring", "prometheus-adapter"), ("monitoring", "prometheus"), 9090),
    (("kubernetes-dashboard", "kubernetes-dashboard"),
         ("kubernetes-dashboard", "dashboard-metrics-scraper"), 8000),
)  # fmt: skip
#: Who must not.
CLOSED: Final[tuple[Flow, ...]] = (
    (("lambda", "*function"), ("messaging", "rabbitmq"), 15672),
    (("lambda", "*function"), ("messaging", "rabbitmq"), 15692),
    (("lambda", "lambda-server"), ("messaging", "rabbitmq"), 15672),
    (("lambda", "*function"), ("keda", "keda-operator"), 9666),
    (("lambda", "lambda-server"), ("lambda", "*function"), 8080),
    (("registry", "registry"), ("lambda", "*function"), 8080),
)


@check
def namespaces_with_pods_are_closed(cluster: Cluster) -> Iterator[str]:
    for namespace in sorted({pod.namespace for pod in cluster.pods} - {_SYSTEM}):
        if not denies_by_default(cluster, namespace):
            yield f"nothing closes the namespace {namespace}"


@check
def what_belongs_together_may_talk(cluster: Cluster) -> Iterator[str]:
    for source, target, port in _flows(cluster, FLOWS):
        if not allows(cluster, Peer(source), Peer(target), port):
            yield f"{source.owner} does not reach port {port} of {target.owner}"


@check
def nobody_else_may(cluster: Cluster) -> Iterator[str]:
    for source, target, port in _flows(cluster, CLOSED):
        if allows(cluster, Peer(source), Peer(target), port):
            yield f"{source.owner} reaches port {port} of {target.owner}"


@check
def functions_do_not_reach_the_clouds_credentials(cluster: Cluster) -> Iterator[str]:
    for each in cluster.functions:
        for service in METADATA_SERVICES:
            for port in (53, 80, 32526):  # the last is the WireServer's too
                if each.pod and allows(cluster, Peer(each.pod), service, port):
                    yield f"{each} reaches port {port} of {service.address}"


@check
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


@check
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


@check
def what_is_asked_from_outside_is_open(cluster: Cluster) -> Iterator[str]:
    """NodePorts, and the extensions and webhooks that Kubernetes' API server asks, on a node."""
    asked = [
        (service.namespace, service.name, port["port"])
        for service in cluster.of("Service")
        if service.spec.get("type") == "NodePort"
        for port in service.spec["ports"]
    ] + [
        (reference["namespace"], reference["name"], reference.get("port", 443))
        for each in cluster.of("APIService", "ValidatingWebhookConfiguration")
        for reference in everything_at(each.data, "service")
    ]
    for namespace, name, number in asked:
        service = cluster.find("Service", name, namespace)
        if service is None or not has_port(service, number):
            yield f"no Service {name} in {namespace} has port {number}"
            continue
        (port,) = (each for each in service.spec["ports"] if each["port"] == number)
        for pod in pods_behind(cluster, service):
            target = container_port(pod, port.get("targetPort", number))
            if target is not None and not allows(cluster, OUTSIDE, Peer(pod), target):
                yield f"nobody outside reaches port {target} of {pod.owner}, as {service} promises"


def _flows(cluster: Cluster, flows: tuple[Flow, ...]) -> Iterator[tuple[Pod, Pod, int]]:
    for source_names, target_names, port in flows:
        for source in _workload(cluster, *source_names):
            for target in _workload(cluster, *target_names):
                if source is not target:
                    yield source, target, port


def _workload(cluster: Cluster, namespace: str, name: str) -> list[Pod]:
    """Return the pods of a workload; none, where this cluster has it not."""
    functions = [each.name for each in cluster.functions]
    names = functions if name == "*function" else [name]
    return [pod for pod in cluster.pods if pod.namespace == namespace and pod.owner.name in names]
