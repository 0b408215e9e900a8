"""Rules for every pod that neither Kubernetes' admission nor checkov has: those judge the rest."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Final

from tests.acceptance.k8s.checks.table import check
from tests.acceptance.k8s.manifests import K8S, Cluster, Pod, at, load, matches

_LABEL: Final = "app.kubernetes.io/"
_LEVEL: Final = "pod-security.kubernetes.io/enforce"
_REFERENCE: Final = re.compile(
    r"(?P<name>[^@]+?)(?::(?P<tag>[\w][\w.-]*))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@check
def selectors_are_name_and_instance(cluster: Cluster) -> Iterator[str]:
    """A selector cannot be changed later: a version in it would be there for ever."""
    for each in cluster.of("DaemonSet", "Deployment", "StatefulSet"):
        labels = at(each.spec, "selector.matchLabels", {})
        if not each.is_foreign and labels.keys() != {f"{_LABEL}name", f"{_LABEL}instance"}:
            yield f"{each} selects by {sorted(labels)}"


@check
def everything_has_the_recommended_labels(cluster: Cluster) -> Iterator[str]:
    """Source: Kubernetes, Recommended Labels. The version is that of the image."""
    for each in cluster.resources:
        if each.is_foreign or each.kind in ("Cluster", "Namespace"):
            continue
        labels = {key.removeprefix(_LABEL): value for key, value in each.labels.items()}
        fixed = (labels.get("part-of"), labels.get("managed-by"))
        if fixed != ("lambda", "kustomize") or "name" not in labels:
            yield f"{each} is labelled {labels}"
        if each.pod is not None:
            tag = str(split(each.pod.containers[0]["image"])[1])
            version = tag.removeprefix("v").partition("-")[0]
            is_whole = {"component", "instance"} <= labels.keys() and each.pod.labels == each.labels
            if not is_whole or labels.get("version", "").removeprefix("v") != version:
                yield f"{each} runs {tag}, is labelled {labels}, and its pods {each.pod.labels}"


@check
def images_are_those_of_the_table(cluster: Cluster) -> Iterator[str]:
    for pod in cluster.pods:
        for image in images_of(pod):
            if image not in table():
                yield f"{pod.owner}: {image} is not in k8s/versions"


@check
def our_namespaces_are_restricted(cluster: Cluster) -> Iterator[str]:
    for each in cluster.of("Namespace"):
        version = each.labels.get(f"{_LEVEL}-version", "")
        if each.labels.get(_LEVEL) != "restricted" or not re.fullmatch(r"v1\.\d+", version):
            yield f"{each} enforces {each.labels.get(_LEVEL)} of {version or 'no version'}"


@check
def pods_have_a_user_and_a_group(cluster: Cluster) -> Iterator[str]:
    """By number: else they are the image's, whose group is root's where it names none."""
    for pod in cluster.pods:
        for name in ("runAsUser", "runAsGroup"):
            of_pod = at(pod.spec, f"securityContext.{name}", 0)
            numbers = [at(one, f"securityContext.{name}", of_pod) for one in pod.all_containers]
            if min(numbers) <= 0 and not pod.owner.is_foreign:
                yield f"{pod.owner}: {name} is {numbers}"


@check
def no_secret_is_written_down(cluster: Cluster) -> Iterator[str]:
    for each in cluster.of("Secret"):
        if each.data.get("data") or each.data.get("stringData"):
            yield f"{each} has its content in a file"
    for pod in cluster.pods:
        for container in pod.all_containers:
            for variable in container.get("env", []):
                if re.search("PASS|SECRET|TOKEN", variable["name"]) and "value" in variable:
                    yield f"{pod.owner}: {variable['name']} has its value in a file"


@check
def containers_say_what_they_need_and_may_take(cluster: Cluster) -> Iterator[str]:
    """Init containers too, which checkov leaves out."""
    for pod in cluster.pods:
        for container in pod.all_containers:
            said = container.get("resources", {})
            needs = {"cpu", "memory"} <= said.get("requests", {}).keys()
            if not needs or "memory" not in said.get("limits", {}):
                yield f"{pod.owner}: {container['name']} says only {said}"


@check
def writable_folders_have_a_limit(cluster: Cluster) -> Iterator[str]:
    """Without one a pod may fill its node's disk, which is everybody's."""
    for pod in cluster.pods:
        for volume in pod.spec.get("volumes", []):
            is_unlimited = "emptyDir" in volume and not at(volume, "emptyDir.sizeLimit")
            if is_unlimited and not pod.owner.is_foreign:
                yield f"{pod.owner}: {volume['name']} may grow without end"


@check
def pods_are_spread_over_nodes(cluster: Cluster) -> Iterator[str]:
    """Away from their own kind. Those of functions and server rather on one node than none."""
    server = cluster.get("Deployment", "lambda-server", "lambda")
    for pod in cluster.pods:
        spread = pod.spec.get("topologySpreadConstraints", [])
        if not all(matches(one.get("labelSelector"), pod.labels) for one in spread):
            yield f"{pod.owner} spreads over pods that are not its own"
        keys = [(one["topologyKey"], one["whenUnsatisfiable"]) for one in spread]
        is_ours = pod.owner in (*cluster.functions, server)
        if is_ours and keys != [("kubernetes.io/hostname", "ScheduleAnyway")]:
            yield f"{pod.owner} is spread over {keys}"


@check
def what_alerts_are_about_is_scraped(cluster: Cluster) -> Iterator[str]:
    for pod in cluster.pods:
        annotations = pod.metadata.get("annotations", {})
        if annotations.get("prometheus.io/scrape") == "true":
            port = annotations.get("prometheus.io/port")
            if port not in [str(each["containerPort"]) for each in pod.ports]:
                yield f"{pod.owner} is scraped on port {port}, which it has not"
        elif pod.namespace in ("lambda", "messaging", "keda"):
            yield f"{pod.owner} is not scraped"


@check
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


def images_of(pod: Pod) -> list[str]:
    """Return the images of a pod's containers and volumes."""
    volumes = [at(volume, "image.reference") for volume in pod.spec.get("volumes", [])]
    return [*(each["image"] for each in pod.all_containers), *filter(None, volumes)]


def split(image: str) -> tuple[str, str | None, str | None]:
    """Return the name, tag and digest of an image."""
    found = _REFERENCE.fullmatch(image)
    assert found is not None, image
    return found["name"], found["tag"], found["digest"]


@functools.cache
def table() -> set[str]:
    """Return the images of ``k8s/versions``, as a pod names them."""
    (component,) = load((K8S / "versions" / "kustomization.yaml").read_text())
    references = set()
    for each in component["images"]:
        tag = f":{each['newTag']}" if "newTag" in each else ""
        digest = f"@{each['digest']}" if "digest" in each else ""
        references.add(f"{each.get('newName', each['name'])}{tag}{digest}")
    return references
