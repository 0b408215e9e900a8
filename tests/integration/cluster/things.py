"""Things that a cluster may hold, as Kubernetes answers them."""

from __future__ import annotations

import base64
import json
from typing import Any


def items(*values: Any) -> str:
    return json.dumps({"items": list(values)})


def workload(
    namespace: str,
    name: str,
    *,
    kind: str = "Deployment",
    wanted: int = 1,
    ready: int | None = None,
    image: str = "any:1",
    volumes: list[Any] | None = None,
) -> dict[str, Any]:
    pod = {"containers": [{"name": "one", "image": image}], "volumes": volumes or []}
    return {
        "kind": kind,
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"replicas": wanted, "template": {"spec": pod}},
        "status": {"readyReplicas": wanted if ready is None else ready},
    }


def scaled_object(
    name: str, target: str, *, namespace: str = "lambda", trigger: str = "rabbitmq"
) -> dict[str, Any]:
    return {
        "kind": "ScaledObject",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"scaleTargetRef": {"name": target}, "triggers": [{"type": trigger}]},
    }


def hpa(
    name: str, target: str, *, namespace: str = "lambda", owner: str | None = None
) -> dict[str, Any]:
    labels = {"scaledobject.keda.sh/name": owner} if owner else {}
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}
    return {
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"scaleTargetRef": reference},
    }


def secret(**values: str) -> str:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return json.dumps({"kind": "Secret", "data": data})
