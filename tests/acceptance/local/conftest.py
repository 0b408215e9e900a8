"""What the tests of the local stack share."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from devtools.ports import LOOPBACK
from devtools.rabbitmq_node import find_server
from tests.support import give_up

#: Given to a listener for each connection that it accepts; afterwards the connection is closed.
Talk = Callable[[socket.socket], None]


@pytest.fixture(autouse=True)
def _broker_installed(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("broker") and find_server() is None:
        give_up("no rabbitmq-server on this machine; scripts/test-setup installs one")


@pytest.fixture
def listen() -> Iterator[Callable[[Talk], int]]:
    """Give a function that listens on a free port, and returns the port."""
    with contextlib.ExitStack() as stack:

        def start(talk: Talk) -> int:
            server = socket.create_server((LOOPBACK, 0))
            thread = threading.Thread(target=serve, args=(server, talk), daemon=True)
            thread.start()
            stack.callback(thread.join, 5)
            stack.callback(server.close)
            stack.callback(server.shutdown, socket.SHUT_RDWR)
            port: int = server.getsockname()[1]
            return port

        def serve(server: socket.socket, talk: Talk) -> None:
            with contextlib.suppress(OSError):  # closed: the test is over
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):  # the peer hung up first
                        connection.settimeout(5)
                        talk(connection)

        yield start


def left_running(folder: Path) -> list[str]:
    """Return the command line of every process that was started in or for ``folder``."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if any(str(folder) in text for text in (*process.environ().values(), *command)):
                found.append(" ".join(command))
    return found
