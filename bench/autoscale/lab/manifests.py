"""Our manifests as the lab applies them: rendered from k8s/, with addresses of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from bench.autoscale.lab.control_plane import ControlPlane
from bench.autoscale.lab.kube import Object
from devtools.ports import LOOPBACK

_CHECKOUT = Path(__file__).parents[3]

#: The function that is measured; its code is the lab's sleeper.
FUNCTION = "echo-lambda"
EVENTS = f"{FUNCTION}.events"


class Trigger(NamedTuple):
    """Which queue KEDA counts, and how it asks."""

    protocol: str
    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a measurement changes of the manifests; None leaves what they say."""

    max_concurrency: int | None = None
    timeout_s: int | None = None  #: the function's; the grace period follows, 10 s longer
    triggers: Sequence[Trigger] | None = None  #: those and no others
    cooldown_s: int | None = None


def render(plane: ControlPlane, folder: str) -> list[Object]:
    """Return the documents of a kustomization of this checkout."""
    text = plane.user("admin").run("kustomize", str(_CHECKOUT / folder))
    return [document for document in yaml.safe_load_all(text) if document is not None]


def function_documents(
    documents: Iterable[Object], *, amqp_port: int, management_port: int, settings: Settings
) -> list[Object]:
    """Return what belongs to the measured function, with the broker's addresses and settings."""
    changed = []
    for document in documents:
        kind, name = document["kind"], document["metadata"]["name"]
        if kind in ("Deployment", "ScaledObject", "HorizontalPodAutoscaler") and name != FUNCTION:
            continue
        if kind == "ConfigMap" and name == "broker":
            document["data"]["AMQP_URI"] = f"amqp://{LOOPBACK}:{amqp_port}"
            document["data"]["MANAGEMENT_URI"] = f"http://{LOOPBACK}:{management_port}"
        if kind == "Deployment":
            _set_environ(document["spec"]["template"]["spec"], settings)
        if kind == "ScaledObject":
            _set_triggers(document["spec"], settings)
        changed.append(document)
    changed.append(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "broker", "namespace": "lambda"},
            "stringData": {"username": "guest", "password": "guest"},
        }
    )
    return changed


def _set_environ(pod: Object, settings: Settings) -> None:
    (container,) = pod["containers"]
    wanted = {
        "RAPID_MAX_CONCURRENCY": settings.max_concurrency,
        "AWS_LAMBDA_FUNCTION_TIMEOUT": settings.timeout_s,
    }
    for entry in container["env"]:
        value = wanted.get(entry["name"])
        if value is not None:
            entry["value"] = str(value)
    if settings.timeout_s is not None:
        pod["terminationGracePeriodSeconds"] = settings.timeout_s + 10


def _set_triggers(spec: Object, settings: Settings) -> None:
    if settings.triggers is not None:
        by_protocol = {trigger["metadata"]["protocol"]: trigger for trigger in spec["triggers"]}
        spec["triggers"] = [
            {
                **by_protocol[protocol],
                "metadata": {**by_protocol[protocol]["metadata"], "queueName": queue},
            }
            for protocol, queue in settings.triggers
        ]
    if settings.max_concurrency is not None:
        for trigger in spec["triggers"]:
            trigger["metadata"]["value"] = str(settings.max_concurrency)
    if settings.cooldown_s is not None:
        spec["cooldownPeriod"] = settings.cooldown_s
