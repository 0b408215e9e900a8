from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.conformance.doors import Door, Gate, assert_error

conformance = pytest.mark.conformance


@conformance(65)
def test_invoke_async_is_accepted_and_runs_the_function(door: Door, gate: Gate) -> None:
    path = f"/2014-11-13/functions/{quote(door.function_name)}/invoke-async"

    with door.client() as client:
        answer = client.post(path, gate.event.encode())

    gate.wait_reached()
    gate.open()
    assert answer.status == 202
    assert answer.headers["x-amzn-RequestId"]


@conformance(65)
def test_invoke_async_refuses_what_is_no_json(door: Door) -> None:
    path = f"/2014-11-13/functions/{quote(door.function_name)}/invoke-async/"

    with door.client() as client:
        answer = client.post(path, b"nonsense")

    assert_error(answer, 400, "InvalidRequestContentException")
