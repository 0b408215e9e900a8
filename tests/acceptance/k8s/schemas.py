"""Whether an object is as its schema says: Kubernetes', a CRD's of ours to install, or our own.

A field that no schema knows is an error: Kubernetes would drop it and do something else than meant.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate

from tests.acceptance.k8s.manifests import K8S, at, load

#: The Kubernetes versions that manifests are for: those that KEDA is tested with, and what follows.
VERSIONS: Final = ("1.35", "1.36", "1.37")
_SCHEMAS: Final = Path(__file__).parent / "schemas"
#: Kinds that Kubernetes' own schemas have not, by API group and kind.
_OWN: Final = {
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): "http-route",
    ("kind.x-k8s.io/v1alpha4", "Cluster"): "kind-cluster",
    ("kustomize.config.k8s.io/v1alpha1", "Component"): "kustomization",
    ("kustomize.config.k8s.io/v1beta1", "Kustomization"): "kustomization",
    ("monitoring.coreos.com/v1", "PodMonitor"): "pod-monitor",
}


def problems(data: Any, version: str) -> list[str]:
    """Return what is wrong with one object for a version of Kubernetes."""
    api, kind = data["apiVersion"], data["kind"]
    if (api, kind) in _OWN:
        return list(_errors(data, own_schema(_OWN[api, kind])))
    if (api, kind) in custom_schemas():
        return [*_errors(data, custom_schemas()[api, kind]), *_trigger_problems(data)]
    try:
        kubernetes_validate.validate(data, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return [f"no schema for {kind} of {api}"]
    except kubernetes_validate.ValidationError as error:
        return [_sentence(error)]
    return []


@functools.cache
def own_schema(name: str) -> Any:
    """Return a schema of the folder ``schemas``."""
    (schema,) = load((_SCHEMAS / f"{name}.yaml").read_text())
    return schema


@functools.cache
def custom_schemas() -> dict[tuple[str, str], Any]:
    """Return the schemas of KEDA's kinds, from the CRDs that are installed, made strict."""
    schemas = {}
    for each in load((K8S / "keda" / "keda.yaml").read_text()):
        if each["kind"] == "CustomResourceDefinition":
            for version in each["spec"]["versions"]:
                api = f"{each['spec']['group']}/{version['name']}"
                schema = _strict(version["schema"]["openAPIV3Schema"])
                schemas[api, each["spec"]["names"]["kind"]] = schema
    return schemas


def _trigger_problems(data: Any) -> Iterator[str]:
    triggers = own_schema("triggers")
    for index, trigger in enumerate(at(data, "spec.triggers", [])):
        kind = trigger.get("type")
        if kind not in triggers:
            yield f"spec.triggers.{index}.type: no schema for {kind}"
            continue
        schema = {**triggers[kind], "$defs": triggers["$defs"]}
        for error in _errors(trigger.get("metadata", {}), schema):
            yield f"spec.triggers.{index}.metadata.{error}"


def _strict(schema: Any) -> Any:
    """Return a CRD's schema that knows no field but those that it names."""
    strict = dict(schema)
    if "properties" in schema:
        strict["properties"] = {key: _strict(one) for key, one in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            strict.setdefault("additionalProperties", False)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            strict[name] = _strict(schema[name])
    return strict


def _errors(data: Any, schema: Any) -> Iterator[str]:
    for error in jsonschema.Draft202012Validator(schema).iter_errors(data):
        yield _sentence(error)


def _sentence(error: Any) -> str:
    where = ".".join(str(step) for step in error.path)
    return f"{where}: {error.message}"
