"""What one object names in another is there: configuration, secrets, accounts, keys in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.acceptance.k8s.checks.services import has_port
from tests.acceptance.k8s.manifests import Cluster, Pod, Resource, at, everything_at, matches

#: Secrets that are made at run time, (namespace, name) → their keys, and who makes them.
SECRETS: Final = {
    ("messaging", "rabbitmq"): {"username", "password", "erlang-cookie"},  # scripts/cluster
    ("lambda", "broker"): {"username", "password"},  # scripts/cluster
    ("keda", "kedaorg-certs"): {"ca.crt", "tls.crt", "tls.key"},  # KEDA's operator
}
#: In every namespace, by Kubernetes.
_ROOT_CERTIFICATE: Final = "kube-root-ca.crt"


def configuration_is_there(cluster: Cluster) -> Iterator[str]:
    """ConfigMaps and Secrets, and in them the keys that are asked for."""
    for pod in cluster.pods:
        for kind, reference, keys in _pod_references(pod):
            if reference.get("optional"):
                continue
            name = reference.get("name") or reference.get("secretName", "")
            yield from _missing(cluster, pod.owner, kind, name, keys)
    for each in cluster.of("TriggerAuthentication"):
        for field, kind in (("configMapTargetRef", "ConfigMap"), ("secretTargetRef", "Secret")):
            for reference in each.spec.get(field, []):
                yield from _missing(cluster, each, kind, reference["name"], {reference["key"]})


def service_accounts_are_there(cluster: Cluster) -> Iterator[str]:
    for pod in cluster.pods:
        account = pod.service_account
        if account != "default" and not cluster.find("ServiceAccount", account, pod.namespace):
            yield f"{pod.owner}: no ServiceAccount {account} in {pod.namespace}"


def claims_are_there(cluster: Cluster) -> Iterator[str]:
    for pod in cluster.pods:
        for claim in everything_at(pod.spec, "claimName"):
            if not cluster.find("PersistentVolumeClaim", claim, pod.namespace):
                yield f"{pod.owner}: no PersistentVolumeClaim {claim} in {pod.namespace}"


def services_named_by_the_api_are_there(cluster: Cluster) -> Iterator[str]:
    """Those that Kubernetes' API asks: its extensions and webhooks."""
    for each in cluster.of(
        "APIService", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"
    ):
        for reference in everything_at(each.data, "service"):
            service = cluster.find("Service", reference["name"], reference["namespace"])
            if service is None or not has_port(service, reference.get("port", 443)):
                yield f"{each}: no Service {reference} with that port"


def routes_lead_to_services(cluster: Cluster) -> Iterator[str]:
    for each in cluster.of("HTTPRoute"):
        for backends in everything_at(each.spec, "backendRefs"):
            for reference in backends:
                service = cluster.find("Service", reference["name"], each.namespace)
                if service is None or not has_port(service, reference["port"]):
                    yield f"{each}: no Service {reference}"


def selectors_select_something(cluster: Cluster) -> Iterator[str]:
    """A policy, budget or monitor that selects nothing was meant for something."""
    fields = {"NetworkPolicy": "podSelector", "PodDisruptionBudget": "selector"}
    fields["PodMonitor"] = "selector"
    for each in cluster.of(*fields):
        labels = [pod.labels for pod in cluster.pods if pod.namespace == each.namespace]
        if not any(matches(each.spec.get(fields[each.kind]), some) for some in labels):
            yield f"{each} selects no pod"


def monitored_ports_are_there(cluster: Cluster) -> Iterator[str]:
    for each in cluster.of("PodMonitor"):
        wanted = {endpoint["port"] for endpoint in each.spec["podMetricsEndpoints"]}
        for pod in cluster.pods:
            is_meant = pod.namespace == each.namespace
            if is_meant and matches(each.spec["selector"], pod.labels):
                for port in wanted - {port.get("name") for port in pod.ports}:
                    yield f"{each}: {pod.owner} has no port {port}"


def namespaces_are_there(cluster: Cluster) -> Iterator[str]:
    known = {each.name for each in cluster.of("Namespace")} | {"kube-system"}
    for each in cluster.resources:
        if each.is_namespaced and each.namespace not in known:
            yield f"{each} is in the namespace {each.namespace!r}, which nobody makes"
        if not each.is_namespaced and each.namespace:
            yield f"{each} has a namespace, and its kind has none"


def nothing_is_there_twice(cluster: Cluster) -> Iterator[str]:
    """Applied twice, the second would undo the first."""
    seen: dict[tuple[str, str, str], Resource] = {}
    for each in cluster.resources:
        key = (each.kind, each.namespace, each.name)
        if key in seen:
            yield f"{each} is in {seen[key].origin} and in {each.origin}, and they differ"
        seen[key] = each


def _pod_references(pod: Pod) -> Iterator[tuple[str, dict[str, Any], set[str]]]:
    """Yield the kind, the reference, and the keys that it needs."""
    for container in pod.all_containers:
        for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            for reference in everything_at(container.get("env", []), field):
                yield kind, reference, {reference["key"]}
        for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            for reference in everything_at(container.get("envFrom", []), field):
                yield kind, reference, set()
    for volume in pod.spec.get("volumes", []):
        mounts = [each for one in pod.all_containers for each in one.get("volumeMounts", [])]
        files = {
            mount["subPath"]
            for mount in mounts
            if mount["name"] == volume["name"] and "subPath" in mount
        }
        for source in (volume, *at(volume, "projected.sources", [])):
            for field, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
                if field in source:
                    items = source[field].get("items")
                    keys = files if items is None else {item["key"] for item in items}
                    yield kind, source[field], keys
    for reference in pod.spec.get("imagePullSecrets", []):
        yield "Secret", reference, {".dockerconfigjson"}


def _missing(
    cluster: Cluster, who: Resource, kind: str, name: str, keys: set[str]
) -> Iterator[str]:
    found = cluster.find(kind, name, who.namespace)
    known: set[str] | None
    if kind == "Secret" and found is None:
        known = SECRETS.get((who.namespace, name))
    elif kind == "ConfigMap" and name == _ROOT_CERTIFICATE:
        known = {"ca.crt"}
    else:
        known = (
            None
            if found is None
            else {*found.data.get("data", {}), *found.data.get("binaryData", {})}
        )
    if known is None:
        yield f"{who}: no {kind} {name} in {who.namespace}"
    elif not keys <= known:
        yield f"{who}: {kind} {name} has no {sorted(keys - known)}"


CHECKS: Final = (
    configuration_is_there,
    service_accounts_are_there,
    claims_are_there,
    services_named_by_the_api_are_there,
    routes_lead_to_services,
    selectors_select_something,
    monitored_ports_are_there,
    namespaces_are_there,
    nothing_is_there_twice,
)
