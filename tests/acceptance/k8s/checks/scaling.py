"""Autoscalers: each function has one, which watches its queues, or none at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from tests.acceptance.k8s.checks.functions import variable
from tests.acceptance.k8s.checks.table import check
from tests.acceptance.k8s.manifests import Cluster, Resource, at, load

_QUERY: Final = re.compile(r'(?:\w+\()*rabbitmq_queue_messages\{queue="([^"]+)"\}\)*')
_SCALERS: Final = ("HorizontalPodAutoscaler", "ScaledObject")
#: Where a protocol finds RabbitMQ.
_HOSTS: Final = {"amqp": "AMQP_URI", "http": "MANAGEMENT_URI"}


@check
def every_function_is_scaled_by_one_and_the_same_kind(cluster: Cluster) -> Iterator[str]:
    """Or by none, and then its Deployment says how many pods it has."""
    targets = Counter(_target(each) for each in cluster.of(*_SCALERS))
    for name, count in targets.items():
        if count > 1 or not cluster.find("Deployment", name, "lambda"):
            yield f"{name} has {count} autoscalers, or is not there"
    for function in cluster.functions:
        if ("replicas" in function.spec) == (function.name in targets):
            yield f"{function} has an autoscaler and a number of replicas, or neither"
    if len({each.kind for each in cluster.of(*_SCALERS)}) > 1:
        yield "KEDA and HorizontalPodAutoscalers are mixed"


@check
def a_scaler_watches_both_queues_of_its_function(cluster: Cluster) -> Iterator[str]:
    """For as many messages as a pod runs at once it wants a pod."""
    for scaler, function in _pairs(cluster):
        name, at_once = function.name, variable(function, "RAPID_MAX_CONCURRENCY")
        if watches(scaler) != {(name, at_once), (f"{name}.events", at_once)}:
            yield f"{scaler} watches {watches(scaler)}, for {name} with {at_once} at once"


@check
def scaling_goes_from_nothing_to_fifty_pods(cluster: Cluster) -> Iterator[str]:
    """From one, where Kubernetes scales: its HPAScaleToZero is off by default."""
    for each in cluster.of(*_SCALERS):
        fields = ("minReplicas", "maxReplicas")
        if each.kind == "ScaledObject":
            fields = ("minReplicaCount", "maxReplicaCount")
        span = [each.spec.get(field) for field in fields]
        if span != [0 if each.kind == "ScaledObject" else 1, 50]:
            yield f"{each} scales from {span[0]} to {span[1]} pods"


@check
def scaling_is_quick(cluster: Cluster) -> Iterator[str]:
    """Up at once, down within a minute: the defaults are five for Kubernetes and for KEDA."""
    for each in cluster.of(*_SCALERS):
        behavior = at(each.spec, "behavior", {})
        if each.kind == "ScaledObject":
            behavior = at(each.spec, "advanced.horizontalPodAutoscalerConfig.behavior", {})
            waits = (each.spec.get("pollingInterval", 30), each.spec.get("cooldownPeriod", 300))
            if waits[0] > 5 or waits[1] > 60:
                yield f"{each} wakes after {waits[0]} s and sleeps after {waits[1]} s"
            if at(each.spec, "fallback.replicas", 0) < 1:
                yield f"{each} has no pod while its queue cannot be counted"
        up, down = behavior.get("scaleUp", {}), behavior.get("scaleDown", {})
        windows = [side.get("stabilizationWindowSeconds") for side in (up, down)]
        if windows[0] != 0 or windows[1] is None or windows[1] > 60:
            yield f"{each} waits {windows[0]} s up and {windows[1]} s down"
        kinds = {one["type"] for side in (up, down) for one in side.get("policies", [])}
        if not up.get("policies") or kinds - {"Percent", "Pods"}:
            yield f"{each} scales by {sorted(kinds)}"


@check
def keda_asks_rabbitmq_over_both_protocols(cluster: Cluster) -> Iterator[str]:
    """Over AMQP a queue's length is that of the moment; over HTTP it is seconds old.

    Over AMQP KEDA counts what waits only: a pod at work would be scaled away.
    """
    for scaler, function in _pairs(cluster):
        triggers = [
            (one["metadata"], at(one, "authenticationRef.name", ""))
            for one in scaler.spec.get("triggers", [])
            if one["type"] == "rabbitmq"
        ]
        asked = {(one["protocol"], one["queueName"]) for one, _ in triggers}
        queues = (function.name, f"{function.name}.events")
        if triggers and asked != {(how, queue) for how in _HOSTS for queue in queues}:
            yield f"{scaler} asks for {sorted(asked)}"
        for metadata, name in triggers:
            if metadata.get("excludeUnacknowledged") == "true":
                yield f"{scaler} does not count the messages that are being worked on"
            login = cluster.find("TriggerAuthentication", name, scaler.namespace)
            given = login.spec.get("configMapTargetRef", []) if login else []
            host = {"parameter": "host", "name": "broker", "key": _HOSTS[metadata["protocol"]]}
            config = cluster.get("ConfigMap", "broker", scaler.namespace)
            is_told = host in given and host["key"] in config.data["data"]
            secrets = login.spec.get("secretTargetRef", []) if login else []
            keys = {(one["name"], one["key"]) for one in secrets if one["parameter"] == one["key"]}
            if not is_told or keys != {("broker", "username"), ("broker", "password")}:
                yield f"{scaler}: {name} does not tell it {host['key']}, user and password"


@check
def metrics_of_autoscalers_are_served(cluster: Cluster) -> Iterator[str]:
    """By prometheus-adapter: its rule's name is the metric's."""
    served = set()
    for each in cluster.of("ConfigMap"):
        for name, text in each.data.get("data", {}).items():
            if name.endswith((".yaml", ".yml")) and "externalRules" in text:
                (config,) = load(text)
                for rule in config["externalRules"]:
                    series = re.findall(r"^\w+", rule["seriesQuery"])
                    served.add(at(rule, "name.as") or series[0])
    for each in cluster.of("HorizontalPodAutoscaler"):
        for metric in each.spec["metrics"]:
            name = at(metric, "external.metric.name")
            if name is not None and name not in served:
                yield f"{each}: prometheus-adapter serves {sorted(served)} and not {name}"


@check
def one_server_has_the_external_metrics(cluster: Cluster) -> Iterator[str]:
    """KEDA and prometheus-adapter both want to be it; who scales by them needs one."""
    services = [each.name for each in cluster.of("APIService")]
    count = services.count("v1beta1.external.metrics.k8s.io")
    if count != (1 if cluster.of(*_SCALERS) else 0):
        yield f"{count} servers for external metrics"


def watches(scaler: Resource) -> set[tuple[str | None, str | None]]:
    """Return the queues that a scaler watches, and for how many messages it wants a pod."""
    if scaler.kind == "HorizontalPodAutoscaler":
        return {
            (
                at(each, "external.metric.selector.matchLabels.queue"),
                at(each, "external.target.averageValue"),
            )
            for each in scaler.spec["metrics"]
            if at(each, "external.target.type") == "AverageValue"
        }
    found = set()
    for trigger in scaler.spec["triggers"]:
        metadata = trigger["metadata"]
        query = _QUERY.fullmatch(metadata.get("query", ""))
        queue = query[1] if query else metadata.get("queueName")
        found.add((queue, metadata.get("value", metadata.get("threshold"))))
    return found


def _target(scaler: Resource) -> str:
    return str(at(scaler.spec, "scaleTargetRef.name"))


def _pairs(cluster: Cluster) -> Iterator[tuple[Resource, Resource]]:
    functions = {each.name: each for each in cluster.functions}
    for each in cluster.of(*_SCALERS):
        if _target(each) in functions:
            yield each, functions[_target(each)]
