"""The server's routes, and the Gateway's way to them on Kubernetes."""

from __future__ import annotations

import re

import pytest
from flask import Flask

from lambda_protocol.function_url import PATH_PREFIX
from lambda_protocol.invoke_http import INVOKE_PATH, parse_invoke_path
from tests.acceptance.k8s.manifests import load
from tests.fakes import FakeInvoker
from tests.support import ROOT

#: Not for callers: Kubernetes asks for these inside the cluster.
INTERNAL = {"/healthz", "/readyz", "/metrics"}

(ROUTE,) = load((ROOT / "k8s/components/httproute/http-route.yaml").read_text())
PREFIXES = [match["path"]["value"] for match in ROUTE["spec"]["rules"][0]["matches"]]
OPERATIONS = [
    path.replace("NAME", "f")
    for path in re.sub(r"\(\?P<\w+>\.\+\)", "NAME", INVOKE_PATH.pattern)
    .removeprefix("/(?:")
    .removesuffix(")/?")
    .split("|")
]


def is_routed(path: str) -> bool:
    """Whether a PathPrefix of the HTTPRoute matches. Source: Gateway API, HTTPPathMatch."""
    return any(f"{path}/".startswith(f"{prefix.rstrip('/')}/") for prefix in PREFIXES)


def test_the_operations_are_found() -> None:
    assert len(OPERATIONS) >= 2
    assert all(parse_invoke_path(f"/{path}") for path in OPERATIONS)


@pytest.mark.parametrize("path", OPERATIONS)
def test_the_gateway_leads_to_every_operation(path: str) -> None:
    assert is_routed(f"/{path}")


def test_the_gateway_leads_to_no_health_and_no_metrics(app: tuple[Flask, FakeInvoker]) -> None:
    routes = {rule.rule for rule in app[0].url_map.iter_rules()}

    assert routes >= INTERNAL
    assert {path for path in routes if not is_routed(path)} == INTERNAL


def test_the_gateway_leads_nowhere_else() -> None:
    paths = [*(f"/{operation}" for operation in OPERATIONS), PATH_PREFIX]

    assert all(any(path.startswith(prefix) for path in paths) for prefix in PREFIXES)
