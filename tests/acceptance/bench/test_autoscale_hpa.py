"""The HPA's loop, rule by rule, as Kubernetes documents it."""

from __future__ import annotations

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

PODS, PERCENT = PolicyType.PODS, PolicyType.PERCENT


def rules(
    *policies: Policy, window_s: float = 0.0, select: SelectPolicy = SelectPolicy.MAX
) -> ScalingRules:
    return ScalingRules(policies=policies, window_s=window_s, select=select)


#: Lets everything happen at once.
AT_ONCE = rules(Policy(type=PODS, value=1000), Policy(type=PERCENT, value=100))


def make_hpa(
    *,
    up: ScalingRules = AT_ONCE,
    down: ScalingRules = AT_ONCE,
    min_replicas: int = 1,
    max_replicas: int = 50,
) -> HorizontalPodAutoscaler:
    return HorizontalPodAutoscaler(
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        behavior=Behavior(scale_up=up, scale_down=down),
    )


def of(value: float, target: float = 4.0) -> list[Reading]:
    return [Reading(value=value, target=target)]


def follow(hpa: HorizontalPodAutoscaler, values: list[float], *, start: int = 1) -> list[int]:
    """Return the replicas after each sync, one each 15 s."""
    replicas, found = start, []
    for number, value in enumerate(values):
        replicas = hpa.sync(number * 15.0, replicas, of(value))
        found.append(replicas)
    return found


# --- the count


def test_the_value_is_divided_by_the_target_and_rounded_up() -> None:
    assert make_hpa().sync(0.0, 1, of(41)) == 11


def test_of_several_metrics_the_one_that_wants_most_counts_and_not_their_sum() -> None:
    readings = [Reading(value=20, target=4), Reading(value=40, target=4)]

    assert make_hpa().sync(0.0, 1, readings) == 10


@pytest.mark.parametrize(
    ("value", "replicas"),
    [(36, 10), (44, 10), (35, 9), (45, 12)],
    ids=["a tenth below", "a tenth above", "more below", "more above"],
)
def test_within_a_tenth_of_the_target_nothing_changes(value: float, replicas: int) -> None:
    assert make_hpa().sync(0.0, 10, of(value)) == replicas


def test_never_more_than_the_maximum_nor_less_than_the_minimum() -> None:
    hpa = make_hpa(min_replicas=2, max_replicas=7)

    assert follow(hpa, [4000, 0], start=3) == [7, 2]


def test_a_count_outside_the_limits_is_brought_inside_whatever_the_metrics_say() -> None:
    slow = rules(Policy(type=PODS, value=1))
    hpa = make_hpa(up=slow, down=slow, min_replicas=3, max_replicas=7)

    assert hpa.sync(0.0, 1, of(4000)) == 3
    assert hpa.sync(15.0, 20, of(4)) == 7


def test_at_zero_replicas_scaling_is_disabled() -> None:
    assert make_hpa().sync(0.0, 0, of(4000)) == 0


# --- stabilization


def test_the_highest_count_of_the_window_holds_when_scaling_down() -> None:
    down = rules(Policy(type=PERCENT, value=100), window_s=31.0)

    assert follow(make_hpa(down=down), [40, 20, 0, 0, 0, 0]) == [10, 10, 10, 5, 1, 1]


def test_the_lowest_count_of_the_window_holds_when_scaling_up() -> None:
    up = rules(Policy(type=PODS, value=1000), window_s=31.0)

    assert follow(make_hpa(up=up), [4, 40, 80, 80, 80]) == [1, 1, 1, 10, 20]


def test_what_is_as_old_as_the_window_no_longer_counts() -> None:
    down = rules(Policy(type=PERCENT, value=100), window_s=30.0)

    assert follow(make_hpa(down=down), [40, 0, 0]) == [10, 10, 1]


def test_without_settings_the_window_is_five_minutes() -> None:
    hpa = HorizontalPodAutoscaler(min_replicas=1, max_replicas=50)

    counts = follow(hpa, [16.0] + [0.0] * 21)

    assert counts[:20] == [4] * 20
    assert counts[20] == 1


# --- policies


def test_by_default_four_pods_or_as_many_again_come_in_fifteen_seconds() -> None:
    hpa = HorizontalPodAutoscaler(min_replicas=1, max_replicas=50)

    assert follow(hpa, [4000] * 6) == [5, 10, 20, 40, 50, 50]


def test_our_overlays_add_twenty_pods_or_as_many_again() -> None:
    hpa = HorizontalPodAutoscaler(min_replicas=1, max_replicas=50, behavior=our_behavior(Options()))

    assert follow(hpa, [4000] * 4) == [21, 42, 50, 50]


def test_the_policy_of_least_change_can_be_chosen() -> None:
    policies = (Policy(type=PODS, value=4), Policy(type=PERCENT, value=100))
    up = rules(*policies, select=SelectPolicy.MIN)
    down = rules(*policies, select=SelectPolicy.MIN)
    hpa = make_hpa(up=up, down=down)

    assert follow(hpa, [4000, 4000, 4000, 4000, 4, 4]) == [2, 4, 8, 12, 8, 4]


def test_a_direction_can_be_disabled() -> None:
    off = rules(Policy(type=PERCENT, value=100), select=SelectPolicy.DISABLED)

    assert follow(make_hpa(down=off), [40, 0, 0]) == [10, 10, 10]
    assert follow(make_hpa(up=off), [40, 40], start=2) == [2, 2]


def test_a_policy_counts_what_was_done_within_its_period() -> None:
    up = rules(Policy(type=PODS, value=6, period_s=60.0))

    assert follow(make_hpa(up=up), [12, 400, 400, 400, 400]) == [3, 7, 7, 7, 9]


def test_what_was_removed_within_the_period_may_come_back_beyond_the_policy() -> None:
    up = rules(Policy(type=PODS, value=2, period_s=60.0))

    assert follow(make_hpa(up=up), [4, 400], start=10) == [1, 12]


def test_a_percentage_rounds_up_on_the_way_up_and_down_on_the_way_down() -> None:
    tenth = rules(Policy(type=PERCENT, value=10))
    hpa = make_hpa(up=tenth, down=tenth)

    assert follow(hpa, [400, 400], start=1) == [2, 3]
    assert follow(make_hpa(up=tenth, down=tenth), [0, 0], start=15) == [13, 11]
