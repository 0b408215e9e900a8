"""The clusters that users can have: which folders of ``k8s/`` are in one together."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Final

from tests.acceptance.k8s.manifests import K8S, Cluster, Resource, load, rendered

_ALWAYS: Final = ("namespaces", "registry", "metrics-server", "prometheus", "lambda-server")

#: Files of components that no overlay takes: users add them.
_OPTIONAL: Final = (
    "components/httproute/http-route.yaml",
    "components/pod-monitor/pod-monitor.yaml",
)

#: Folders and files beside those of ``_ALWAYS``, by what the cluster shows.
CLUSTERS: Final = {
    "keda": ("rabbitmq", "keda", "dashboard", "grafana", "overlays/keda"),
    "hpa": ("rabbitmq", "prometheus-adapter", "headlamp", "overlays/hpa"),
    "keda-prometheus": ("rabbitmq", "keda", "overlays/keda-prometheus", *_OPTIONAL),
    "max-concurrency": ("rabbitmq-cluster", "dashboard", "overlays/max-concurrency"),
    "image-volume": ("rabbitmq", "keda", "dashboard", "overlays/image-volume"),
}


def places(name: str) -> tuple[str, ...]:
    """Return the folders and files of ``k8s/`` that a cluster is made from."""
    return (*_ALWAYS, *CLUSTERS[name])


@functools.cache
def cluster(name: str) -> Cluster:
    """Return all objects of a cluster; one that two folders have alike is there once."""
    resources: list[Resource] = []
    for place in ("kind.yaml", *places(name)):
        for each in _resources(place):
            if each.data not in [other.data for other in resources]:
                resources.append(each)
    return Cluster(name, resources)


def _resources(place: str) -> Iterable[Resource]:
    path = K8S / place
    if path.is_dir():
        return rendered(path)
    return [Resource(place, each) for each in load(path.read_text())]
