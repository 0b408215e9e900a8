"""The settings that are compared: those of k8s/overlays, and what people start from."""

from __future__ import annotations

from dataclasses import dataclass

from bench.autoscale.hpa import Behavior, Policy, PolicyType, ScalingRules
from bench.autoscale.metrics import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What users know of their function, and may choose."""

    call_s: float = 1.0  #: how long one invocation runs
    startup_s: float = 3.0  #: from the order for a pod to its first invocation
    max_concurrency: int = 4  #: of each pod
    max_pods: int = 50
    lone_concurrency: int = 50  #: RAPID_MAX_CONCURRENCY of the one pod that is not scaled
    target: int | None = None  #: invocations a pod is asked for; None: ``max_concurrency``
    scale_up_pods: int = 20  #: that our overlays add each 15 s
    window_s: float = 30.0  #: of our overlays, before pods go


def our_behavior(options: Options) -> Behavior:
    """Return the ``behavior`` of our overlays."""
    return Behavior(
        scale_up=ScalingRules(
            policies=(
                Policy(type=PolicyType.PODS, value=options.scale_up_pods),
                Policy(type=PolicyType.PERCENT, value=100),
            ),
            window_s=0.0,
        ),
        scale_down=ScalingRules(
            policies=(Policy(type=PolicyType.PERCENT, value=100),), window_s=options.window_s
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Keda:
    """The loop between none and one."""

    polling_s: float = 2.0  #: pollingInterval
    cooldown_s: float = 45.0  #: cooldownPeriod


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One way to scale a function; without ``behavior`` it is not scaled."""

    name: str
    min_replicas: int
    max_replicas: int
    max_concurrency: int
    target: float = 1.0  #: ``AverageValue``, of each source
    sources: tuple[Source, ...] = ()
    behavior: Behavior | None = None
    keda: Keda | None = None


def alternatives(options: Options) -> list[Alternative]:
    """Return what is compared, ours first.

    The image-volume overlay scales as ``keda`` does.
    """

    ours = our_behavior(options)

    def scaled(
        name: str,
        *sources: Source,
        min_replicas: int,
        behavior: Behavior = ours,
        keda: Keda | None = None,
    ) -> Alternative:
        return Alternative(
            name=name,
            min_replicas=min_replicas,
            max_replicas=options.max_pods,
            max_concurrency=options.max_concurrency,
            target=options.target or options.max_concurrency,
            sources=sources,
            behavior=behavior,
            keda=keda,
        )

    return [
        scaled("keda", Source.AMQP, Source.MANAGEMENT, min_replicas=0, keda=Keda()),
        scaled("keda-prometheus", Source.PROMETHEUS, min_replicas=0, keda=Keda()),
        scaled("hpa", Source.PROMETHEUS, min_replicas=1),
        Alternative(
            name="max-concurrency",
            min_replicas=1,
            max_replicas=1,
            max_concurrency=options.lone_concurrency,
        ),
        # Where people start: everything at its default, and the queue's length by AMQP.
        scaled(
            "keda, defaults",
            Source.AMQP,
            min_replicas=1,
            behavior=Behavior(),
            keda=Keda(polling_s=30.0, cooldown_s=300.0),
        ),
        scaled("hpa, defaults", Source.PROMETHEUS, min_replicas=1, behavior=Behavior()),
    ]
