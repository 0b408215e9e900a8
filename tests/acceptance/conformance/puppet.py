"""A rapid whose processes do nothing: the test speaks the Runtime and Extensions API for them."""

from __future__ import annotations

import json
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.acceptance.conformance.doors import Calls
from tests.support import LIMIT_S, Answer, Client, Rapid, RawConnection, wait_until

RUNTIME: Final = "/2018-06-01/runtime"
NEXT: Final = f"{RUNTIME}/invocation/next"
EXTENSION: Final = "/2020-01-01/extension"
TELEMETRY: Final = "/2022-07-01/telemetry"
LOGS: Final = "/2020-08-15/logs"
#: What an extension's file holds: it lives, and leaves the talking to the test.
IDLE_SCRIPT: Final = "#!/bin/sh\nexec sleep 600\n"


@dataclass(frozen=True, slots=True)
class Turn:
    """A call that the test, as runtime, has taken."""

    event: Answer  #: what ``next`` answered
    caller: Future[Answer]

    @property
    def request_id(self) -> str:
        """The id the runtime was given."""
        return str(self.event.headers["Lambda-Runtime-Aws-Request-Id"])

    @property
    def invocation_id(self) -> str:
        """The id of this attempt."""
        return str(self.event.headers["Lambda-Runtime-Invocation-Id"])

    @property
    def response_path(self) -> str:
        """Where the answer goes."""
        return f"{RUNTIME}/invocation/{self.request_id}/response"

    @property
    def error_path(self) -> str:
        """Where an error goes."""
        return f"{RUNTIME}/invocation/{self.request_id}/error"

    def outcome(self) -> Answer:
        """Return what the caller got."""
        return self.caller.result(LIMIT_S)


class Puppet:
    """The rapid, with one keep-alive connection of its runtime."""

    def __init__(self, calls: Calls, **environ: str) -> None:
        """Start it; ``environ`` are rapid's settings."""
        settings = {"RAPID_INIT_TIMEOUT": "600", "AWS_LAMBDA_FUNCTION_TIMEOUT": "20", **environ}
        self._calls = calls
        self.rapid = Rapid("sleep", "600", flags=(), ready=False, **settings)
        self.rapid.__enter__()
        self.runtime = self.rapid.runtime_api()
        self._extensions: list[ExtensionPuppet] = []
        directory = Path(settings.get("RAPID_EXTENSIONS_DIR", "/nonexistent"))
        self._processes = len(list(directory.iterdir())) if directory.exists() else 1
        wait_until(self._is_there, "the environment and its first processes")

    def take(self, payload: bytes | str = b"{}", **headers: str) -> Turn:
        """Have the function called, and take the call as its runtime."""
        caller = self.call(payload, **headers)
        return Turn(self.runtime.get(NEXT), caller)

    def call(self, payload: bytes | str = b"{}", **headers: str) -> Future[Answer]:
        """Have the function called, and take nothing."""
        return self._calls.start(self.rapid, payload, **headers)

    def park(self) -> RawConnection:
        """Send ``next`` on a connection of its own and do not wait for an answer."""
        connection = self.raw()
        connection.send(f"GET {NEXT} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return connection

    def raw(self) -> RawConnection:
        """Return a raw connection to the Runtime API."""
        return RawConnection(self.rapid.runtime_api_port)

    def register(self, name: str | None, body: Any = None, **headers: str) -> Answer:
        """Register an extension; ``body`` is sent as JSON."""
        if name is not None:
            headers["Lambda_Extension_Name"] = name
        with self.rapid.runtime_api() as client:
            return client.post(f"{EXTENSION}/register", json.dumps(body or {}).encode(), **headers)

    def extension(self, name: str, events: list[str] | None) -> ExtensionPuppet:
        """Register an extension and play it."""
        answer = self.register(name, {"events": events})
        assert answer.status == 200, answer.body
        identifier = str(answer.headers["Lambda-Extension-Identifier"])
        extension = ExtensionPuppet(self.rapid.runtime_api(), identifier)
        self._extensions.append(extension)
        return extension

    def _is_there(self) -> bool:
        assert self.rapid.exit_code is None, self.rapid.log
        is_attached = self.runtime.get("/2018-06-01/ping").status == 200
        return is_attached and len(self.rapid.descendants()) >= self._processes

    def close(self) -> None:
        """End it."""
        self.runtime.close()
        for extension in self._extensions:
            extension.client.close()
        self.rapid.close()


@dataclass(frozen=True, slots=True)
class ExtensionPuppet:
    """A registered extension that the test plays, on a connection of its own."""

    client: Client
    identifier: str

    def next(self) -> Answer:
        """Ask for the next event and wait for it."""
        return self.client.get(
            f"{EXTENSION}/event/next", Lambda_Extension_Identifier=self.identifier
        )

    def subscribe(self, path: str, body: Any) -> Answer:
        """Subscribe to telemetry or logs."""
        headers = {"Lambda-Extension-Identifier": self.identifier}
        return self.client.request("PUT", path, json.dumps(body).encode(), headers)

    def park(self, connection: RawConnection) -> RawConnection:
        """Ask for the next event on ``connection`` and do not wait for an answer."""
        connection.send(
            f"GET {EXTENSION}/event/next HTTP/1.1\r\nHost: x\r\n"
            f"Lambda-Extension-Identifier: {self.identifier}\r\n\r\n".encode()
        )
        return connection

    def post_error(self, kind: str, **headers: str) -> Answer:
        """Post to init/error or exit/error."""
        headers["Lambda_Extension_Identifier"] = self.identifier
        return self.client.post(f"{EXTENSION}/{kind}/error", b"{}", **headers)


def make_extension(directory: Path, name: str, text: str = IDLE_SCRIPT) -> None:
    """Put an executable into ``directory``."""
    directory.mkdir(exist_ok=True)
    file = directory / name
    file.write_text(text)
    file.chmod(0o755)
