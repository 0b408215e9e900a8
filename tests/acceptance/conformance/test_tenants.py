from __future__ import annotations

import json
from typing import Any

import pytest

from tests.acceptance.conformance.conftest import OpenDoor
from tests.acceptance.conformance.doors import Calls, Door
from tests.support import LIMIT_S, MISBEHAVE, MULTI

conformance = pytest.mark.conformance


def ask(door: Door, tenant: str | None, **event: Any) -> Any:
    """Return what the function answers to this tenant."""
    answer = door.invoke(json.dumps(event), **headers_of(tenant))
    assert (answer.status, answer.headers["X-Amz-Function-Error"]) == (200, None), answer.body
    return answer.json()


def headers_of(tenant: str | None) -> dict[str, str]:
    return {} if tenant is None else {"X_Amz_Tenant_Id": tenant}


@conformance(125)
def test_each_tenant_has_an_environment_of_its_own(open_door: OpenDoor) -> None:
    door = open_door(MISBEHAVE, RAPID_MAX_CONCURRENCY="3")

    tenants = ["a", "b", None, "b", "a", None]
    pids = [(tenant, ask(door, tenant, do="pid")) for tenant in tenants]

    assert len({pid for _, pid in pids}) == 3
    assert len(set(pids)) == 3


@conformance(125)
def test_tenants_take_turns_where_one_environment_is_all_there_is(open_door: OpenDoor) -> None:
    door = open_door(MISBEHAVE, RAPID_MAX_CONCURRENCY="1")

    counts = [ask(door, tenant, do="counter") for tenant in ("a", "a", "b", None, None, "a")]

    assert counts == [1, 2, 1, 1, 2, 1]


@conformance(125)
def test_a_running_call_of_one_tenant_is_not_ended_for_another(
    open_door: OpenDoor, calls: Calls
) -> None:
    door = open_door(MISBEHAVE, RAPID_MAX_CONCURRENCY="1")

    running = calls.start(door, '{"do":"sleep","s":0.5}', **headers_of("a"))
    others = [calls.start(door, '{"do":"counter"}', **headers_of(each)) for each in ("b", "c")]

    assert running.result(LIMIT_S).json() == {"do": "sleep", "s": 0.5}
    assert [other.result(LIMIT_S).json() for other in others] == [1, 1]


@conformance(125)
def test_a_runtime_of_many_calls_has_them_of_one_tenant(open_door: OpenDoor, calls: Calls) -> None:
    door = open_door(MULTI, AWS_LAMBDA_MAX_CONCURRENCY="4")
    slow = json.dumps({"s": 0.3})

    callers = {
        tenant: [calls.start(door, slow, **headers_of(tenant)) for _ in range(3)]
        for tenant in ("a", "b")
    }
    pids = {
        tenant: {caller.result(LIMIT_S).json()["pid"] for caller in of_tenant}
        for tenant, of_tenant in callers.items()
    }

    assert not pids["a"] & pids["b"]
