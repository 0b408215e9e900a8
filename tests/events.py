"""What tests of asynchronous invocations share: what was attempted, and where records go."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from devtools.ports import LOOPBACK
from tests import support

#: A runtime that writes down what it attempts, and does what the event says.
CHRONICLE: Final = str(Path(__file__).parent / "functions" / "chronicle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of an event."""

    at: float  #: epoch seconds
    instance: int  #: rapid's process
    request_id: str
    context: str | None
    event: Any


class Chronicle:
    """The file that the function ``chronicle`` writes."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "chronicle"
        self.gate = folder / "gate"

    @property
    def environ(self) -> dict[str, Any]:
        """What the function's rapid has to be given; retries come soon."""
        return {"CHRONICLE": str(self.file), "RAPID_EVENT_RETRY_DELAYS": "0.2,0.4"}

    @property
    def attempts(self) -> list[Attempt]:
        """Every attempt so far."""
        lines = self.file.read_bytes().splitlines() if self.file.exists() else []
        return [Attempt(**json.loads(line)) for line in lines]

    @property
    def held(self) -> dict[str, Any]:
        """An event that is answered after :meth:`open`."""
        return {"until": str(self.gate)}

    def open(self) -> None:
        """Let every held event be answered."""
        self.gate.touch()

    def wait_for(self, count: int) -> list[Attempt]:
        """Wait until so many attempts have begun, and return them."""
        support.wait_until(lambda: len(self.attempts) >= count, f"{count} attempts")
        return self.attempts


class Recorder:
    """A destination by HTTP: keeps what is posted to it."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.records: list[Any] = []
        self.paths: list[str] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                recorder.paths.append(self.path)
                recorder.records.append(json.loads(body))
                self.send_response(recorder.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address for RAPID_ON_SUCCESS or RAPID_ON_FAILURE."""
        return f"http://{LOOPBACK}:{self._server.server_port}/records?of=events"

    def wait_for(self, count: int = 1) -> list[Any]:
        """Wait for so many records, and return them."""
        support.wait_until(lambda: len(self.records) >= count, f"{count} records")
        return self.records

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
