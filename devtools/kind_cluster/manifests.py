"""What the script reads from ``k8s/``: ports, nodes and versions, so that they stand there once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import yaml

from devtools.kind_cluster.names import CLUSTER
from devtools.ports import LOOPBACK

KIND_CONFIG: Final = "k8s/kind.yaml"
NODE_IMAGE: Final = "kindest/node"

#: Which service is behind each port of the node.
DASHBOARD_PORT, REGISTRY_PORT, SERVER_PORT = 30000, 30500, 30080
AMQP_PORT, MANAGEMENT_PORT, METRICS_PORT, PROMETHEUS_PORT = 30672, 31672, 31692, 30090


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifests:
    """The kind configuration and the table of versions."""

    host_ports: dict[int, int]  #: port of the node -> port of this machine
    nodes: tuple[str, ...]  #: as kind will call them
    images: dict[str, str]  #: name in the manifests -> name and version to pull

    @classmethod
    def read(cls, checkout: Path) -> Self:
        """Read them from a checkout."""
        nodes = _load(checkout / KIND_CONFIG)["nodes"]
        mappings = [each for node in nodes for each in node.get("extraPortMappings", [])]
        images = _load(checkout / "k8s" / "versions" / "kustomization.yaml")["images"]
        return cls(
            host_ports={each["containerPort"]: each["hostPort"] for each in mappings},
            nodes=_node_names([node["role"] for node in nodes]),
            images={image["name"]: _reference(image) for image in images},
        )

    def url(self, node_port: int, scheme: str = "http") -> str:
        """Return where this machine reaches what is behind ``node_port``."""
        return f"{scheme}://{LOOPBACK}:{self.host_ports[node_port]}"


def _load(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def _reference(image: dict[str, str]) -> str:
    name = image.get("newName", image["name"])
    digest = f"@{image['digest']}" if "digest" in image else ""
    return f"{name}:{image['newTag']}{digest}"


def _node_names(roles: list[str]) -> tuple[str, ...]:
    """Return what kind calls nodes: lambda-worker, lambda-worker2 and so on."""
    names = []
    for index, role in enumerate(roles):
        earlier = roles[:index].count(role)
        names.append(f"{CLUSTER}-{role}{earlier + 1 if earlier else ''}")
    return tuple(names)
