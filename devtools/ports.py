"""TCP ports of this machine: free ones, taken ones, and whether AMQP is spoken behind one."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from pathlib import Path

from lambda_protocol.port_holder import port_holder

LOOPBACK = "127.0.0.1"

_FIRST_PORT = 20_000
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

_AMQP_HEADER = b"AMQP\x00\x00\x09\x01"
_FRAME_METHOD = 1
_CONNECTION_START = b"\x00\x0a\x00\x0a"  # class 10, method 10


def free_ports(count: int) -> list[int]:
    """Return ``count`` different loopback ports that nothing listens on.

    They lie below the range that the kernel hands out to clients. In that range a client that
    keeps trying to reconnect to a stopped server may be given the server's own port, connect to
    itself, and so keep the server from coming back.
    """
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = random.choice(_own_range())  # noqa: S311
            if port in ports:  # which could be bound twice, until one of the two listens
                continue
            probe = held.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):  # taken: draw again
                probe.bind((LOOPBACK, port))
                ports.append(port)
        return ports


def is_taken(port: int) -> bool:
    """Return whether a server could not listen on ``port`` of every address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError:
            return True
    return False


def listener(port: int) -> str:
    """Name the program that listens on ``port``: ``nginx, pid 812``, or ``another program``."""
    return port_holder(port) or "another program"


def speaks_amqp(host: str, port: int, timeout_s: float = 2.0) -> bool:
    """Return whether an AMQP 0-9-1 broker answers there: it greets with Connection.Start."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(_AMQP_HEADER)
            frame = _receive(connection, 11)
    except OSError:
        return False
    return frame[:1] == bytes([_FRAME_METHOD]) and frame[7:11] == _CONNECTION_START


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size and (part := connection.recv(size - len(received))):
        received += part
    return received


def _own_range() -> range:
    """Return the ports to draw from: a slice for each test worker.

    A port is given away a moment before anybody listens on it, and in some thousand tests two
    workers would draw the same one just then. Source: pytest-xdist, environment variables.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return range(_FIRST_PORT + int(worker), _first_ephemeral(), workers)


def _first_ephemeral() -> int:
    with contextlib.suppress(OSError):
        return max(int(_EPHEMERAL_RANGE.read_text().split()[0]), _FIRST_PORT + 1_000)
    return 32_768
