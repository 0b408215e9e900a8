"""Every manifest is as its schema says, and every broken one is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.acceptance.k8s.manifests import K8S, load, rendered
from tests.acceptance.k8s.schemas import VERSIONS, problems
from tests.support import ROOT

KUSTOMIZATIONS: Final = [
    *sorted(K8S.rglob("kustomization.yaml")),
    *sorted(ROOT.glob("examples/kubernetes/**/kustomization.yaml")),
]
#: Folders that can be applied; a component is part of them.
FOLDERS: Final = [
    each.parent for each in KUSTOMIZATIONS if "kind: Component" not in each.read_text()
]
#: Files that are applied as they are.
FILES: Final = [
    *sorted(K8S.glob("lambdas-*.yaml")),
    *sorted(K8S.glob("components/httproute/*-*.yaml")),
    *sorted(K8S.glob("components/pod-monitor/*-*.yaml")),
    *sorted(ROOT.glob("examples/*/deployment.yaml")),
]


def path_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def all_problems(objects: list[Any], version: str) -> list[str]:
    return [
        f"{each['kind']} {each['metadata']['name']}: {problem}"
        for each in objects
        for problem in problems(each, version)
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", FOLDERS, ids=path_of)
def test_a_folder_renders_to_what_kubernetes_knows(folder: Path, version: str) -> None:
    objects = [each.data for each in rendered(folder)]

    assert objects
    assert all_problems(objects, version) == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", FILES, ids=path_of)
def test_a_file_is_what_kubernetes_knows(file: Path, version: str) -> None:
    assert all_problems(load(file.read_text()), version) == []


@pytest.mark.parametrize("file", [*KUSTOMIZATIONS, K8S / "kind.yaml"], ids=path_of)
def test_a_kustomization_is_what_kustomize_knows(file: Path) -> None:
    (data,) = load(file.read_text())

    assert problems(data, VERSIONS[0]) == []


def test_a_key_that_is_there_twice_is_refused() -> None:
    with pytest.raises(yaml.constructor.ConstructorError, match="'name' is there twice"):
        load("metadata:\n  name: one\n  name: two\n")


def scaled_object(**metadata: str) -> dict[str, Any]:
    """Return a ScaledObject with one RabbitMQ trigger, right but for what is passed."""
    usual = {"protocol": "http", "queueName": "f", "mode": "QueueLength", "value": "4"}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "f"},
        "spec": {
            "scaleTargetRef": {"name": "f"},
            "triggers": [{"type": "rabbitmq", "metadata": {**usual, **metadata}}],
        },
    }


def test_a_scaled_object_that_is_right_is_taken() -> None:
    assert problems(scaled_object(), VERSIONS[0]) == []
    assert problems(scaled_object(timeout="1000", excludeUnacknowledged="true"), "1.35") == []


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        pytest.param({"value": 4}, "4 is not of type 'string'", id="a number"),
        pytest.param({"queuename": "f"}, "'queuename' was unexpected", id="misspelt"),
        pytest.param({"queueLength": "4"}, "'queueLength' was unexpected", id="deprecated"),
        pytest.param({"protocol": "auto"}, "'auto' is not one of", id="protocol"),
        pytest.param({"mode": "QueueSize"}, "'QueueSize' is not one of", id="mode"),
        pytest.param({"protocol": "amqp", "timeout": "1000"}, "timeout", id="timeout over AMQP"),
        pytest.param(
            {"protocol": "amqp", "excludeUnacknowledged": "true"},
            "excludeUnacknowledged",
            id="unacknowledged over AMQP",
        ),
        pytest.param({"protocol": "amqp", "mode": "MessageRate"}, "mode", id="rate over AMQP"),
    ],
)
def test_a_trigger_that_keda_refuses_or_ignores_is_refused(
    metadata: dict[str, str], message: str
) -> None:
    found = problems(scaled_object(**metadata), VERSIONS[0])

    assert any(message in problem for problem in found), found


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("pollInterval", 2, "'pollInterval' was unexpected"),
        ("pollingInterval", "2", "'2' is not of type 'integer'"),
        ("fallback", {"failureThreshold": 3}, "'replicas' is a required property"),
        ("advanced", {"horizontalPodAutoscalerConfig": {"behaviour": {}}}, "'behaviour' was"),
    ],
)
def test_a_field_that_keda_does_not_know_is_refused(
    field: str, value: object, message: str
) -> None:
    data = scaled_object()
    data["spec"][field] = value

    (problem,) = problems(data, VERSIONS[0])

    assert message in problem


def test_a_kind_without_a_schema_is_refused() -> None:
    data = {"apiVersion": "example.com/v1", "kind": "Wonder", "metadata": {"name": "one"}}

    assert problems(data, VERSIONS[0]) == ["no schema for Wonder of example.com/v1"]


def test_a_field_that_kubernetes_does_not_know_is_refused() -> None:
    data = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "one"},
        "spec": {"ports": [{"port": 80, "targetport": 80}]},
    }

    for version in VERSIONS:
        (problem,) = problems(data, version)
        assert "'targetport' was unexpected" in problem
