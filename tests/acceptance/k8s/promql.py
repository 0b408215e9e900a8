"""Which metrics a PromQL expression asks for, and every expression that the manifests have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from tests.support import ROOT

K8S: Final = ROOT / "k8s"
PROMETHEUS: Final = K8S / "prometheus"
DASHBOARDS: Final = sorted((K8S / "grafana").glob("*.json"))

#: What has names in it that are no metrics': matchers, label lists, ranges, texts.
_NOT_METRICS: Final = re.compile(
    r"""
      "(?:[^"\\]|\\.)*"
    | \{[^}]*\}
    | \[[^\]]*\]
    | \b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)
    """,
    re.VERBOSE,
)
_OPERATORS: Final = {"and", "or", "unless", "bool", "offset", "atan2", "inf", "nan"}


def metric_names(expression: str) -> set[str]:
    """Return the metrics that ``expression`` selects by name."""
    rest = _NOT_METRICS.sub(" ", expression)
    names = re.findall(r"(?<![\w.])[a-zA-Z_:][\w:]*(?!\w|\s*\()", rest)
    return {name for name in names if name.lower() not in _OPERATORS}


def alerts() -> dict[str, dict[str, Any]]:
    """Return every alerting rule by its name."""
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def panels(dashboard: str) -> list[dict[str, Any]]:
    """Return the panels of the dashboard whose JSON this is."""
    found: list[dict[str, Any]] = json.loads(dashboard)["panels"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Yield who asks, and what, of every alert, panel, autoscaler and the adapter."""
    for name, rule in alerts().items():
        yield name, rule["expr"]
    for file in DASHBOARDS:
        for panel in panels(file.read_text()):
            for target in panel["targets"]:
                yield f"{file.name}: {panel['title']}", target["expr"]
    adapter = yaml.safe_load((K8S / "prometheus-adapter" / "config.yaml").read_text())
    for rule in adapter["externalRules"]:
        yield "prometheus-adapter", rule["seriesQuery"]
    for file in sorted((K8S / "components" / "keda-prometheus").glob("*-lambda.yaml")):
        for trigger in yaml.safe_load(file.read_text())["spec"]["triggers"]:
            yield f"keda-prometheus: {file.stem}", trigger["metadata"]["query"]


def for_prometheus(expression: str) -> str:
    """Return a panel's expression with Grafana's variables filled in."""
    for variable, value in (("$__rate_interval", "5m"), ("$function", ".+")):
        expression = expression.replace(variable, value)
    return expression
