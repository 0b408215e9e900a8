"""The loops of HPA and KEDA, rule by rule as they are documented, and what triggers see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from bench.autoscale.alternatives import Options, our_behavior
from bench.autoscale.hpa import (
    Behavior,
    HorizontalPodAutoscaler,
    Policy,
    PolicyType,
    Reading,
    ScalingRules,
    SelectPolicy,
)
from bench.autoscale.keda import Activation
from bench.autoscale.metrics import QueueMetrics, Source

PODS, PERCENT = PolicyType.PODS, PolicyType.PERCENT


def rules(*policies: Policy, window_s: float = 0.0, **more: Any) -> ScalingRules:
    return ScalingRules(policies=policies, window_s=window_s, **more)


#: Lets everything happen at once.
ALL = (Policy(type=PODS, value=1000), Policy(type=PERCENT, value=100))
AT_ONCE = rules(*ALL)
WAITS = rules(*ALL, window_s=31.0)
ONE, SIX_A_MINUTE, TWO_A_MINUTE = (
    rules(Policy(type=PODS, value=value, period_s=period_s))
    for value, period_s in ((1, 15.0), (6, 60.0), (2, 60.0))
)
TENTH = rules(Policy(type=PERCENT, value=10))
FOUR_OR_DOUBLE = (Policy(type=PODS, value=4), Policy(type=PERCENT, value=100))
LEAST = rules(*FOUR_OR_DOUBLE, select=SelectPolicy.MIN)
OFF = rules(*ALL, select=SelectPolicy.DISABLED)


def make_hpa(
    up: ScalingRules = AT_ONCE,
    down: ScalingRules = AT_ONCE,
    *,
    limits: tuple[int, int] = (1, 50),
    behavior: Behavior | None = None,
) -> HorizontalPodAutoscaler:
    return HorizontalPodAutoscaler(
        min_replicas=limits[0],
        max_replicas=limits[1],
        behavior=behavior or Behavior(scale_up=up, scale_down=down),
    )


def of(*values: float) -> list[Reading]:
    return [Reading(value=value, target=4.0) for value in values]


@pytest.mark.parametrize(
    ("hpa", "start", "values", "replicas"),
    [
        pytest.param(make_hpa(), 1, [41], [11], id="divided and rounded up"),
        # Within a tenth of the target nothing changes.
        pytest.param(make_hpa(), 10, [36, 44], [10, 10], id="a tenth"),
        pytest.param(make_hpa(), 10, [35], [9], id="more below"),
        pytest.param(make_hpa(), 10, [45], [12], id="more above"),
        pytest.param(make_hpa(limits=(2, 7)), 3, [4000, 0], [7, 2], id="limits"),
        pytest.param(make_hpa(ONE, ONE, limits=(3, 7)), 1, [4000], [3], id="inside from below"),
        pytest.param(make_hpa(ONE, ONE, limits=(3, 7)), 20, [4], [7], id="inside from above"),
        pytest.param(make_hpa(), 0, [4000], [0], id="zero is disabled"),
        pytest.param(make_hpa(down=WAITS), 1, [40, 20, 0, 0, 0, 0], [10, 10, 10, 5, 1, 1],
                     id="the highest of the window holds"),
        pytest.param(make_hpa(up=WAITS), 1, [4, 40, 80, 80, 80], [1, 1, 1, 10, 20],
                     id="the lowest of the window holds"),
        pytest.param(make_hpa(down=rules(*ALL, window_s=30.0)), 1, [40, 0, 0], [10, 10, 1],
                     id="as old as the window"),
        pytest.param(HorizontalPodAutoscaler(min_replicas=1, max_replicas=50), 1,
                     [16.0] + [0.0] * 20, [4] * 20 + [1], id="five minutes by default"),
        pytest.param(HorizontalPodAutoscaler(min_replicas=1, max_replicas=50), 1,
                     [4000] * 6, [5, 10, 20, 40, 50, 50], id="four or as many by default"),
        pytest.param(make_hpa(behavior=our_behavior(Options())), 1, [4000] * 4, [21, 42, 50, 50],
                     id="our overlays"),
        pytest.param(make_hpa(LEAST, LEAST), 1, [4000, 4000, 4000, 4000, 4, 4],
                     [2, 4, 8, 12, 8, 4], id="least change"),
        pytest.param(make_hpa(down=OFF), 1, [40, 0, 0], [10, 10, 10], id="never down"),
        pytest.param(make_hpa(up=OFF), 2, [40, 40], [2, 2], id="never up"),
        pytest.param(make_hpa(up=SIX_A_MINUTE), 1, [12, 400, 400, 400, 400], [3, 7, 7, 7, 9],
                     id="what was done in the period"),
        pytest.param(make_hpa(up=TWO_A_MINUTE), 10, [4, 400], [1, 12], id="removed comes back"),
        pytest.param(make_hpa(TENTH, TENTH), 1, [400, 400], [2, 3], id="a percentage up"),
        pytest.param(make_hpa(TENTH, TENTH), 15, [0, 0], [13, 11], id="a percentage down"),
    ],
)  # fmt: skip
def test_the_hpa_follows(
    hpa: HorizontalPodAutoscaler, start: int, values: Sequence[float], replicas: list[int]
) -> None:
    """One value each 15 s, for a target of 4."""
    found = []
    for number, value in enumerate(values):
        start = hpa.sync(number * 15.0, start, of(value))
        found.append(start)

    assert found == replicas


def test_of_several_metrics_the_one_that_wants_most_counts_and_not_their_sum() -> None:
    assert make_hpa().sync(0.0, 1, of(20, 40)) == 10


@pytest.mark.parametrize(
    ("least", "polls", "replicas"),
    [
        pytest.param(0, [(0.0, 0, True)], 1, id="wakes one"),
        pytest.param(0, [(0.0, 0, False)], 0, id="wakes none"),
        pytest.param(0, [(0.0, 7, True)], 7, id="leaves many to the HPA"),
        pytest.param(0, [(10.0, 1, True), (55.0, 1, False)], 1, id="within the cooldown"),
        pytest.param(0, [(10.0, 1, True), (55.1, 1, False)], 0, id="after it"),
        pytest.param(0, [(1.0, 1, True), (40.0, 1, True), (80.0, 1, False)], 1, id="anew by work"),
        pytest.param(0, [(0.0, 9, True), (46.0, 9, False)], 0, id="all of them"),
        pytest.param(1, [(0.0, 3, True), (1000.0, 3, False)], 3, id="a minimum has no cooldown"),
        pytest.param(1, [(0.0, 0, False)], 1, id="a minimum is kept"),
    ],
)
def test_keda_activates(least: int, polls: list[tuple[float, int, bool]], replicas: int) -> None:
    activation = Activation(min_replicas=least, cooldown_s=45.0)

    found = [activation.poll(time, pods, is_active=is_active) for time, pods, is_active in polls]

    assert found[-1] == replicas


def test_each_source_tells_of_its_own_moment() -> None:
    metrics = QueueMetrics(ready=3, unacknowledged=5)
    sources = (Source.AMQP, Source.MANAGEMENT, Source.PROMETHEUS)

    seen = [[metrics.read(source) for source in sources]]
    for step in (metrics.publish_statistics, metrics.scrape):
        step()
        metrics.ready += 100
        seen.append([metrics.read(source) for source in sources])

    assert seen == [[3, 0, 0], [103, 8, 0], [203, 8, 8]]
