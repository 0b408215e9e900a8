"""What one object names in another is there: services, ports, configuration, accounts, roles."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from devtools.kind_cluster.credentials import Credentials
from tests.acceptance.k8s.checks.table import check
from tests.acceptance.k8s.manifests import Cluster, Pod, Resource, at, everything_at, matches

#: Secrets that are made at run time, (namespace, name) → their keys: by scripts/cluster, and KEDA.
SECRETS: Final = {
    **{place: set(keys) for place, keys in Credentials.masked().secrets.items()},
    ("keda", "kedaorg-certs"): {"ca.crt", "tls.crt", "tls.key"},
}
#: Roles that every cluster has; a Role with its namespace.
_BUILT_IN: Final = {
    ("ClusterRole", "", "system:auth-delegator"),
    ("ClusterRole", "", "view"),
    ("Role", "kube-system", "extension-apiserver-authentication-reader"),
}
#: Port of this machine → the Service's namespace and port, and the workloads that may be behind.
HOST_PORTS: Final = {
    30000: ("kubernetes-dashboard", 443, {"kubernetes-dashboard", "headlamp"}),
    5000: ("registry", 5000, {"registry"}),
    8080: ("lambda", 8080, {"lambda-server"}),
    5672: ("messaging", 5672, {"rabbitmq"}),
    15672: ("messaging", 15672, {"rabbitmq"}),
    15692: ("messaging", 15692, {"rabbitmq"}),
    9090: ("monitoring", 9090, {"prometheus"}),
}
_ADDRESS: Final = re.compile(
    r"(?P<scheme>https?|amqps?)://(?P<service>[a-z0-9-]+)\.(?P<namespace>[a-z0-9-]+)"
    r"(?:\.svc(?:\.cluster\.local)?)?(?::(?P<port>\d+))?(?![\w.-])"
)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "amqp": 5672, "amqps": 5671}


@check
def namespaces_are_there(cluster: Cluster) -> Iterator[str]:
    known = {each.name for each in cluster.of("Namespace")} | {"kube-system"}
    for each in cluster.resources:
        if each.namespace not in (known if each.is_namespaced else {""}):
            yield f"{each} is in the namespace {each.namespace!r}"


@check
def nothing_is_there_twice(cluster: Cluster) -> Iterator[str]:
    """Applied twice, the second would undo the first."""
    counts = Counter((each.kind, each.namespace, each.name) for each in cluster.resources)
    yield from (f"{key} is there twice, and differs" for key, count in counts.items() if count > 1)


@check
def what_pods_name_is_there(cluster: Cluster) -> Iterator[str]:
    for pod in cluster.pods:
        for kind, name, key in _names_of(pod):
            if key not in _keys(cluster, kind, name, pod.namespace):
                yield f"{pod.owner}: no {kind} {name}, or no {key} in it"


@check
def bindings_name_what_is_there(cluster: Cluster) -> Iterator[str]:
    for each in cluster.of("ClusterRoleBinding", "RoleBinding"):
        kind, name = each.data["roleRef"]["kind"], each.data["roleRef"]["name"]
        namespace = "" if kind == "ClusterRole" else each.namespace
        if (kind, namespace, name) not in _BUILT_IN and not cluster.find(kind, name, namespace):
            yield f"{each} names the {kind} {name}, which is not there"
        for subject in each.data.get("subjects", []):
            if subject["kind"] != "ServiceAccount":
                continue
            is_of_kubernetes = subject["namespace"] == "kube-system" and each.is_foreign
            found = cluster.find("ServiceAccount", subject["name"], subject["namespace"])
            if not found and not is_of_kubernetes:
                yield f"{each} names the account {subject['name']}, which is not there"


@check
def tokens_are_for_pods_with_a_role(cluster: Cluster) -> Iterator[str]:
    bound = {
        (subject.get("namespace"), subject["name"])
        for binding in cluster.of("ClusterRoleBinding", "RoleBinding")
        for subject in binding.data.get("subjects", [])
    }
    for pod in cluster.pods:
        account = cluster.find("ServiceAccount", pod.service_account, pod.namespace)
        of_account = account.data.get("automountServiceAccountToken") if account else None
        said = pod.spec.get("automountServiceAccountToken", of_account)
        is_projected = any(everything_at(pod.spec.get("volumes", []), "serviceAccountToken"))
        has_token = said is not False or is_projected
        has_role = (pod.namespace, pod.service_account) in bound
        # Headlamp finds the API server's certificate beside its token.
        if has_token != (has_role or pod.owner.name == "headlamp"):
            yield f"{pod.owner} has {'a role' if has_role else 'no role'}, and a token is otherwise"


@check
def our_roles_name_what_they_need(cluster: Cluster) -> Iterator[str]:
    """No wildcards, and nothing by which one becomes somebody else."""
    refused = {"*", "nodes/proxy", "impersonate", "escalate", "bind", "pods/exec"}
    for each in cluster.of("ClusterRole", "Role"):
        for rule in [] if each.is_foreign else each.data.get("rules", []):
            words = {word for values in rule.values() for word in values}
            if words & refused:
                yield f"{each} may {sorted(words & refused)}"


@check
def selectors_select_something(cluster: Cluster) -> Iterator[str]:
    """A policy, budget or monitor that selects nothing was meant for something."""
    for each in cluster.of("NetworkPolicy", "PodDisruptionBudget", "PodMonitor"):
        selector = each.spec.get("podSelector" if each.kind == "NetworkPolicy" else "selector")
        if not list(_selected(cluster, each.namespace, selector)):
            yield f"{each} selects no pod"


@check
def services_select_one_workload(cluster: Cluster) -> Iterator[str]:
    for service in cluster.of("Service"):
        owners = [str(pod.owner) for pod in pods_behind(cluster, service)]
        if service.spec.get("selector") and len(owners) != 1:
            yield f"{service} selects the pods of {owners}"


@check
def ports_are_there(cluster: Cluster) -> Iterator[str]:
    """A number works undeclared, as KEDA has it. A name does not."""
    for who, pod, port in _ports_asked_for(cluster):
        is_undeclared = pod.owner.is_foreign and isinstance(port, int)
        if container_port(pod, port) is None and not is_undeclared:
            yield f"{who}: {pod.owner} has no port {port}"


@check
def ports_of_this_machine_lead_to_whom_users_expect(cluster: Cluster) -> Iterator[str]:
    mapped = {each["containerPort"]: each["hostPort"] for each in port_mappings(cluster)}
    if sorted(mapped.values()) != sorted(HOST_PORTS):
        yield f"kind maps {mapped}"
    led: Counter[int] = Counter()
    for service in cluster.of("Service"):
        for port in service.spec["ports"] if service.spec.get("type") == "NodePort" else []:
            host_port = mapped.get(port.get("nodePort"), 0)
            namespace, target, workloads = HOST_PORTS.get(host_port, ("", 0, {""}))
            led[host_port] += 1
            behind = {pod.owner.name for pod in pods_behind(cluster, service)}
            # Headlamp answers on another port than the Kubernetes Dashboard.
            is_port = target in (port["port"], 443)
            if service.namespace != namespace or not behind <= workloads or not is_port:
                yield f"port {host_port} leads to {service}, not to {workloads} in {namespace!r}"
    inhabited = {pod.namespace for pod in cluster.pods}
    for host_port, (namespace, _, _) in HOST_PORTS.items():
        if led[host_port] != (namespace in inhabited):
            yield f"port {host_port} of this machine leads to {led[host_port]} Services"


@check
def addresses_lead_to_services(cluster: Cluster) -> Iterator[str]:
    """Every URL with a namespace of ours in it, wherever it stands, and every route."""
    namespaces = {each.name for each in cluster.of("Namespace")}
    named = [
        (each, found["namespace"], found["service"],
         int(found["port"] or _DEFAULT_PORTS[found["scheme"]]))
        for each in cluster.resources
        for found in _ADDRESS.finditer(json.dumps(each.data))
        if found["namespace"] in namespaces
    ] + [
        (each, each.namespace, reference["name"], reference["port"])
        for each in cluster.of("HTTPRoute")
        for backends in everything_at(each.spec, "backendRefs")
        for reference in backends
    ]  # fmt: skip
    for each, namespace, name, port in named:
        if not has_port(cluster.find("Service", name, namespace), port):
            yield f"{each} names port {port} of {name} in {namespace}, which no Service has"


@check
def stateful_sets_have_a_headless_service(cluster: Cluster) -> Iterator[str]:
    for each in cluster.of("StatefulSet"):
        service = cluster.find("Service", each.spec.get("serviceName", ""), each.namespace)
        is_headless = service is not None and service.spec.get("clusterIP") == "None"
        if not is_headless or [pod.owner for pod in pods_behind(cluster, service)] != [each]:
            yield f"{each} has no headless Service {each.spec.get('serviceName')}"


def pods_behind(cluster: Cluster, service: Resource | None) -> list[Pod]:
    """Return the pods that a Service sends to."""
    if service is None or not service.spec.get("selector"):
        return []
    return list(_selected(cluster, service.namespace, {"matchLabels": service.spec["selector"]}))


def container_port(pod: Pod, port: int | str) -> int | None:
    """Return the number of a pod's port by number or name."""
    for each in pod.ports:
        if port in (each.get("name"), each["containerPort"]):
            return int(each["containerPort"])
    return None


def has_port(service: Resource | None, port: int | str) -> bool:
    """Return whether there is a Service with a port of this number or name."""
    ports = service.spec.get("ports", []) if service else []
    return any(port in (each["port"], each.get("name")) for each in ports)


def port_mappings(cluster: Cluster) -> list[Any]:
    """Return what kind maps from this machine into the cluster."""
    found = [
        mappings
        for config in cluster.of("Cluster")
        for mappings in everything_at(config.data["nodes"], "extraPortMappings")
    ]
    return [mapping for mappings in found for mapping in mappings]


def _selected(cluster: Cluster, namespace: str, selector: Any) -> Iterator[Pod]:
    for pod in cluster.pods:
        if pod.namespace == namespace and matches(selector, pod.labels):
            yield pod


def _ports_asked_for(cluster: Cluster) -> Iterator[tuple[object, Pod, int | str]]:
    """Yield who asks a port of a pod, by number or name."""
    for service in cluster.of("Service"):
        for port in service.spec.get("ports", []):
            for pod in pods_behind(cluster, service):
                yield service, pod, port.get("targetPort", port["port"])
    for pod in cluster.pods:
        for container in pod.all_containers:
            probes = [value for key, value in container.items() if key.endswith("Probe")]
            for asked in everything_at(probes, "port"):
                yield container["name"], pod, asked
    for monitor in cluster.of("PodMonitor"):
        for pod in _selected(cluster, monitor.namespace, monitor.spec["selector"]):
            for endpoint in monitor.spec["podMetricsEndpoints"]:
                yield monitor, pod, endpoint["port"]


def _names_of(pod: Pod) -> Iterator[tuple[str, str, str | None]]:
    """Yield the kind and name of what a pod needs, and a key in it."""
    yield "ServiceAccount", pod.service_account, None
    for claim in everything_at(pod.spec, "claimName"):
        yield "PersistentVolumeClaim", claim, None
    for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        for reference in everything_at(pod.spec, field):
            if not reference.get("optional"):
                yield kind, reference["name"], reference["key"]
    for volume in pod.spec.get("volumes", []):
        mounts = [each for one in pod.all_containers for each in one.get("volumeMounts", [])]
        files = [each.get("subPath") for each in mounts if each["name"] == volume["name"]]
        for source in (volume, *at(volume, "projected.sources", [])):
            for field, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
                if field in source and not source[field].get("optional"):
                    name = source[field].get("name") or source[field].get("secretName", "")
                    for key in [one["key"] for one in source[field].get("items", [])] or files:
                        yield kind, name, key


def _keys(cluster: Cluster, kind: str, name: str, namespace: str) -> set[str | None]:
    """Return the keys of an object, and None if it is there."""
    if (kind, name) in (("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")):
        return {None, "ca.crt"}  # by Kubernetes, in every namespace
    if kind == "Secret" and (namespace, name) in SECRETS:
        return {None, *SECRETS[namespace, name]}
    found = cluster.find(kind, name, namespace)
    return (
        {None, *found.data.get("data", {}), *found.data.get("binaryData", {})} if found else set()
    )
