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
@pytest.mark.parametrize("path", [*FOLDERS, *FILES], ids=path_of)
def test_a_manifest_is_what_kubernetes_knows(path: Path, version: str) -> None:
    objects = [each.data for each in rendered(path)] if path.is_dir() else load(path.read_text())

    assert objects
    assert all_problems(objects, version) == []


@pytest.mark.parametrize("file", [*KUSTOMIZATIONS, K8S / "kind.yaml"], ids=path_of)
def test_a_kustomization_is_what_kustomize_knows(file: Path) -> None:
    (data,) = load(file.read_text())

    assert problems(data, VERSIONS[0]) == []


def test_a_key_that_is_there_twice_is_refused() -> None:
    with pytest.raises(yaml.constructor.ConstructorError, match="'name' is there twice"):
        load("metadata:\n  name: one\n  name: two\n")


def scaled_object(metadata: str, spec: str = "") -> dict[str, Any]:
    """Return a ScaledObject with one RabbitMQ trigger, right but for what is passed."""
    usual = {"protocol": "http", "queueName": "f", "mode": "QueueLength", "value": "4"}
    trigger = {"type": "rabbitmq", "metadata": {**usual, **yaml.safe_load(f"{{{metadata}}}")}}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "f"},
        "spec": {
            "scaleTargetRef": {"name": "f"},
            "triggers": [trigger],
            **yaml.safe_load(f"{{{spec}}}"),
        },
    }


def plain(kind: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "one"}, "spec": spec}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(scaled_object('timeout: "1000"'), None, id="right"),
        pytest.param(scaled_object("value: 4"), "4 is not of type 'string'", id="a number"),
        pytest.param(scaled_object("queuename: f"), "'queuename' was unexpected", id="misspelt"),
        pytest.param(scaled_object("protocol: auto"), "'auto' is not one of", id="protocol"),
        pytest.param(scaled_object("mode: QueueSize"), "'QueueSize' is not one of", id="mode"),
        pytest.param(
            scaled_object('protocol: amqp, excludeUnacknowledged: "true"'),
            "excludeUnacknowledged",
            id="what KEDA ignores over AMQP",
        ),
        pytest.param(
            scaled_object("", "pollInterval: 2"), "'pollInterval' was unexpected", id="of KEDA"
        ),
        pytest.param(
            scaled_object("", "advanced: {horizontalPodAutoscalerConfig: {behaviour: {}}}"),
            "'behaviour' was",
            id="deep in KEDA's",
        ),
        pytest.param(plain("Wonder"), "no schema for Wonder of v1", id="a kind"),
        pytest.param(
            plain("Service", ports=[{"port": 80, "targetport": 80}]),
            "'targetport' was unexpected",
            id="of Kubernetes",
        ),
    ],
)
def test_what_kubernetes_or_keda_refuses_or_ignores_is_refused(
    data: dict[str, Any], message: str | None
) -> None:
    for version in VERSIONS:
        found = problems(data, version)
        assert any(message in each for each in found) if message else not found
