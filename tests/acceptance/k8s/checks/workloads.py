"""What a Deployment, StatefulSet or DaemonSet says of its pods agrees with itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.acceptance.k8s.manifests import Cluster, Pod, at, everything_at, matches

_LASTING: Final = ("DaemonSet", "Deployment", "StatefulSet")
_SELECTED_BY: Final = {"app.kubernetes.io/name", "app.kubernetes.io/instance"}


def selectors_select_their_own_pods_only(cluster: Cluster) -> Iterator[str]:
    for each in cluster.of(*_LASTING):
        selector = each.spec.get("selector") or {}
        chosen = [
            str(pod.owner)
            for pod in cluster.pods
            if pod.namespace == each.namespace and matches(selector, pod.labels)
        ]
        if chosen != [str(each)]:
            yield f"{each} selects the pods of {chosen}"


def selectors_are_name_and_instance(cluster: Cluster) -> Iterator[str]:
    """A selector cannot be changed later: a version in it would be there for ever."""
    for each in cluster.of(*_LASTING):
        labels = at(each.spec, "selector.matchLabels", {})
        if not each.is_foreign and labels.keys() != _SELECTED_BY:
            yield f"{each} selects by {sorted(labels)}"


def pods_spread_away_from_their_own_kind(cluster: Cluster) -> Iterator[str]:
    for pod in cluster.pods:
        for each in pod.spec.get("topologySpreadConstraints", []):
            if not matches(each.get("labelSelector"), pod.labels):
                yield f"{pod.owner} spreads over pods that are not its own"


def volumes_and_mounts_agree(cluster: Cluster) -> Iterator[str]:
    for pod in cluster.pods:
        volumes = [volume["name"] for volume in pod.spec.get("volumes", [])]
        claims = [claim["metadata"]["name"] for claim in claims_of(pod)]
        mounted = set()
        for container in pod.all_containers:
            mounts = container.get("volumeMounts", [])
            mounted |= {mount["name"] for mount in mounts}
            paths = [mount["mountPath"] for mount in mounts]
            if len(paths) != len(set(paths)):
                yield f"{pod.owner}: {container['name']} mounts a path twice"
        if mounted != {*volumes, *claims} or len(volumes) != len(set(volumes)):
            yield f"{pod.owner} mounts {sorted(mounted)} and has {sorted([*volumes, *claims])}"


def containers_say_what_they_need_and_may_take(cluster: Cluster) -> Iterator[str]:
    for pod in cluster.pods:
        for container in pod.all_containers:
            resources = container.get("resources", {})
            said = {f"requests {name}" for name in resources.get("requests", {})}
            said |= {f"limits {name}" for name in resources.get("limits", {})}
            for missing in sorted({"requests cpu", "requests memory", "limits memory"} - said):
                yield f"{pod.owner}: {container['name']} says nothing of {missing}"


def probes_ask_ports_that_are_there(cluster: Cluster) -> Iterator[str]:
    for pod in cluster.pods:
        for container in pod.all_containers:
            ports = container.get("ports", [])
            known = {value for port in ports for value in (port.get("name"), port["containerPort"])}
            probes = [value for key, value in container.items() if key.endswith("Probe")]
            for port in everything_at(probes, "port"):
                is_undeclared = pod.owner.is_foreign and isinstance(port, int)
                if port not in known and not is_undeclared:
                    yield f"{pod.owner}: {container['name']} is probed on port {port}"


def writable_folders_have_a_limit(cluster: Cluster) -> Iterator[str]:
    """Without one a pod may fill its node's disk, which is everybody's."""
    for pod in cluster.pods:
        for volume in pod.spec.get("volumes", []):
            is_empty_dir = "emptyDir" in volume or volume.keys() == {"name"}
            is_unlimited = is_empty_dir and not at(volume, "emptyDir.sizeLimit")
            if is_unlimited and not pod.owner.is_foreign:
                yield f"{pod.owner}: {volume['name']} may grow without end"


def what_alerts_are_about_is_scraped(cluster: Cluster) -> Iterator[str]:
    for pod in cluster.pods:
        annotations = pod.metadata.get("annotations", {})
        is_wanted = pod.namespace in ("lambda", "messaging", "keda")
        if is_wanted and annotations.get("prometheus.io/scrape") != "true":
            yield f"{pod.owner} is not scraped"
        if annotations.get("prometheus.io/scrape") == "true":
            port = annotations.get("prometheus.io/port")
            if port not in [str(each["containerPort"]) for each in pod.ports]:
                yield f"{pod.owner} is scraped on port {port}, which it has not"


def budgets_let_a_pod_go(cluster: Cluster) -> Iterator[str]:
    """One that lets none go keeps a node from being drained."""
    for each in cluster.of("PodDisruptionBudget"):
        for pod in cluster.pods:
            is_meant = pod.namespace == each.namespace
            if is_meant and matches(each.spec.get("selector"), pod.labels):
                replicas = pod.owner.spec.get("replicas", 1)
                kept = each.spec.get("minAvailable", replicas - each.spec.get("maxUnavailable", 0))
                if not 0 < kept < replicas:
                    yield f"{each} keeps {kept} of {replicas} pods"


def claims_of(pod: Pod) -> list[Any]:
    """Return the volumes that a StatefulSet claims for each pod."""
    claims: list[Any] = pod.owner.spec.get("volumeClaimTemplates", [])
    return claims


CHECKS: Final = (
    selectors_select_their_own_pods_only,
    selectors_are_name_and_instance,
    pods_spread_away_from_their_own_kind,
    volumes_and_mounts_agree,
    containers_say_what_they_need_and_may_take,
    probes_ask_ports_that_are_there,
    writable_folders_have_a_limit,
    what_alerts_are_about_is_scraped,
    budgets_let_a_pod_go,
)
