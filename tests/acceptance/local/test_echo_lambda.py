from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from devtools.ports import LOOPBACK

_EXAMPLE = Path(__file__).resolve().parent.parent.parent.parent / "examples" / "echo-lambda"


class FakeRuntimeApi(ThreadingHTTPServer):
    """Hands out one payload after another, and keeps what the runtime posts."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((LOOPBACK, 0), _Routes)
        self.payloads: queue.Queue[bytes] = queue.Queue()
        self.posted: queue.Queue[tuple[str, object]] = queue.Queue()
        self.connections = 0


class _Routes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeRuntimeApi

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        assert self.path == "/2018-06-01/runtime/invocation/next"
        headers = {
            "Lambda-Runtime-Aws-Request-Id": "id-1",
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:0:function:f",
            "Lambda-Runtime-Deadline-Ms": "33000000000000",
            "Lambda-Runtime-Trace-Id": "Root=1",
        }
        self._answer(200, self.server.payloads.get(timeout=30), headers)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.removeprefix("/2018-06-01/runtime")
        self.server.posted.put((path, json.loads(body)))
        self._answer(202, b'{"status":"OK"}\n', {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def api() -> Iterator[FakeRuntimeApi]:
    with FakeRuntimeApi() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.payloads.put(b"{}")  # frees the runtime's parked request
        server.shutdown()
        thread.join(5)


@pytest.fixture
def runtime(api: FakeRuntimeApi, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The bootstrap, with a handler of the test's own."""
    (tmp_path / "mine.py").write_text(
        "import os\n"
        "def handler(event, context):\n"
        "    if event == 'raise': raise ValueError('boom')\n"
        "    if event == 'unserialisable': return object()\n"
        "    left = context.get_remaining_time_in_millis() > 0\n"
        "    return [event, context.aws_request_id, left, os.environ['_X_AMZN_TRACE_ID']]\n"
    )
    with _start(api, _HANDLER="mine.handler", LAMBDA_TASK_ROOT=str(tmp_path)) as process:
        yield process
        process.kill()


@pytest.mark.usefixtures("runtime")
def test_the_handler_gets_event_and_context_and_its_result_is_posted(api: FakeRuntimeApi) -> None:
    api.payloads.put(b'{"a": 1}')

    assert api.posted.get(timeout=10) == (
        "/invocation/id-1/response",
        [{"a": 1}, "id-1", True, "Root=1"],
    )


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize(
    ("payload", "error_type"),
    [
        pytest.param(b'"raise"', "ValueError", id="handler raises"),
        pytest.param(b'"unserialisable"', "TypeError", id="result is no JSON"),
        pytest.param(b"{", "JSONDecodeError", id="event is no JSON"),
    ],
)
def test_an_error_is_posted_and_the_next_invocation_served_on_the_same_connection(
    api: FakeRuntimeApi, payload: bytes, error_type: str
) -> None:
    api.payloads.put(payload)
    api.payloads.put(b'"after"')

    path, error = api.posted.get(timeout=10)
    assert path == "/invocation/id-1/error"
    assert isinstance(error, dict)
    assert sorted(error) == ["errorMessage", "errorType", "stackTrace"]
    assert error["errorType"] == error_type
    assert api.posted.get(timeout=10)[0] == "/invocation/id-1/response"
    assert api.connections == 1


def test_a_handler_that_cannot_be_loaded_is_an_init_error(api: FakeRuntimeApi) -> None:
    with _start(api, _HANDLER="missing.handler") as process:
        path, error = api.posted.get(timeout=10)

        assert path == "/init/error"
        assert isinstance(error, dict)
        assert error["errorType"] == "ModuleNotFoundError"
        assert process.wait(timeout=10) == 1


def test_the_function_echoes(api: FakeRuntimeApi) -> None:
    with _start(api) as process:
        api.payloads.put(b'{"hello": "world"}')

        assert api.posted.get(timeout=10) == ("/invocation/id-1/response", {"hello": "world"})
        process.kill()


def _start(api: FakeRuntimeApi, **settings: str) -> subprocess.Popen[bytes]:
    environ = {"AWS_LAMBDA_RUNTIME_API": f"{LOOPBACK}:{api.server_port}", **settings}
    return subprocess.Popen(
        [sys.executable, _EXAMPLE / "bootstrap"],
        env={"PATH": os.environ["PATH"], **environ},
        stderr=subprocess.DEVNULL,
    )
