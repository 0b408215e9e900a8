from __future__ import annotations

import pytest

from lambda_protocol.errors import ServiceException, TooManyRequestsException
from rapid.metrics import OUTCOMES, Histogram, Metrics


def rendered(metrics: Metrics) -> list[str]:
    content_type, text = metrics.render()
    assert content_type.startswith("text/plain")
    return text.decode().splitlines()


def test_a_fresh_function_shows_every_outcome_at_zero() -> None:
    lines = rendered(Metrics("f"))

    for outcome in OUTCOMES:
        assert f'lambda_invocations_total{{function_name="f",outcome="{outcome}"}} 0.0' in lines


def test_each_metric_has_a_help_that_is_a_sentence() -> None:
    lines = rendered(Metrics("f"))

    for family in [line.split()[2] for line in lines if line.startswith("# TYPE ")]:
        assert any(line.startswith(f"# HELP {family} ") and line.endswith(".") for line in lines)


def test_a_finished_call_is_counted_with_its_duration() -> None:
    metrics = Metrics("f")

    metrics.on_finished("success", 0.03)
    metrics.on_finished("timeout", 3)

    lines = rendered(metrics)
    assert 'lambda_timeouts_total{function_name="f"} 1.0' in lines
    assert 'lambda_invocations_total{function_name="f",outcome="timeout"} 1.0' in lines
    assert 'lambda_invocations_total{function_name="f",outcome="success"} 1.0' in lines
    assert 'lambda_duration_seconds_bucket{function_name="f",le="0.025"} 0.0' in lines
    assert 'lambda_duration_seconds_bucket{function_name="f",le="0.05"} 1.0' in lines
    assert 'lambda_duration_seconds_bucket{function_name="f",le="+Inf"} 2.0' in lines
    assert 'lambda_duration_seconds_sum{function_name="f"} 3.03' in lines
    assert 'lambda_duration_seconds_count{function_name="f"} 2.0' in lines


def test_a_throttled_call_is_told_from_one_refused_otherwise() -> None:
    metrics = Metrics("f")

    metrics.on_refused(TooManyRequestsException())
    metrics.on_refused(ServiceException("x"))
    metrics.on_refused(ServiceException("x"))

    lines = rendered(metrics)
    assert 'lambda_throttles_total{function_name="f"} 1.0' in lines
    assert 'lambda_invocations_total{function_name="f",outcome="throttled"} 1.0' in lines
    assert 'lambda_invocations_total{function_name="f",outcome="refused"} 2.0' in lines


def test_a_start_is_counted_with_its_init_its_wait_and_its_warmth() -> None:
    metrics = Metrics("f")

    metrics.on_init(0.4)
    metrics.on_started(0.2, is_cold=True)
    metrics.on_started(0.0, is_cold=False)

    lines = rendered(metrics)
    assert 'lambda_cold_starts_total{function_name="f"} 1.0' in lines
    assert 'lambda_queue_wait_seconds_count{function_name="f"} 2.0' in lines
    assert 'lambda_init_duration_seconds_sum{function_name="f"} 0.4' in lines


def test_concurrent_executions_are_asked_for_when_rendered() -> None:
    metrics = Metrics("f", running=lambda: 3)

    assert 'lambda_concurrent_executions{function_name="f"} 3.0' in rendered(metrics)


@pytest.mark.parametrize(
    ("value", "bucket"), [(0.0, "0.001"), (0.001, "0.001"), (0.0011, "0.0025"), (901.0, "+Inf")]
)
def test_a_value_falls_into_the_first_bucket_that_holds_it(value: float, bucket: str) -> None:
    histogram = Histogram()

    histogram.observe(value)

    counts = dict(histogram.buckets())
    names = list(counts)
    assert counts[bucket] == 1
    assert all(counts[name] == 0 for name in names[: names.index(bucket)])
