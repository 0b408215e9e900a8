"""The labels that Kubernetes recommends, on everything that is ours.

Source: Kubernetes, Recommended Labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.acceptance.k8s.manifests import Cluster

_PREFIX: Final = "app.kubernetes.io/"
_EVERYWHERE: Final = {"name", "part-of", "managed-by"}
_OF_WORKLOADS: Final = {*_EVERYWHERE, "component", "instance", "version"}
#: What has no name beside its own, or no labels at all.
_WITHOUT: Final = ("Cluster", "Namespace")


def everything_has_the_recommended_labels(cluster: Cluster) -> Iterator[str]:
    for each in cluster.resources:
        wanted = _OF_WORKLOADS if each.pod else _EVERYWHERE
        missing = {f"{_PREFIX}{name}" for name in wanted} - each.labels.keys()
        if missing and not each.is_foreign and each.kind not in _WITHOUT:
            yield f"{each} has no labels {sorted(missing)}"


def pods_have_the_labels_of_their_workload(cluster: Cluster) -> Iterator[str]:
    for pod in cluster.pods:
        if pod.labels != pod.owner.labels and not pod.owner.is_foreign:
            yield f"{pod.owner} is labelled {pod.owner.labels}, its pods {pod.labels}"


def everything_is_part_of_lambda(cluster: Cluster) -> Iterator[str]:
    for each in cluster.resources:
        part = each.labels.get(f"{_PREFIX}part-of")
        if part != "lambda" and not each.is_foreign and each.kind != "Cluster":
            yield f"{each} is part of {part}"
        manager = each.labels.get(f"{_PREFIX}managed-by", "kustomize")
        if manager != "kustomize" and not each.is_foreign:
            yield f"{each} is managed by {manager}"


CHECKS: Final = (
    everything_has_the_recommended_labels,
    pods_have_the_labels_of_their_workload,
    everything_is_part_of_lambda,
)
