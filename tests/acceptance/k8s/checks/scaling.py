"""Autoscalers: each function has one, which watches its queues, or none at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tests.acceptance.k8s.checks.functions import variable
from tests.acceptance.k8s.manifests import Cluster, Resource, at, load

_QUERY: Final = re.compile(r'(?:\w+\()*rabbitmq_queue_messages\{queue="([^"]+)"\}\)*')
_SCALERS: Final = ("HorizontalPodAutoscaler", "ScaledObject")


@dataclass(frozen=True)
class Watch:
    """A queue that a scaler watches, and for how many messages it wants a pod."""

    queue: str | None
    per_pod: str | None


def scale_targets_are_there(cluster: Cluster) -> Iterator[str]:
    for each in cluster.of(*_SCALERS):
        kind = at(each.spec, "scaleTargetRef.kind", "Deployment")
        if not cluster.find(kind, _target(each), each.namespace):
            yield f"{each} scales {_target(each)}, which is not there"


def nothing_has_two_autoscalers(cluster: Cluster) -> Iterator[str]:
    targets = Counter((each.namespace, _target(each)) for each in cluster.of(*_SCALERS))
    for (namespace, name), count in targets.items():
        if count > 1:
            yield f"{name} in {namespace} has {count} autoscalers"
        target = cluster.find("Deployment", name, namespace)
        if target is not None and "replicas" in target.spec:
            yield f"{target} says how many replicas it has, which is its autoscaler's to say"


def every_function_is_scaled_the_same_way(cluster: Cluster) -> Iterator[str]:
    scaled = {_target(each) for each in cluster.of(*_SCALERS)}
    for function in cluster.functions:
        is_fixed = function.spec.get("replicas") == 1
        if is_fixed == (function.name in scaled):
            yield f"{function} has no autoscaler and no number of replicas"
    if len({each.kind for each in cluster.of(*_SCALERS)}) > 1:
        yield "KEDA and HorizontalPodAutoscalers are mixed"


def scalers_watch_both_queues_of_their_function(cluster: Cluster) -> Iterator[str]:
    for scaler, function in _pairs(cluster):
        name = variable(function, "AWS_LAMBDA_FUNCTION_NAME")
        watched = {watch.queue for watch in watches(scaler)}
        if watched != {name, f"{name}.events"}:
            yield f"{scaler} watches {sorted(map(str, watched))} for {name}"


def a_pod_is_wanted_for_as_much_as_it_runs_at_once(cluster: Cluster) -> Iterator[str]:
    for scaler, function in _pairs(cluster):
        concurrency = variable(function, "RAPID_MAX_CONCURRENCY")
        for watch in watches(scaler):
            if watch.per_pod != concurrency:
                yield f"{scaler}: a pod for {watch.per_pod}, it runs {concurrency} at once"


def scaling_goes_from_nothing_to_fifty_pods(cluster: Cluster) -> Iterator[str]:
    """From one, where Kubernetes scales: its HPAScaleToZero is off by default."""
    for each in cluster.of(*_SCALERS):
        fields = ("minReplicas", "maxReplicas")
        if each.kind == "ScaledObject":
            fields = ("minReplicaCount", "maxReplicaCount")
        span = [each.spec.get(field) for field in fields]
        if span != [0 if each.kind == "ScaledObject" else 1, 50]:
            yield f"{each} scales from {span[0]} to {span[1]} pods"


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


def calls_and_events_wake_a_function_at_once(cluster: Cluster) -> Iterator[str]:
    """Over AMQP a queue's length is that of the moment; over HTTP it is seconds old."""
    for scaler, function in _pairs(cluster):
        triggers = scaler.spec.get("triggers", [])
        asked = {
            at(one, "metadata.queueName")
            for one in triggers
            if at(one, "metadata.protocol") == "amqp"
        }
        wanted = {function.name, f"{function.name}.events"}
        if any(one["type"] == "rabbitmq" for one in triggers) and asked != wanted:
            yield f"{scaler} asks for {sorted(asked)} over AMQP"


def work_in_hand_counts(cluster: Cluster) -> Iterator[str]:
    """KEDA over AMQP counts what waits only: a pod at work would be scaled away."""
    for each in cluster.of("ScaledObject"):
        counted = {
            at(trigger, "metadata.queueName")
            for trigger in each.spec["triggers"]
            if trigger["type"] == "rabbitmq"
            and at(trigger, "metadata.protocol") == "http"
            and at(trigger, "metadata.excludeUnacknowledged") != "true"
        }
        of_rabbitmq = [one for one in each.spec["triggers"] if one["type"] == "rabbitmq"]
        for queue in {at(one, "metadata.queueName") for one in of_rabbitmq} - counted:
            yield f"{each} does not count the messages of {queue} that are being worked on"


def authentications_are_there(cluster: Cluster) -> Iterator[str]:
    for each in cluster.of("ScaledObject"):
        for trigger in each.spec["triggers"]:
            name = at(trigger, "authenticationRef.name")
            if trigger["type"] == "rabbitmq":
                found = cluster.find("TriggerAuthentication", str(name), each.namespace)
                wanted = {"amqp": "AMQP_URI", "http": "MANAGEMENT_URI"}
                key = wanted.get(at(trigger, "metadata.protocol"))
                given = found.spec.get("configMapTargetRef", []) if found else []
                if key not in [one["key"] for one in given if one["parameter"] == "host"]:
                    yield f"{each}: {name} does not tell it {key}"


def metrics_of_autoscalers_are_served(cluster: Cluster) -> Iterator[str]:
    """By prometheus-adapter: its rule's name is the metric's."""
    served = set()
    for each in cluster.of("ConfigMap"):
        for name, text in each.data.get("data", {}).items():
            if name.endswith((".yaml", ".yml")) and "externalRules" in text:
                (config,) = load(text)
                served |= {_metric_of(rule) for rule in config["externalRules"]}
    for each in cluster.of("HorizontalPodAutoscaler"):
        for metric in each.spec["metrics"]:
            name = at(metric, "external.metric.name")
            if name is not None and name not in served:
                yield f"{each}: prometheus-adapter serves {sorted(map(str, served))} and not {name}"


def one_server_has_the_external_metrics(cluster: Cluster) -> Iterator[str]:
    """KEDA and prometheus-adapter both want to be it; who scales by them needs one."""
    services = [each.name for each in cluster.of("APIService")]
    count = services.count("v1beta1.external.metrics.k8s.io")
    if count != (1 if cluster.of(*_SCALERS) else 0):
        yield f"{count} servers for external metrics"


def watches(scaler: Resource) -> list[Watch]:
    """Return what a scaler watches."""
    if scaler.kind == "HorizontalPodAutoscaler":
        metrics = [
            each["external"]
            for each in scaler.spec["metrics"]
            if each["type"] == "External" and at(each, "external.target.type") == "AverageValue"
        ]
        return [
            Watch(at(each, "metric.selector.matchLabels.queue"), at(each, "target.averageValue"))
            for each in metrics
        ]
    return [_watch(trigger["type"], trigger["metadata"]) for trigger in scaler.spec["triggers"]]


def _watch(kind: str, metadata: dict[str, str]) -> Watch:
    if kind == "prometheus":
        found = _QUERY.fullmatch(metadata["query"])
        return Watch(found[1] if found else None, metadata.get("threshold"))
    return Watch(metadata.get("queueName"), metadata.get("value"))


def _target(scaler: Resource) -> str:
    return str(at(scaler.spec, "scaleTargetRef.name"))


def _pairs(cluster: Cluster) -> Iterator[tuple[Resource, Resource]]:
    functions = {each.name: each for each in cluster.functions}
    for each in cluster.of(*_SCALERS):
        if _target(each) in functions:
            yield each, functions[_target(each)]


def _metric_of(rule: Any) -> str | None:
    """Return the name under which a rule of prometheus-adapter serves its series."""
    series = re.match(r"\w+", rule["seriesQuery"])
    name = at(rule, "name.as")
    return name if name else series and series[0]


CHECKS: Final = (
    scale_targets_are_there,
    nothing_has_two_autoscalers,
    every_function_is_scaled_the_same_way,
    scalers_watch_both_queues_of_their_function,
    a_pod_is_wanted_for_as_much_as_it_runs_at_once,
    scaling_goes_from_nothing_to_fifty_pods,
    scaling_is_quick,
    calls_and_events_wake_a_function_at_once,
    work_in_hand_counts,
    authentications_are_there,
    metrics_of_autoscalers_are_served,
    one_server_has_the_external_metrics,
)
