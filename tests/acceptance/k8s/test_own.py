"""What a user starts from, examples/kubernetes, fits into the cluster that we make."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

import pytest

from devtools.kustomize import render
from tests.acceptance.k8s.checks import every, functions, pods, scaling
from tests.acceptance.k8s.clusters import cluster
from tests.acceptance.k8s.manifests import Cluster, Resource, load, need_kustomize
from tests.support import ROOT

EXAMPLES: Final = ROOT / "examples" / "kubernetes"
FUNCTIONS: Final = ("my-lambda", "deployment.yaml")
#: Folders of a cluster that a user has; the others beside them are components.
OWN_CLUSTER: Final = ("rabbitmq", "prometheus", "server", "functions")

#: What is asked of k8s/ alone.
_OURS: Final = {
    pods.everything_has_the_recommended_labels,
    pods.images_are_those_of_the_table,
    functions.both_examples_are_there,
}
#: What the manifest in one file leaves out: an autoscaler, and which nodes its pods are on.
_NOT_IN_ONE_FILE: Final = {
    pods.pods_are_spread_over_nodes,
    scaling.every_function_is_scaled_by_one_and_the_same_kind,
}
CASES: Final = [
    pytest.param(function, check, id=f"{every.name_of(check)}-{function}")
    for function, left_out in (("my-lambda", _OURS), ("deployment.yaml", _OURS | _NOT_IN_ONE_FILE))
    for check in every.CHECKS
    if check not in left_out
]


@functools.cache
def objects(source: Path) -> list[Resource]:
    """Return what a folder renders to, or what is in a file."""
    if source.is_dir():
        need_kustomize()
    text = render(source) if source.is_dir() else source.read_text()
    return [Resource(source.name, each) for each in load(text)]


@functools.cache
def cluster_with(function: str) -> Cluster:
    """Return the cluster of the overlay keda with one function more."""
    there = cluster("keda").resources
    known = [each.data for each in there]
    new = [each for each in objects(EXAMPLES / function) if each.data not in known]
    return Cluster(function, [*there, *new])


@pytest.mark.parametrize(("function", "check"), CASES)
def test_a_function_of_ones_own_fits(function: str, check: every.Check) -> None:
    assert list(check(cluster_with(function))) == []


def test_both_ways_to_write_a_function_make_the_same_container() -> None:
    whole, flat = (
        cluster_with(each).get("Deployment", "my-lambda", "lambda") for each in FUNCTIONS
    )
    assert whole.pod is not None
    assert flat.pod is not None

    for ours, theirs in zip(whole.pod.all_containers, flat.pod.all_containers, strict=True):
        for field in ("image", "env", "ports", "resources", "securityContext", "volumeMounts"):
            assert ours.get(field) == theirs.get(field), field


@pytest.mark.parametrize("folder", OWN_CLUSTER)
def test_an_own_cluster_has_no_port_on_its_nodes(folder: str) -> None:
    there = objects(EXAMPLES / "own-cluster" / folder)

    assert there
    assert not [str(each) for each in there if each.name.endswith("-external")]
    assert not [str(each) for each in there if each.spec.get("type") == "NodePort"]


@pytest.mark.parametrize("folder", ["server", "functions"])
def test_an_own_cluster_has_its_own_registry_and_broker(folder: str) -> None:
    there = Cluster(folder, objects(EXAMPLES / "own-cluster" / folder))

    for pod in there.pods:
        assert pod.spec["imagePullSecrets"] == [{"name": "registry"}]
        assert all(each["image"].startswith("registry.example.com/") for each in pod.all_containers)
        name = {"server": "AMQP_URI", "functions": "RAPID_AMQP_URI"}[folder]
        (uri,) = (each for each in pod.containers[0]["env"] if each["name"] == name)
        key = uri["valueFrom"]["configMapKeyRef"]["key"]
        data = there.get("ConfigMap", "broker", "lambda").data["data"]
        assert data[key] == f"{data['AMQP_URI']}?cacertfile=/etc/broker/ca.crt"
        assert {"name": "broker-ca", "mountPath": "/etc/broker", "readOnly": True} in (
            pod.containers[0]["volumeMounts"]
        )
    assert len(there.pods) == {"server": 1, "functions": 2}[folder]
