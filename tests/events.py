"""What tests of asynchronous invocations share: what was attempted, and where records go."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests import support
from tests.http_listener import HttpListener

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
        return [Attempt(**json.loads(line)) for line in support.whole_lines(self.file)]

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


class Recorder(HttpListener):
    """A destination by HTTP."""

    @property
    def records(self) -> list[Any]:
        """What was posted."""
        return [json.loads(each.body) for each in list(self.deliveries)]

    @property
    def url(self) -> str:
        """The address for RAPID_ON_SUCCESS or RAPID_ON_FAILURE."""
        return f"{self.address.url}/records?of=events"

    def wait_for(self, count: int = 1) -> list[Any]:
        """Wait for so many records, and return them."""
        support.wait_until(lambda: len(self.records) >= count, f"{count} records")
        return self.records
