"""What is wrong in the cluster: pods that are not ready, their last events, how they crashed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from devtools.commands import CommandError
from devtools.kind_cluster.answers import ask, read
from devtools.kind_cluster.names import NAMESPACES, SYSTEM, kubectl

_PODS: Final = 8  #: told about at most
_EVENTS: Final = 3
_LOG_LINES: Final = 8


def diagnosis() -> list[str]:
    """Return lines about each pod of ours that is not ready; none if there is no such pod."""
    try:
        answer = json.loads(read(kubectl("get", "pods", "-A", "-o", "json")))
    except CommandError as error:
        return [f"The cluster does not tell more: {error}"]
    pods = [pod for pod in answer["items"] if _is_ours(pod) and not _is_ready(pod)]
    lines = [line for pod in pods[:_PODS] for line in _about(pod)]
    if len(pods) > _PODS:
        lines.append(f"... and {len(pods) - _PODS} more pods that are not ready")
    return lines


def _about(pod: Any) -> Iterator[str]:
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    status = pod.get("status", {})
    containers = [
        *status.get("initContainerStatuses", []),
        *status.get("containerStatuses", []),
    ]
    yield f"Pod {namespace}/{name} is not ready: {_reason(status, containers)}"
    yield from (f"    event: {event}" for event in _events(namespace, name))
    for container in containers:
        if _has_crashed(container):
            log = _log(namespace, name, container["name"])
            yield f"    the end of the log of its container {container['name']}:"
            yield from (f"      {line}" for line in log)


def _reason(status: Any, containers: list[Any]) -> str:
    for container in containers:
        for state in container.get("state", {}).values():
            if state.get("reason") not in (None, "Completed", "PodInitializing"):
                message = f", {state['message']}" if state.get("message") else ""
                return f"{container['name']}: {state['reason']}{message}"
    for condition in status.get("conditions", []):
        if condition["status"] == "False" and condition.get("message"):
            return str(condition["message"])
    return str(status.get("phase", "unknown"))


def _events(namespace: str, name: str) -> list[str]:
    selector = f"--field-selector=involvedObject.name={name}"
    command = kubectl("get", "events", selector, "-o", "json", namespace=namespace)
    try:
        items = json.loads(read(command))["items"]
    except CommandError as error:
        return [str(error)]
    items.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
    return [f"{each.get('reason')}: {each.get('message')}" for each in items[-_EVENTS:]]


def _log(namespace: str, name: str, container: str) -> list[str]:
    """Return the end of the log of the run that crashed, or of the one that goes on."""
    command = kubectl(
        "logs", name, f"--container={container}", f"--tail={_LOG_LINES}", namespace=namespace
    )
    try:
        for each in ((*command, "--previous"), command):
            answer = ask(each)
            if answer.status == 0 and answer.out.strip():
                return answer.out.strip().splitlines()
    except CommandError as error:
        return [str(error)]
    return ["(empty)"]


def _has_crashed(container: Any) -> bool:
    ended = container.get("state", {}).get("terminated") or {}
    return bool(container.get("restartCount") or ended.get("exitCode"))


def _is_ready(pod: Any) -> bool:
    status = pod.get("status", {})
    conditions = {each["type"]: each["status"] for each in status.get("conditions", [])}
    return status.get("phase") == "Succeeded" or conditions.get("Ready") == "True"


def _is_ours(pod: Any) -> bool:
    return pod["metadata"]["namespace"] in (*NAMESPACES, SYSTEM)
