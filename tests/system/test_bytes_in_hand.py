"""Payloads in hand have a budget: what is over it is refused unread, and calls go on."""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import StartRapid, StartServer
from tests.support import (
    IS_ONE_FILE,
    MISBEHAVE,
    Client,
    RawConnection,
    child_states,
    resident_mb,
    wait_until,
)

LARGE = "x" * 5_000_000
HEAD = (
    b"POST /2015-03-31/functions/%b/invocations HTTP/1.1\r\nHost: x\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


@pytest.mark.parametrize("door", ["rapid", "server"])
def test_a_payload_over_the_budget_is_429_until_another_is_answered(
    start_rapid: StartRapid,
    start_server: StartServer,
    pool: ThreadPoolExecutor,
    tmp_path: Path,
    door: str,
) -> None:
    limit = str(8 * 1_048_576)
    rapid = start_rapid(
        MISBEHAVE, RAPID_MAX_CONCURRENCY="3", RAPID_BYTES_IN_HAND=limit if door == "rapid" else ""
    )
    port = rapid.port
    if door == "server":
        endpoints = f"{rapid.function_name}=http://127.0.0.1:{rapid.port}"
        port = start_server(LAMBDA_ENDPOINTS=endpoints, BYTES_IN_HAND=limit).port
    wrote, gate = tmp_path / "wrote", tmp_path / "gate"
    held = {"do": "print_halves", "first": "", "rest": "", "wrote": str(wrote), "until": str(gate)}

    def invoke(event: object) -> tuple[int, object]:
        with Client(port) as client:
            answer = client.post(rapid.path, json.dumps(event).encode())
            return answer.status, answer.json()

    first = pool.submit(invoke, {**held, "pad": LARGE})
    wait_until(wrote.exists, "the first call to be in hand")

    refused = (
        429,
        {
            "message": "Too many bytes of payloads are in hand: try again later.",
            "Reason": "CallerRateLimitExceeded",
        },
    )
    assert _without_type(invoke({"pad": LARGE})) == refused
    with RawConnection(port) as connection:  # announced piece by piece
        connection.send(HEAD % rapid.function_name.encode())
        for _ in range(5):
            connection.send(b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n")
        assert connection.read_answer().status == 429
    assert invoke({"small": 1}) == (200, {"small": 1})
    gate.touch()
    assert first.result()[0] == 200

    assert invoke({"pad": LARGE})[0] == 200


@pytest.mark.parametrize("door", ["rapid", "server"])
def test_payloads_leave_no_memory_behind(
    start_rapid: StartRapid, start_server: StartServer, pool: ThreadPoolExecutor, door: str
) -> None:
    """Threads of many connections, which glibc gives several arenas, take turns with them."""
    if IS_ONE_FILE:
        pytest.skip("musl, which the static file has, takes no threshold")
    rapid = start_rapid(MISBEHAVE, RAPID_MAX_CONCURRENCY="2")
    port, pid = rapid.port, rapid.pid
    if door == "server":
        server = start_server(LAMBDA_ENDPOINTS=f"{rapid.function_name}=http://127.0.0.1:{port}")
        port, (pid,) = server.port, child_states(server.pid)
    before = resident_mb(pid)

    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(port)) for _ in range(24)]
        payload = json.dumps(LARGE).encode()
        answers = list(pool.map(lambda client: client.post(rapid.path, payload), clients))

    assert {answer.status for answer in answers} == {200}
    wait_until(lambda: resident_mb(pid) < before + 30, "the memory to be given back")


def _without_type(answer: tuple[int, object]) -> tuple[int, object]:
    status, members = answer
    assert isinstance(members, dict)
    return status, {name: value for name, value in members.items() if name != "Type"}
