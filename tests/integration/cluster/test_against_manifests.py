"""What the script names is in ``k8s/``."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from devtools.kind_cluster import components, credentials, names, preflight
from devtools.kind_cluster import manifests as manifests_module
from devtools.kind_cluster.components import Component
from devtools.kind_cluster.manifests import NODE_IMAGE, Manifests
from tests.support import ROOT

COMPONENTS = [
    components.NAMESPACES,
    components.REGISTRY,
    components.RABBITMQ,
    components.RABBITMQ_CLUSTER,
    components.METRICS_SERVER,
    components.PROMETHEUS,
    components.ADAPTER,
    components.KEDA,
    components.LAMBDA_SERVER,
    *components.DASHBOARDS.values(),
    *components.OVERLAYS.values(),
]


@cache
def documents(folder: Path) -> list[dict[str, Any]]:
    """Return what a kustomization is made of, patches aside, each with its namespace."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    found = []
    for name in kustomization.get("resources", []):
        path = (folder / name).resolve()
        loaded = documents(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
        found += [each for each in loaded if each]
    for each in found:
        if "namespace" in kustomization:
            each["metadata"].setdefault("namespace", kustomization["namespace"])
    return found


def references(component: Component) -> set[str]:
    """Return namespace, kind and name of all that a component has."""
    return {
        f"{each['metadata'].get('namespace', '')} {each['kind'].lower()}/{each['metadata']['name']}"
        for each in documents(ROOT / component.directory)
    }


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda component: component.directory)
def test_all_workloads_of_a_directory_are_waited_for_and_conditions_are_of_what_is_there(
    component: Component,
) -> None:
    there = references(component)
    names = {each.partition(" ")[2].replace("customresourcedefinition/", "crd/") for each in there}

    assert there
    assert {f"{component.namespace} {workload}" for workload in component.workloads} <= there
    workloads = {each for each in names if each.startswith(("deployment/", "statefulset/"))}
    assert workloads == set(component.workloads)
    assert {resource for _, resource in component.conditions} <= names


def test_namespaces_and_overlays_are_those_that_are_there() -> None:
    made = {each["metadata"]["name"] for each in documents(ROOT / "k8s" / "namespaces")}
    overlays = {path.name for path in (ROOT / "k8s" / "overlays").iterdir()}

    assert made == set(names.NAMESPACES)
    assert {namespace for namespace, _ in (credentials.RABBITMQ, credentials.BROKER)} <= made
    assert overlays == {str(scaling) for scaling in names.Scaling}


def test_ports_of_kind_are_those_that_are_named(manifests: Manifests) -> None:
    named = {port for name, port in vars(manifests_module).items() if name.endswith("_PORT")}

    assert named == set(manifests.host_ports)
    assert manifests.url(manifests_module.SERVER_PORT) == "http://127.0.0.1:8080"


def test_nodes_are_called_as_kind_calls_them(manifests: Manifests) -> None:
    """Source: kind 0.32, pkg/cluster/internal/providers/common, MakeNodeNamer."""
    workers = ("lambda-worker", "lambda-worker2", "lambda-worker3", "lambda-worker4")

    assert manifests.nodes == ("lambda-control-plane", *workers)


def test_kubectl_may_be_one_minor_version_older_than_the_cluster(manifests: Manifests) -> None:
    """Source: Kubernetes, Version Skew Policy."""
    version = manifests.images[NODE_IMAGE].partition(":v")[2]

    assert int(version.split(".")[1]) - preflight.KUBECTL[1] == 1
