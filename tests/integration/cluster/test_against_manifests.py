"""What the script names is in ``k8s/``, and only one function of it makes kubectl commands."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from devtools.kind_cluster import components, credentials, manifests, names, preflight
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


@pytest.fixture(params=COMPONENTS, ids=lambda component: component.directory)
def component(request: pytest.FixtureRequest) -> Component:
    component: Component = request.param
    return component


def test_a_directory_is_there(component: Component) -> None:
    assert documents(ROOT / component.directory)


def test_what_is_waited_for_is_in_the_directory(component: Component) -> None:
    wanted = {f"{component.namespace} {workload}" for workload in component.workloads}

    assert wanted <= references(component)


def test_every_workload_of_the_directory_is_waited_for(component: Component) -> None:
    workloads = {each.partition(" ")[2] for each in references(component)
                 if each.partition(" ")[2].startswith(("deployment/", "statefulset/"))}  # fmt: skip

    assert workloads == set(component.workloads)


def test_conditions_are_of_what_is_in_the_directory(component: Component) -> None:
    crd = "customresourcedefinition/"
    there = {each.partition(" ")[2].replace(crd, "crd/") for each in references(component)}

    assert {resource for _, resource in component.conditions} <= there


def test_the_namespaces_are_those_that_are_made() -> None:
    made = {each["metadata"]["name"] for each in documents(ROOT / "k8s" / "namespaces")}

    assert made == set(names.NAMESPACES)
    assert {namespace for namespace, _ in (credentials.RABBITMQ, credentials.BROKER)} <= made


def test_every_overlay_can_be_chosen() -> None:
    overlays = {path.name for path in (ROOT / "k8s" / "overlays").iterdir()}

    assert overlays == {str(scaling) for scaling in names.Scaling}


def test_keda_and_adapter_are_alternatives_since_they_serve_the_same() -> None:
    apis = [{each for each in references(component) if "apiservice/" in each}
            for component in (components.KEDA, components.ADAPTER)]  # fmt: skip

    assert apis[0] & apis[1]


def test_the_secrets_have_the_keys_that_are_asked_for() -> None:
    made = credentials.Credentials.masked().secrets
    for component, name in (
        (components.RABBITMQ, credentials.RABBITMQ),
        (components.LAMBDA_SERVER, credentials.BROKER),
        (components.OVERLAYS[names.Scaling.KEDA], credentials.BROKER),
    ):
        for document in documents(ROOT / component.directory):
            for reference in mappings_under(document, "secretKeyRef"):
                assert reference["name"] == name[1]
                assert reference["key"] in made[name]


def mappings_under(value: Any, key: str) -> Iterator[Any]:
    if isinstance(value, dict):
        if key in value:
            yield value[key]
        value = list(value.values())
    if isinstance(value, list):
        yield from itertools.chain.from_iterable(mappings_under(each, key) for each in value)


def test_ports_of_kind_are_those_that_are_named(manifests: Manifests) -> None:
    assert manifests.host_ports == {
        30000: 30000,
        30500: 5000,
        30080: 8080,
        30672: 5672,
        31672: 15672,
        31692: 15692,
        30090: 9090,
    }
    assert manifests.url(node_ports()["SERVER_PORT"]) == "http://127.0.0.1:8080"
    assert set(node_ports().values()) == set(manifests.host_ports)


def node_ports() -> dict[str, int]:
    return {name: port for name, port in vars(manifests).items() if name.endswith("_PORT")}


def test_nodes_are_called_as_kind_calls_them(manifests: Manifests) -> None:
    """Source: kind 0.32, pkg/cluster/internal/providers/common, MakeNodeNamer."""
    workers = ("lambda-worker", "lambda-worker2", "lambda-worker3", "lambda-worker4")

    assert manifests.nodes == ("lambda-control-plane", *workers)


def test_kubectl_may_be_one_minor_version_older_than_the_cluster(manifests: Manifests) -> None:
    """Source: Kubernetes, Version Skew Policy."""
    version = manifests.images[NODE_IMAGE].partition(":v")[2]

    assert int(version.split(".")[1]) - preflight.KUBECTL[1] == 1


def test_images_are_those_of_the_registry(manifests: Manifests) -> None:
    for name in names.IMAGES:
        assert manifests.images[name].startswith(f"localhost:5000/{name}:")


@pytest.mark.parametrize("tool", ["kubectl", "kind"])
def test_one_function_makes_the_commands(tool: str) -> None:
    """So that no command can forget to name the cluster; ``kind --version`` is of none."""
    found = [
        f"{path.name}: {ast.unparse(node)}"
        for path in sorted((ROOT / "devtools" / "kind_cluster").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Tuple | ast.List)
        and node.elts
        and ast.unparse(node.elts[0]) == repr(tool)
    ]

    assert [each for each in found if "--version" not in each and not is_name_list(each)] == [
        f"names.py: {command}"
        for command in (
            ["('kubectl', '--context', CONTEXT, *where, *arguments)"]
            if tool == "kubectl"
            else ["('kind', *arguments, '--name', CLUSTER)"]
        )
    ]


def is_name_list(found: str) -> bool:
    return "'docker'" in found
