"""Our namespaces are closed to pods that are not restricted, and no secret is in a file.

What restricted means, Kubernetes' own admission judges in tests/acceptance/node.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from tests.acceptance.k8s.manifests import Cluster, at

_LEVEL: Final = "pod-security.kubernetes.io/enforce"
_VERSION: Final = f"{_LEVEL}-version"
NAMESPACES: Final = {
    *("lambda", "messaging", "monitoring", "registry", "keda", "kubernetes-dashboard"),
}


def our_namespaces_are_there(cluster: Cluster) -> Iterator[str]:
    names = {each.name for each in cluster.of("Namespace")}
    if names != NAMESPACES:
        yield f"the namespaces are {sorted(names)}"


def our_namespaces_are_restricted(cluster: Cluster) -> Iterator[str]:
    for each in cluster.of("Namespace"):
        version = each.labels.get(_VERSION, "")
        if each.labels.get(_LEVEL) != "restricted" or not re.fullmatch(r"v1\.\d+", version):
            yield f"{each} enforces {each.labels.get(_LEVEL)} of {version or 'no version'}"


def pods_have_a_user_and_a_group(cluster: Cluster) -> Iterator[str]:
    """By number: else they are the image's, whose group is root's where it names none."""
    for pod in cluster.pods:
        for name in ("runAsUser", "runAsGroup"):
            of_pod = at(pod.spec, f"securityContext.{name}", 0)
            numbers = [at(one, f"securityContext.{name}", of_pod) for one in pod.all_containers]
            if min(numbers) <= 0 and not pod.owner.is_foreign:
                yield f"{pod.owner}: {name} is {numbers}"


def no_secret_is_written_down(cluster: Cluster) -> Iterator[str]:
    for each in cluster.of("Secret"):
        if each.data.get("data") or each.data.get("stringData"):
            yield f"{each} has its content in a file"
    for pod in cluster.pods:
        for container in pod.all_containers:
            for variable in container.get("env", []):
                if re.search("PASS|SECRET|TOKEN", variable["name"]) and "value" in variable:
                    yield f"{pod.owner}: {variable['name']} has its value in a file"


CHECKS: Final = (
    our_namespaces_are_there,
    our_namespaces_are_restricted,
    pods_have_a_user_and_a_group,
    no_secret_is_written_down,
)
