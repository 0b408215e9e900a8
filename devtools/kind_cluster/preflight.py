"""What must be there before anything is started: tools, the docker daemon, ports, images."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from devtools.commands import CommandError
from devtools.kind_cluster import found
from devtools.kind_cluster.answers import ask, read
from devtools.kind_cluster.manifests import Manifests
from devtools.kind_cluster.names import IMAGES, kubectl
from devtools.kind_cluster.plan import local_image
from devtools.ports import is_taken, listener

#: Versions that will do. kubectl may be one minor version away from the cluster.
KIND: Final = (0, 32)
KUBECTL: Final = (1, 35)
DOCKER: Final = (24, 0)


def problems(manifests: Manifests) -> list[str]:
    """Return a line for each thing that is missing, and what to do about it."""
    daemon = _docker()
    return [*_kind(), *_kubectl(), *daemon, *([] if daemon else _behind_docker(manifests))]


def _behind_docker(manifests: Manifests) -> Iterator[str]:
    """Yield what can only be known when docker answers."""
    try:
        has_cluster = bool(found.nodes())
    except CommandError:  # kind is missing, which is said already
        has_cluster = False
    if not has_cluster:  # which would hold the ports itself
        yield from _ports(manifests)
    yield from unbuilt_images(manifests)


def _kind() -> Iterator[str]:
    try:
        version = read(("kind", "--version"))
    except CommandError as error:
        yield f"{error}. Install kind {_text(KIND)} or newer: https://kind.sigs.k8s.io"
    else:
        yield from _older("kind", version, KIND)


def _kubectl() -> Iterator[str]:
    try:
        answer = json.loads(read(kubectl("version", "--client", "-o", "json")))
    except (CommandError, ValueError) as error:
        yield f"{error}. Install kubectl {_text(KUBECTL)} or newer: https://kubernetes.io/docs/tasks/tools"
    else:
        yield from _older("kubectl", answer["clientVersion"]["gitVersion"], KUBECTL)


def _docker() -> list[str]:
    try:
        answer = ask(("docker", "version", "--format", "{{json .}}"))
    except CommandError as error:
        return [f"{error}. Install docker {_text(DOCKER)} or newer: https://docs.docker.com"]
    try:
        versions: dict[str, Any] = json.loads(answer.out)
    except ValueError:
        versions = {}
    if answer.status != 0 or not versions.get("Server"):
        said = answer.error.strip().splitlines()[-1:] or ["it does not say why"]
        return [f"The docker daemon does not answer: {said[0]}"]
    return list(_older("docker", versions["Server"]["Version"], DOCKER))


def _ports(manifests: Manifests) -> Iterator[str]:
    for port in sorted(manifests.host_ports.values()):
        if is_taken(port):
            yield (
                f"Port {port} is taken by {listener(port)}; the cluster needs it. "
                "Stop that program, or change hostPort in k8s/kind.yaml"
            )


def unbuilt_images(manifests: Manifests) -> Iterator[str]:
    """Yield a line if images of ours are not there."""
    try:
        built = read(("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}")).split()
    except CommandError as error:
        yield str(error)
        return
    missing = [image for image in (local_image(name, manifests) for name in IMAGES)
               if image not in built]  # fmt: skip
    if missing:
        yield f"Images are not built: {', '.join(missing)}. Build them with: make docker"


def _older(tool: str, version: str, wanted: tuple[int, int]) -> Iterator[str]:
    match = re.search(r"(\d+)\.(\d+)[.\d]*", version)
    if match is None:
        yield f"{tool} says {version.strip()!r} of its version; expected {_text(wanted)} or newer"
    elif (int(match[1]), int(match[2])) < wanted:
        yield f"{tool} is {match[0]}; expected {_text(wanted)} or newer"


def _text(version: tuple[int, int]) -> str:
    return ".".join(str(part) for part in version)
