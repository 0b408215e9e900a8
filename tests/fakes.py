"""What stands behind the Lambda Server in its tests: an invoker, an instance, a WSGI server."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

import pika

from devtools.ports import LOOPBACK
from lambda_protocol.address import Address
from lambda_protocol.http1 import Request, RequestReader
from lambda_protocol.http_head import BadRequestError
from lambda_protocol.http_peer import HttpPeer
from lambda_protocol.invocation import Invocation, Outcome
from lambda_protocol.invoke_amqp import encode_outcome
from lambda_protocol.memory_broker import MemoryBroker
from lambda_protocol.response_stream import Streamed
from tests.support import LIMIT_S, Closing, wait_until


class FakeInvoker:
    """Keeps the invocations that it is given, and does with each what ``result`` says."""

    def __init__(self) -> None:
        self.invocations: list[Invocation] = []
        self.result: Outcome | Exception = Outcome(payload=b'"done"')
        self.streamed: Streamed | None = None
        self.lack: str | None = None

    def silent(self) -> tuple[str, ...]:
        """Return no function."""
        return ()

    def invoke(self, invocation: Invocation, caller: HttpPeer | None = None) -> Outcome:
        """Keep ``invocation``, and return or raise ``result``."""
        self.invocations.append(invocation)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def stream(self, invocation: Invocation, caller: HttpPeer | None = None) -> Streamed:
        """Keep ``invocation``, and return ``streamed``, or raise ``result``."""
        outcome = self.invoke(invocation, caller)
        return self.streamed or Streamed.whole(outcome)

    def missing(self) -> str | None:
        """Return ``lack``."""
        return self.lack


# --- an instance of a function, in direct mode

#: Returns the bytes that answer a request; None hangs up instead.
Reply = Callable[[Request], bytes | None]


def http_answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return a response as it goes over the wire."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def echo(request: Request) -> bytes | None:
    """Answer the payload itself."""
    return http_answer(request.body, "Content-Type: application/json")


class FakeInstance(Closing):
    """An HTTP server of few lines in a rapid's place; counts what reaches it. Thread-safe."""

    def __init__(self, reply: Reply = echo) -> None:
        self.reply = reply
        self.hangs_up_after_answer = False
        self.requests: list[Request] = []  #: calls
        self.health_checks: list[Request] = []
        self.connections = 0
        self._gate = threading.Event()
        self._gate.set()
        self._open: set[socket.socket] = set()  # guarded by _lock
        self._lock = threading.Lock()
        self._listener = socket.create_server((LOOPBACK, 0), backlog=128)
        threading.Thread(target=self._accept, name="instance-accept", daemon=True).start()

    @property
    def url(self) -> str:
        """The base URL for LAMBDA_ENDPOINTS."""
        return self.address.url

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a server whose function ``echo`` it is."""
        return {"LAMBDA_ENDPOINTS": f"echo={self.url}"}

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address(LOOPBACK, self._listener.getsockname()[1])

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        with self._lock:
            return len(self._open)

    def hold(self) -> None:
        """Answer nothing until :meth:`release`."""
        self._gate.clear()

    def release(self) -> None:
        """Answer what is held, and everything from now on."""
        self._gate.set()

    def wait_for(self, count: int) -> None:
        """Wait until so many requests have come."""
        wait_until(lambda: len(self.requests) >= count, f"{count} requests at the instance")

    def close(self) -> None:
        """Be gone: listen no more, and reset what is open."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._gate.set()
        with self._lock:
            left = list(self._open)
        for sock in left:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: self.open_connections == 0, "the end of the instance's connections")

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with self._lock:
                self._open.add(sock)
            threading.Thread(target=self._serve, args=(sock,), name="instance", daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = RequestReader(sock, max_body_bytes=8 * 1_048_576)
        with contextlib.suppress(OSError, BadRequestError), sock:
            while (request := reader.read_head()) is not None:
                reader.read_body(request)
                (self.requests if request.method == "POST" else self.health_checks).append(request)
                answer, is_last = self.reply(request), self.hangs_up_after_answer
                self._gate.wait(LIMIT_S)
                if answer is None:
                    break
                sock.sendall(answer)
                if is_last:
                    break
        with self._lock:
            self._open.discard(sock)


# --- an instance of a function, behind a broker


class QueuedInstance(Closing):
    """What echoes the calls in the queue ``echo`` of a broker in memory, for a server that polls.

    Its thread is as quick as the broker. Thread-safe.
    """

    def __init__(self) -> None:
        self.requests: list[bytes] = []  #: payloads of calls
        self.answer: Callable[[bytes], Outcome] = lambda body: Outcome(payload=body)
        self._broker = MemoryBroker()
        self._is_held = False  # the thread's, as is _held
        self._held: list[tuple[pika.BasicProperties, bytes]] = []
        self._connection = pika.BlockingConnection(pika.URLParameters(self._broker.uri))
        self._channel = self._connection.channel()
        for queue in ("echo", "echo.events"):
            self._channel.queue_declare(queue)
        self._channel.basic_consume("echo", self._on_call, auto_ack=True)
        self._thread = threading.Thread(target=self._channel.start_consuming, name="instance")
        self._thread.start()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a server whose function ``echo`` it is."""
        return {"AMQP_URI": self._broker.uri, "LAMBDA_WORKER": "polling"}

    @property
    def port(self) -> int:
        """The broker's."""
        return int(self._broker.uri.rpartition(":")[2].partition("/")[0])

    def set_alarm(self, reason: str | None) -> None:
        """Let the broker have an alarm, or none any more."""
        self._broker.set_alarm(reason)

    @property
    def connections(self) -> int:
        """How many connections the broker has, this one included."""
        return self._broker.connections

    def hold(self) -> None:
        """Answer nothing until :meth:`release`."""
        self._do(lambda: setattr(self, "_is_held", True))

    def release(self) -> None:
        """Answer what is held, and everything from now on."""
        self._do(self._answer_all)

    def wait_for(self, count: int) -> None:
        """Wait until so many calls have come."""
        wait_until(lambda: len(self.requests) >= count, f"{count} calls at the instance")

    def close(self) -> None:
        """Be gone, and the broker too."""
        self._do(self._channel.stop_consuming)
        self._thread.join(LIMIT_S)
        self._connection.close()
        self._broker.close()

    def _do(self, work: Callable[[], object]) -> None:
        is_done = threading.Event()

        def do() -> None:
            work()
            is_done.set()

        self._connection.add_callback_threadsafe(do)
        assert is_done.wait(LIMIT_S)

    def _on_call(self, _channel: object, _method: object, properties: Any, body: bytes) -> None:
        self.requests.append(body)
        self._held.append((properties, body))
        if not self._is_held:
            self._answer_all()

    def _answer_all(self) -> None:
        self._is_held = False
        for properties, body in self._held:
            outcome = self.answer(body)
            encoded = encode_outcome(properties.correlation_id, outcome)
            reply = pika.BasicProperties(
                correlation_id=encoded.correlation_id, headers=dict(encoded.headers)
            )
            self._channel.basic_publish("", properties.reply_to or "", outcome.payload, reply)
        self._held.clear()


#: Either of the two.
Instance = FakeInstance | QueuedInstance


# --- a WSGI server


class WsgiApp(Protocol):
    """What a WSGI server calls."""

    def __call__(self, environ: dict[str, Any], start_response: Any, /) -> Iterable[bytes]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WsgiAnswer:
    """What an application answered."""

    status: int
    headers: Mapping[str, str]  #: by lower-case name
    body: bytes
    head: tuple[str, list[tuple[str, str]]]  #: status line and headers, as they were given


class Body(io.BytesIO):
    """``wsgi.input`` that counts how much of it is read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.bytes_read += len(data)
        return data


def call(
    app: WsgiApp,
    path: str,
    body: bytes | Body = b"",
    *,
    method: str = "POST",
    length: int | str | None = -1,
    headers: Mapping[str, str] | None = None,
) -> WsgiAnswer:
    """Call ``app`` as a server does.

    ``length`` is the Content-Length if it is not the body's own; None sends the body chunked.
    """
    target, _, query = path.partition("?")
    stream = body if isinstance(body, Body) else Body(body)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(target).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": stream,
        "wsgi.input_terminated": True,
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if length is None:
        environ["HTTP_TRANSFER_ENCODING"] = "chunked"
    else:
        environ["CONTENT_LENGTH"] = str(len(stream.getvalue()) if length == -1 else length)
    for name, value in (headers or {}).items():
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(
        status: str, headers: list[tuple[str, str]], exc_info: object = None
    ) -> Callable[[bytes], object]:
        started.append((status, headers))
        return lambda data: None

    chunks = app(environ, start_response)
    data = b"".join(chunks)
    if hasattr(chunks, "close"):
        chunks.close()
    status, pairs = started[-1]
    return WsgiAnswer(
        status=int(status.split()[0]),
        headers={name.lower(): value for name, value in pairs},
        body=data,
        head=(status, pairs),
    )


def invoke_path(name: str = "echo", query: str = "") -> str:
    """Return the path of Invoke."""
    return f"/2015-03-31/functions/{name}/invocations" + (f"?{query}" if query else "")
