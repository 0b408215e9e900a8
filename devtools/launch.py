"""How rapid and the Lambda Server of the checkout are started, and how they tell that they serve.

``make up``, the benchmarks and the tests each run the processes in a way of their own; commands,
settings and readiness are the same for all.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from devtools.ports import LOOPBACK, free_ports

RAPID: Final = (sys.executable, "-m", "rapid")
_GUNICORN: Final = (sys.executable, "-m", "gunicorn")
_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A program that is not started yet."""

    command: tuple[str, ...]
    environ: Mapping[str, str]  #: the whole environment of the program
    port: int  #: where it will answer HTTP


def rapid(
    *command: str, program: Sequence[str] = RAPID, settings: Mapping[str, str] | None = None
) -> Launch:
    """Return rapid for the runtime ``command``, on free loopback ports unless ``settings`` say."""
    port, runtime_api_port = free_ports(2)
    environ = {
        "RAPID_INVOKE_API_HOST": LOOPBACK,
        "RAPID_PORT": str(port),
        "RAPID_RUNTIME_API_PORT": str(runtime_api_port),
        **(settings or {}),
    }
    return Launch(command=(*program, *command), environ=environ, port=int(environ["RAPID_PORT"]))


def server(*arguments: str, settings: Mapping[str, str] | None = None) -> Launch:
    """Return the Lambda Server under gunicorn, on a free loopback port unless ``settings`` say."""
    (port,) = free_ports(1)
    environ = {"INVOKE_API_HOST": LOOPBACK, "PORT": str(port), **(settings or {})}
    return Launch(
        command=(*_GUNICORN, *arguments, "lambda_server.wsgi"),
        environ=environ,
        port=int(environ["PORT"]),
    )


def is_ready(port: int) -> bool:
    """Return whether ``/readyz`` of a program says that it can serve."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_TIMEOUT_S)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/readyz")
        with connection.getresponse() as response:
            return response.status == 200
    return False


def is_listening(port: int) -> bool:
    """Return whether something accepts connections on a loopback port."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), _TIMEOUT_S):
        return True
    return False
