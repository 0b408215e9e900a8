from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools import ports
from devtools.ports import LOOPBACK, free_ports, is_taken, listener, speaks_amqp


def test_free_ports_differ_and_can_be_listened_on() -> None:
    found = free_ports(20)

    assert len(set(found)) == 20
    for port in found:
        socket.create_server((LOOPBACK, port)).close()


def test_free_ports_lie_below_those_the_kernel_gives_to_clients() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])

    assert max(free_ports(20)) < first


def test_a_port_is_taken_while_somebody_listens_on_any_address() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]

        assert is_taken(port)
    assert not is_taken(port)


def test_listener_names_program_and_pid() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        found = listener(server.getsockname()[1])

    assert found.endswith(f", pid {os.getpid()}")


def test_listener_of_a_port_that_nobody_shows_is_another_program() -> None:
    assert listener(free_ports(1)[0]) == "another program"


@pytest.mark.parametrize(
    ("greeting", "expected"),
    [
        pytest.param(b"\x01\0\0\0\0\x01\xec\0\x0a\0\x0a\0\x09", True, id="Connection.Start"),
        pytest.param(b"AMQP\x03\x01\0\0", False, id="another AMQP"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", False, id="HTTP"),
        pytest.param(b"", False, id="says nothing"),
    ],
)
def test_speaks_amqp_looks_at_the_greeting(
    listen: Callable[[Callable[[socket.socket], None]], int], greeting: bytes, expected: bool
) -> None:
    def talk(connection: socket.socket) -> None:
        if connection.recv(8) == b"AMQP\0\0\x09\x01":
            connection.sendall(greeting)

    assert speaks_amqp(LOOPBACK, listen(talk)) is expected


def test_nobody_there_does_not_speak_amqp() -> None:
    assert not speaks_amqp(LOOPBACK, free_ports(1)[0])


def test_many_ports_at_once_are_all_different(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_own_range", lambda: range(20_000, 20_060))

    assert len(set(free_ports(30))) == 30


def test_two_test_workers_never_draw_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "2")
    ranges = []
    for worker in ("gw0", "gw1"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        ranges.append(set(ports._own_range()))

    assert not ranges[0] & ranges[1]
    assert all(len(own) > 1_000 for own in ranges)
