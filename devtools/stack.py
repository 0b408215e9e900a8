"""What runs of the local stack, as it is written down for the next command."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from devtools.brokers import Broker, BrokerKind
from devtools.launch import is_ready
from devtools.ports import LOOPBACK
from devtools.processes import BackgroundProcess, write_whole
from lambda_protocol.address import Address
from lambda_protocol.environ import BrokerAddress

SERVER_TITLE = "Lambda Server"


class StateUnreadable(Exception):
    """What is written down is no record of ours; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of our programs, running in the background."""

    title: str
    port: int
    log: Path
    process: BackgroundProcess

    @property
    def url(self) -> str:
        """Where the part answers HTTP."""
        return Address(LOOPBACK, self.port).url

    def is_running(self) -> bool:
        """Return whether its process is alive; it may not be ready."""
        return self.process.is_alive()

    def is_ready(self) -> bool:
        """Return whether the part itself says that it can serve."""
        return is_ready(self.port)


@dataclass(slots=True, kw_only=True)
class Stack:
    """The broker in use and the parts, in the order in which they were started."""

    broker: Broker
    parts: list[Part] = field(default_factory=list)

    @classmethod
    def load(cls, file: Path) -> Self | None:
        """Return what ``save`` wrote, or None if nothing was. Raises StateUnreadable."""
        try:
            return cls._from_record(json.loads(file.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise StateUnreadable(
                f"{file} says what runs, and cannot be read ({error!r}). Stop the programs that "
                "are left by hand, and remove that file"
            ) from error

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Self:
        uri = record["broker"]["uri"]
        return cls(
            broker=Broker(
                kind=BrokerKind(record["broker"]["kind"]),
                address=BrokerAddress(uri=uri) if uri else None,
            ),
            parts=[
                Part(
                    title=part["title"],
                    port=part["port"],
                    log=Path(part["log"]),
                    process=BackgroundProcess.from_record(part["process"]),
                )
                for part in record["parts"]
            ],
        )

    @property
    def server_port(self) -> int | None:
        """Where the Lambda Server was started, if it was."""
        return next((part.port for part in self.parts if part.title == SERVER_TITLE), None)

    @property
    def function_names(self) -> set[str]:
        """The functions that were started."""
        return {part.title for part in self.parts if part.title != SERVER_TITLE}

    def holds(self, port: int) -> bool:
        """Return whether a running part listens on ``port``."""
        return any(part.port == port and part.is_running() for part in self.parts)

    def save(self, file: Path) -> None:
        """Write the stack down, readable by its owner alone: the broker's URI has a password."""
        record = {
            "broker": {
                "kind": self.broker.kind,
                "uri": self.broker.address.uri if self.broker.address else None,
            },
            "parts": [
                {
                    "title": part.title,
                    "port": part.port,
                    "log": str(part.log),
                    "process": part.process.to_record(),
                }
                for part in self.parts
            ],
        }
        write_whole(file, json.dumps(record, indent=2))
