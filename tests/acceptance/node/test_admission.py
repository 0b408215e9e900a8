"""Kubernetes' own admission judges the pods of every manifest by Pod Security's "restricted"."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Final

import yaml

from tests.acceptance.k8s.clusters import CLUSTERS, cluster
from tests.acceptance.k8s.manifests import Resource, load
from tests.acceptance.k8s.test_documents import PARTS, manifests
from tests.acceptance.k8s.test_own import EXAMPLES, FUNCTIONS, OWN_CLUSTER, objects
from tests.acceptance.node.workplace import Workplace
from tests.support import ROOT

_CREATE: Final = ("create", "--dry-run=server", "--namespace=lambda", "--filename=-")


def workloads() -> Iterator[Resource]:
    """Yield what has pods in ``k8s/``, the examples and the documents."""
    for name in CLUSTERS:
        yield from cluster(name).resources
    for name in FUNCTIONS:
        yield from objects(EXAMPLES / name)
    for name in OWN_CLUSTER:
        yield from objects(EXAMPLES / "own-cluster" / name)
    texts = [(str(file), file.read_text()) for file in ROOT.glob("examples/*/deployment.yaml")]
    texts += [(str(block), block.text) for block in manifests() if block.text not in PARTS]
    for origin, text in texts:
        yield from (Resource(origin, each) for each in load(text) if "kind" in each)


def pods() -> list[dict[str, Any]]:
    """Return a pod of each workload, with what only a cluster would add left out."""
    found: list[dict[str, Any]] = []
    for resource in workloads():
        if resource.pod is None or not resource.pod.spec.get("containers"):
            continue  # a part that a kustomization makes whole
        spec = copy.deepcopy(resource.pod.spec)
        spec.pop("serviceAccountName", None)  # it would have to be there
        claims = resource.spec.get("volumeClaimTemplates", [])
        spec["volumes"] = [
            *spec.get("volumes", []),
            *({"name": claim["metadata"]["name"], "emptyDir": {}} for claim in claims),
        ]
        metadata = {**resource.pod.metadata, "name": f"pod-{len(found)}"}
        metadata.pop("namespace", None)
        found.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    return found


def create(workplace: Workplace, documents: list[dict[str, Any]]) -> str:
    """Return what the API server has against the pods."""
    text = yaml.safe_dump_all(documents)
    return workplace.run("kubectl", "--context=kind-lambda", *_CREATE, stdin=text).stderr


def test_kubernetes_admits_every_pod(cluster: Workplace) -> None:
    documents = pods()

    assert len(documents) > 30
    assert create(cluster, documents) == ""
