"""RabbitMQ's configuration: settings that it knows, and none that RabbitMQ 4.3 refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from tests.acceptance.k8s.manifests import Cluster, everything_at

#: Settings that we may use. Source: rabbitmq.conf.example of 4.3, and the guides of each plugin.
_KNOWN: Final = {
    "cluster_formation.peer_discovery_backend",
    "cluster_name",
    "collect_statistics_interval",
    "consumer_timeout",
    "default_queue_type",
    "disk_free_limit.absolute",
    "disk_free_limit.relative",
    "heartbeat",
    "listeners.tcp.default",
    "log.console",
    "log.console.level",
    "log.file",
    "management.tcp.port",
    "prometheus.tcp.port",
    "vm_memory_high_watermark.relative",
}
#: What upstream and old guides have, and why it is not to come back.
_REFUSED: Final = {
    "cluster_partition_handling": "4.3 ignores it",
    "loopback_users.guest": "the account guest would be open to everybody",
    "management.load_definitions": "passwords would be in a ConfigMap",
    "prometheus.return_per_object_metrics": "/metrics/detailed does it for one scrape only",
    "queue_master_locator": "4.3 refuses it",
}
_PLUGINS: Final = {
    "rabbitmq_management",
    "rabbitmq_peer_discovery_k8s",
    "rabbitmq_prometheus",
}


def settings_are_known(cluster: Cluster) -> Iterator[str]:
    for where, line in _lines(cluster):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not value:
            yield f"{where}: {line!r} is no setting"
        elif name in _REFUSED:
            yield f"{where}: {name}: {_REFUSED[name]}"
        elif name not in _KNOWN:
            yield f"{where}: {name} is not on the list of settings"


def memory_has_a_limit(cluster: Cluster) -> Iterator[str]:
    """Where RabbitMQ holds publishers back, before Kubernetes kills it."""
    names = {line.partition("=")[0].strip() for _, line in _lines(cluster)}
    if "vm_memory_high_watermark.relative" not in names:
        yield "nothing holds publishers back before the container's memory is full"


def plugins_are_known(cluster: Cluster) -> Iterator[str]:
    for config in cluster.of("ConfigMap"):
        text = config.data.get("data", {}).get("enabled_plugins")
        if text is None:
            continue
        found = re.fullmatch(r"\[([\w,\s]+)\]\.\s*", text)
        plugins = {name.strip() for name in found[1].split(",")} if found else set()
        missing = {"rabbitmq_management", "rabbitmq_prometheus"} - plugins
        if missing or plugins - _PLUGINS:
            yield f"{config}: plugins {text.strip()}"


def the_account_is_of_the_secret(cluster: Cluster) -> Iterator[str]:
    """And of no other: without them RabbitMQ makes guest, whose password everybody knows."""
    broker = cluster.get("StatefulSet", "rabbitmq", "messaging")
    (container,) = broker.pod.containers if broker.pod else [{}]
    for name, key in (("RABBITMQ_DEFAULT_USER", "username"), ("RABBITMQ_DEFAULT_PASS", "password")):
        found = [one.get("valueFrom") for one in container.get("env", []) if one["name"] == name]
        if found != [{"secretKeyRef": {"name": "rabbitmq", "key": key}}]:
            yield f"{broker}: {name} comes from {found}"


def data_outlives_a_pod(cluster: Cluster) -> Iterator[str]:
    broker = cluster.get("StatefulSet", "rabbitmq", "messaging")
    claims = {one["metadata"]["name"] for one in broker.spec.get("volumeClaimTemplates", [])}
    mounts = [one for some in everything_at(broker.data, "volumeMounts") for one in some]
    kept = {one["mountPath"] for one in mounts if one["name"] in claims}
    if kept != {"/var/lib/rabbitmq"}:
        yield f"{broker} keeps {sorted(kept)}"


def _lines(cluster: Cluster) -> Iterator[tuple[str, str]]:
    for config in cluster.of("ConfigMap"):
        for name, text in config.data.get("data", {}).items():
            if config.namespace == "messaging" and name.endswith(".conf"):
                for line in text.splitlines():
                    if line.strip() and not line.lstrip().startswith("#"):
                        yield f"{config}: {name}", line


CHECKS: Final = (
    settings_are_known,
    memory_has_a_limit,
    plugins_are_known,
    the_account_is_of_the_secret,
    data_outlives_a_pod,
)
