"""Many callers at once of a function that takes a second: what each of them costs.

A consumer of the function's queue stands in the function's place, and answers each call after a
second. So nothing but the server and RabbitMQ is measured.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final
from urllib.parse import urlsplit

import pika

from bench import launches, usage
from bench.errors import CallFailed
from bench.launches import Launch
from bench.load import PAYLOAD
from bench.subjects import Setup
from devtools.processes import session_of
from devtools.progress import Step
from devtools.rabbitmq_node import RabbitmqNode

CALLERS: Final = 1_000
_FUNCTION_S: Final = 1.0
_CALLS: Final = 2  # of each caller
_LIMIT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What the callers of one server met."""

    first_s: float  #: until the first call of a caller was answered, the median
    last_first_s: float  #: until that of the last one
    rss_mb: tuple[float, float]  #: of the server, before and after
    threads: int  #: of the server, while the calls ran
    broker_mb: tuple[float, float]
    server_cpu_s: float
    unanswered: int


def measure_scale(setup: Setup, folder: Path, *, callers: int = CALLERS) -> dict[str, Scale]:
    """Return what each server met, one after the other, each with a RabbitMQ of its own."""
    servers: dict[str, Any] = {
        "server": lambda uri: launches.server(uri),
        "polling": lambda uri: launches.server(uri, polls=True),
    }
    if setup.peer_server is not None:
        peer = setup.peer_server
        servers["peer-server"] = lambda uri: launches.peer_server(peer, uri)
    found = {}
    for name, launch in servers.items():
        with ExitStack() as stack, Step(f"{callers:,} callers: {name}") as step:
            node = stack.enter_context(RabbitmqNode(folder / f"rabbitmq-{name}"))
            server = launch(node.uri)
            stack.enter_context(_function(node.uri, server.function_name))
            process = stack.enter_context(server.running(folder))
            assert node.pid is not None
            found[name] = _measure(server, process.pid, node.pid, callers)
            step.result(f"first answers after {found[name].first_s:.2f} s")
    return found


@contextmanager
def _function(uri: str, queue: str) -> Iterator[None]:
    """Answer each call of ``queue`` after a second, in a thread."""
    connection = pika.BlockingConnection(pika.URLParameters(uri))
    channel = connection.channel()
    channel.queue_declare(queue)

    def on_call(_channel: object, _method: object, call: Any, body: bytes) -> None:
        reply = pika.BasicProperties(correlation_id=call.correlation_id)
        connection.call_later(
            _FUNCTION_S, lambda: channel.basic_publish("", call.reply_to, body, reply)
        )

    channel.basic_consume(queue, on_call, auto_ack=True)
    thread = threading.Thread(target=channel.start_consuming, daemon=True)
    thread.start()
    yield
    connection.add_callback_threadsafe(channel.stop_consuming)
    thread.join()
    connection.close()


def _measure(server: Launch, session: int, broker: int, callers: int) -> Scale:
    before = usage.session_rss_mb(session), usage.session_rss_mb(broker)
    cpu_s = usage.session_cpu_s(session)
    burst = _Burst(server.url, callers)
    firsts = burst.run(at_half=lambda: sum(p.num_threads() for p in session_of(session)))
    return Scale(
        first_s=median(firsts) if firsts else _LIMIT_S,
        last_first_s=max(firsts, default=_LIMIT_S),
        rss_mb=(before[0], usage.session_rss_mb(session)),
        threads=burst.threads,
        broker_mb=(before[1], usage.session_rss_mb(broker)),
        server_cpu_s=usage.session_cpu_s(session) - cpu_s,
        unanswered=burst.unanswered,
    )


class _Burst:
    """Connections that all call at once, and once more as soon as they are answered."""

    def __init__(self, url: str, callers: int) -> None:
        parts = urlsplit(url)
        self._request = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Length: {len(PAYLOAD)}\r\n\r\n"
        ).encode() + PAYLOAD
        self._left = {
            socket.create_connection((parts.hostname, parts.port)): _CALLS for _ in range(callers)
        }
        self.threads = 0
        self.unanswered = callers * _CALLS

    def run(self, *, at_half: Any) -> list[float]:
        """Return after how many seconds each caller had its first answer."""
        firsts: list[float] = []
        selector = selectors.DefaultSelector()
        for each in self._left:
            selector.register(each, selectors.EVENT_READ, each)
        began = time.monotonic()
        for each in self._left:
            each.sendall(self._request)
        while self._left and time.monotonic() - began < _LIMIT_S:
            if not self.threads and time.monotonic() - began > _FUNCTION_S / 2:
                self.threads = at_half()
            for key, _ in selector.select(_FUNCTION_S / 4):
                sock: socket.socket = key.data
                self._take_answer(sock)
                if self._left[sock] == _CALLS - 1:
                    firsts.append(time.monotonic() - began)
                if self._left[sock]:
                    sock.sendall(self._request)
                else:
                    selector.unregister(sock)
                    sock.close()
                    del self._left[sock]
        for each in self._left:
            each.close()
        return firsts

    def _take_answer(self, sock: socket.socket) -> None:
        data = sock.recv(65_536)  # small, and written at once
        if not data.startswith(b"HTTP/1.1 200"):
            raise CallFailed(f"answered {data[:200]!r}")
        self._left[sock] -= 1
        self.unanswered -= 1


def render_scale(found: Mapping[str, Scale], callers: int) -> str:
    """Return the table, in Markdown."""
    lines = [
        f"| {callers:,} callers | first answers, s, median / last | server MB, before → after | "
        "threads | RabbitMQ MB | server CPU s | unanswered |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, scale in found.items():
        cells = (
            f"{scale.first_s:.2f} / {scale.last_first_s:.2f}",
            f"{scale.rss_mb[0]:.0f} → {scale.rss_mb[1]:.0f}",
            f"{scale.threads:,}",
            f"{scale.broker_mb[0]:.0f} → {scale.broker_mb[1]:.0f}",
            f"{scale.server_cpu_s:.2f}",
            f"{scale.unanswered:,}",
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
