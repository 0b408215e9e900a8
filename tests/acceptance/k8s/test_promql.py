"""Metrics are found in any expression, and nothing else is taken for one."""

from __future__ import annotations

import pytest

from tests.acceptance.k8s.promql import metric_names


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        pytest.param("up", {"up"}, id="a name alone"),
        pytest.param('up{job="pods", app!~"a|b}"} == 1', {"up"}, id="matchers"),
        pytest.param("sum by (pod, queue) (rate(a_total[5m]))", {"a_total"}, id="by"),
        pytest.param("sum(rate(a_total[5m])) without (pod)", {"a_total"}, id="without after it"),
        pytest.param("a / on (pod) group_left (node) b", {"a", "b"}, id="matching"),
        pytest.param("a > 0 and b or c unless d", {"a", "b", "c", "d"}, id="sets"),
        pytest.param("histogram_quantile(0.5, a_bucket)", {"a_bucket"}, id="a function"),
        pytest.param('absent(up{job="x"} == 1)', {"up"}, id="absent"),
        pytest.param("a offset 5m > bool 1e3", {"a"}, id="offset and numbers"),
        pytest.param("vector(1)", set(), id="none"),
    ],
)
def test_metric_names(expression: str, names: set[str]) -> None:
    assert metric_names(expression) == names
