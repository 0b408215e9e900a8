"""Payloads in hand have a budget: what is over it is refused unread, and calls go on."""

from __future__ import annotations

import contextlib
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartRapid, StartServer
from tests.support import (
    ECHO,
    IS_ONE_FILE,
    MISBEHAVE,
    Client,
    RawConnection,
    child_states,
    peak_mb,
    resident_mb,
    wait_until,
)

LARGE = "x" * 5_000_000
HEAD = (
    b"POST /2015-03-31/functions/%b/invocations HTTP/1.1\r\nHost: x\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


@pytest.mark.parametrize("door", ["rapid", "server", "gthread"])
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
    if door != "rapid":
        worker = ("-k", "gthread", "--threads", "4") if door == "gthread" else ()
        port = start_server(*worker, LAMBDA_ENDPOINTS=rapid.endpoint, BYTES_IN_HAND=limit).port
    wrote, gate = tmp_path / "wrote", tmp_path / "gate"
    held = {"do": "print_halves", "first": "", "rest": "", "wrote": str(wrote), "until": str(gate)}

    def invoke(event: object) -> tuple[int, Any]:
        with Client(port) as client:
            answer = client.post(rapid.path, json.dumps(event).encode())
            return answer.status, answer.json()

    first = pool.submit(invoke, {**held, "pad": LARGE})
    wait_until(wrote.exists, "the first call to be in hand")

    status, members = invoke({"pad": LARGE})
    assert status == 429
    assert members["message"] == "Too many bytes of payloads are in hand: try again later."
    assert members["Reason"] == "CallerRateLimitExceeded"
    with RawConnection(port) as connection:  # announced piece by piece
        connection.send(HEAD % rapid.function_name.encode())
        for _ in range(0 if door == "gthread" else 5):  # which takes all that may come at once
            connection.send(b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n")
        assert connection.read_answer().status == 429
    assert invoke({"small": 1}) == (200, {"small": 1})
    gate.touch()
    assert first.result()[0] == 200

    assert invoke({"pad": LARGE})[0] == 200


def test_40_payloads_of_6_mb_at_once_fit_into_512_mib(
    start_rapid: StartRapid, start_server: StartServer, broker: str
) -> None:
    budget = str(512 * 1_048_576 // 4)  # what a limit of 512 MiB gives
    rapid = start_rapid(
        ECHO, RAPID_MAX_CONCURRENCY="4", AMQP_URI=broker, RAPID_BYTES_IN_HAND=budget
    )
    server = start_server(AMQP_URI=broker, BYTES_IN_HAND=budget)
    payload = json.dumps("x" * 6_291_454).encode()
    (worker,) = child_states(server.pid)

    def invoke(_number: int) -> int:
        with Client(server.port) as client:
            answer = client.post(rapid.path, payload)
            assert answer.status == 429 or answer.body == payload
            return answer.status

    with ThreadPoolExecutor(40) as callers:
        statuses = set(callers.map(invoke, range(40)))

    assert statuses <= {200, 429}
    assert peak_mb(worker) < 512
    assert peak_mb(rapid.pid) < 512


def is_cut_off(port: int, reader: RawConnection) -> bool:
    """Whether the program at ``port`` sends no more to ``reader``, who reads nothing now."""
    mark = f":{port:04X} 0100007F:{reader.socket.getsockname()[1]:04X} "
    lines = Path("/proc/net/tcp").read_text().splitlines()
    return all(line.split()[3] != "01" for line in lines if mark in line)  # 01: established


@pytest.mark.parametrize("door", ["rapid", "server"])
def test_the_answer_that_was_left_unread_longest_gives_way_to_new_ones(
    start_rapid: StartRapid, start_server: StartServer, door: str
) -> None:
    limit = str(16 * 1_048_576)
    rapid = start_rapid(MISBEHAVE, RAPID_BYTES_IN_HAND=limit)
    port = rapid.port
    if door == "server":
        port = start_server(LAMBDA_ENDPOINTS=rapid.endpoint, BYTES_IN_HAND=limit).port
    large = json.dumps({"do": "size", "n": 6_000_000}).encode()
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"

    with contextlib.ExitStack() as stack:
        readers = []
        for _ in range(4):
            reader = stack.enter_context(RawConnection(port))
            # Else the kernel may take all of an answer, so that it is not left unread.
            reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            reader.send(head % (rapid.path.encode(), len(large)) + large)
            assert reader.read_until(b"\r\n").startswith(b"HTTP/1.1 200")
            readers.append(reader)

        for reader in readers[:2]:  # 16 MiB have room for two
            wait_until(lambda reader=reader: is_cut_off(port, reader), "an answer to be cut off")  # type: ignore[misc]
        are_whole = [len(reader.read_to_end()) > 6_000_000 for reader in readers]

    assert are_whole == [False, False, True, True]


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
        server = start_server(LAMBDA_ENDPOINTS=rapid.endpoint)
        port, (pid,) = server.port, child_states(server.pid)
    before = resident_mb(pid)

    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(port)) for _ in range(24)]
        payload = json.dumps(LARGE).encode()
        answers = list(pool.map(lambda client: client.post(rapid.path, payload), clients))

    assert {answer.status for answer in answers} == {200}
    wait_until(lambda: resident_mb(pid) < before + 30, "the memory to be given back")
