"""KEDA's loop between none and one, and what its triggers see."""

from __future__ import annotations

from bench.autoscale.keda import Activation
from bench.autoscale.metrics import QueueMetrics, Source


def make_activation(min_replicas: int = 0) -> Activation:
    return Activation(min_replicas=min_replicas, cooldown_s=45.0)


def test_the_first_invocation_wakes_one_pod() -> None:
    assert make_activation().poll(0.0, 0, is_active=True) == 1


def test_between_one_and_the_maximum_the_loop_changes_nothing() -> None:
    assert make_activation().poll(0.0, 7, is_active=True) == 7


def test_nothing_wakes_without_an_invocation() -> None:
    assert make_activation().poll(0.0, 0, is_active=False) == 0


def test_pods_stay_until_the_cooldown_is_over() -> None:
    activation = make_activation()
    activation.poll(10.0, 1, is_active=True)

    assert activation.poll(55.0, 1, is_active=False) == 1
    assert activation.poll(55.1, 1, is_active=False) == 0


def test_work_begins_the_cooldown_anew() -> None:
    activation = make_activation()
    activation.poll(1.0, 1, is_active=True)
    activation.poll(40.0, 1, is_active=True)

    assert activation.poll(80.0, 1, is_active=False) == 1


def test_the_cooldown_ends_all_pods_not_only_the_last() -> None:
    activation = make_activation()
    activation.poll(0.0, 9, is_active=True)

    assert activation.poll(46.0, 9, is_active=False) == 0


def test_with_a_minimum_the_cooldown_has_no_effect() -> None:
    activation = make_activation(min_replicas=1)
    activation.poll(0.0, 3, is_active=True)

    assert activation.poll(1000.0, 3, is_active=False) == 3
    assert activation.poll(1002.0, 0, is_active=False) == 1


# --- what is seen


def test_amqp_tells_what_waits_at_once_and_not_what_runs() -> None:
    metrics = QueueMetrics(ready=3, unacknowledged=5)

    assert metrics.read(Source.AMQP) == 3


def test_the_management_api_tells_both_as_of_the_last_statistics() -> None:
    metrics = QueueMetrics(ready=3, unacknowledged=5)
    assert metrics.read(Source.MANAGEMENT) == 0

    metrics.publish_statistics()
    metrics.ready = 100

    assert metrics.read(Source.MANAGEMENT) == 8


def test_prometheus_tells_what_the_management_api_told_when_it_scraped() -> None:
    metrics = QueueMetrics(ready=3, unacknowledged=5)
    metrics.publish_statistics()
    assert metrics.read(Source.PROMETHEUS) == 0

    metrics.scrape()
    metrics.ready = 100
    metrics.publish_statistics()

    assert metrics.read(Source.PROMETHEUS) == 8
