"""Services lead to pods, NodePorts to this machine's ports, addresses to Services."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from tests.acceptance.k8s.manifests import Cluster, Pod, Resource, at

#: Port of this machine → the Service behind it, and its port.
HOST_PORTS: Final = {
    30000: ("kubernetes-dashboard", "kubernetes-dashboard or headlamp", 443),
    5000: ("registry", "registry", 5000),
    8080: ("lambda", "lambda-server", 8080),
    5672: ("messaging", "rabbitmq", 5672),
    15672: ("messaging", "rabbitmq", 15672),
    15692: ("messaging", "rabbitmq", 15692),
    9090: ("monitoring", "prometheus", 9090),
}
_ADDRESS: Final = re.compile(
    r"(?P<scheme>https?|amqps?)://(?P<service>[a-z0-9-]+)\.(?P<namespace>[a-z0-9-]+)"
    r"(?:\.svc(?:\.cluster\.local)?)?(?::(?P<port>\d+))?(?![\w.-])"
)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "amqp": 5672, "amqps": 5671}


def services_select_one_workload(cluster: Cluster) -> Iterator[str]:
    for service in cluster.of("Service"):
        pods = pods_behind(cluster, service)
        if service.spec.get("selector") and len(pods) != 1:
            yield f"{service} selects the pods of {[str(pod.owner) for pod in pods]}"


def target_ports_are_there(cluster: Cluster) -> Iterator[str]:
    for service in cluster.of("Service"):
        for port in service.spec.get("ports", []):
            target = port.get("targetPort", port["port"])
            for pod in pods_behind(cluster, service):
                # A port works undeclared, as KEDA has it; only a name must be somebody's.
                is_undeclared = pod.owner.is_foreign and isinstance(target, int)
                found = container_port(pod, target, port.get("protocol", "TCP"))
                if found is None and not is_undeclared:
                    yield f"{service}: {pod.owner} has no port {target}"


def node_ports_are_those_of_this_machine(cluster: Cluster) -> Iterator[str]:
    """Every NodePort is there once and mapped by kind, and leads to whom users expect."""
    node_ports = [
        (port.get("nodePort"), service, port)
        for service in cluster.of("Service")
        if service.spec.get("type") == "NodePort"
        for port in service.spec["ports"]
    ]
    for number, count in Counter(number for number, _, _ in node_ports).items():
        if count > 1 or number is None:
            yield f"nodePort {number} is there {count} times"
    mapped = {mapping["containerPort"]: mapping["hostPort"] for mapping in port_mappings(cluster)}
    for host_port in HOST_PORTS.keys() - mapped.values():
        yield f"port {host_port} of this machine is mapped to nothing"
    inhabited = {pod.namespace for pod in cluster.pods}
    used = [number for number, _, _ in node_ports]
    for node_port, host_port in mapped.items():
        if node_port not in used and HOST_PORTS.get(host_port, ("",))[0] in inhabited:
            yield f"port {host_port} of this machine leads to no Service"
    for number, service, port in node_ports:
        if number not in mapped:
            yield f"{service}: nodePort {number} is not mapped by kind"
            continue
        namespace, workload, target = HOST_PORTS.get(mapped[number], ("", "nothing", 0))
        owners = [pod.owner.name for pod in pods_behind(cluster, service)]
        leads_there = service.namespace == namespace and set(owners) <= set(workload.split(" or "))
        # Headlamp answers on another port than the Kubernetes Dashboard.
        if not leads_there or target not in (port["port"], 443):
            yield f"port {mapped[number]} leads to {service} and not to {workload}"


def kind_listens_on_the_loopback_address_only(cluster: Cluster) -> Iterator[str]:
    for mapping in port_mappings(cluster):
        if mapping.get("listenAddress") != "127.0.0.1":
            yield f"host port {mapping['hostPort']} listens on {mapping.get('listenAddress')}"


def addresses_lead_to_services(cluster: Cluster) -> Iterator[str]:
    """Every URL with a namespace of ours in it, wherever it stands."""
    namespaces = {each.name for each in cluster.of("Namespace")}
    for each in cluster.resources:
        for found in _ADDRESS.finditer(json.dumps(each.data)):
            if found["namespace"] not in namespaces:
                continue
            port = int(found["port"] or _DEFAULT_PORTS[found["scheme"]])
            service = cluster.find("Service", found["service"], found["namespace"])
            if service is None or not has_port(service, port):
                yield f"{each} names {found[0]}, port {port}, which no Service has"


def stateful_sets_have_a_headless_service(cluster: Cluster) -> Iterator[str]:
    for each in cluster.of("StatefulSet"):
        service = cluster.find("Service", each.spec.get("serviceName", ""), each.namespace)
        pods = pods_behind(cluster, service) if service else []
        is_right = service and service.spec.get("clusterIP") == "None"
        if not is_right or [pod.owner for pod in pods] != [each]:
            yield f"{each} has no headless Service {each.spec.get('serviceName')}"


def pods_behind(cluster: Cluster, service: Resource) -> list[Pod]:
    """Return the pods that a Service sends to."""
    selector = service.spec.get("selector") or {}
    return [
        pod
        for pod in cluster.pods
        if selector
        and pod.namespace == service.namespace
        and all(pod.labels.get(key) == value for key, value in selector.items())
    ]


def container_port(pod: Pod, port: int | str, protocol: str = "TCP") -> int | None:
    """Return the number of a pod's port by number or name."""
    for each in pod.ports:
        is_it = port in (each.get("name"), each["containerPort"])
        if is_it and each.get("protocol", "TCP") == protocol:
            return int(each["containerPort"])
    return None


def has_port(service: Resource, port: int | str) -> bool:
    """Return whether a Service has a port of this number or name."""
    ports = service.spec.get("ports", [])
    return any(port in (each["port"], each.get("name")) for each in ports)


def port_mappings(cluster: Cluster) -> list[Any]:
    """Return what kind maps from this machine into the cluster."""
    return [
        mapping
        for config in cluster.of("Cluster")
        for node in config.data["nodes"]
        for mapping in at(node, "extraPortMappings", [])
    ]


CHECKS: Final = (
    services_select_one_workload,
    target_ports_are_there,
    node_ports_are_those_of_this_machine,
    kind_listens_on_the_loopback_address_only,
    addresses_lead_to_services,
    stateful_sets_have_a_headless_service,
)
