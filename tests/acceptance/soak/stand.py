"""What is under attack: RabbitMQ, a Lambda Server, two rapids of one function, a rapid alone."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from devtools.rabbitmq_node import RabbitmqNode
from tests.acceptance.system.amqp import AmqpClient
from tests.endless import EndlessPeer
from tests.extensions import RecorderExtension
from tests.support import (
    MISBEHAVE,
    Program,
    Rapid,
    Server,
    child_states,
    running_now,
    unique_name,
    wait_until,
)

TIMEOUT_S: Final = 4
SLOTS_OF_A_RAPID: Final = 2
#: How long all consumers may take to be back after a fault, seconds.
RECOVERY_LIMIT_S: Final = 60.0
#: A call may still be answered from before the fault was over, seconds.
_AFTERMATH_S: Final = 2.0
_SETTINGS: Final[dict[str, Any]] = {
    "AWS_LAMBDA_FUNCTION_TIMEOUT": str(TIMEOUT_S),
    "RAPID_MAX_CONCURRENCY": str(SLOTS_OF_A_RAPID),
    "RAPID_MAX_RETRY_ATTEMPTS": "1",
    "RAPID_EVENT_RETRY_DELAYS": "1",
    "RAPID_EVENT_BACKOFF": "1,2",
}
#: A line of a traceback that runs through code of the product; functions fail on purpose.
_OUR_TRACEBACK: Final = re.compile(
    rb'File "[^"]*/(?:rapid|lambda_server|lambda_protocol|site-packages)/[^"]*", line .*'
)


@dataclass
class Stand:
    """All that is under attack. Any thread, but for starting and stopping."""

    node: RabbitmqNode
    server: Server
    queued: list[Rapid]  #: of one function, behind RabbitMQ
    direct: Rapid
    worker_pid: int
    rabbitmq_version: str
    orphan_mark: str = field(default_factory=lambda: unique_name("orphan"))
    #: When faults of RabbitMQ were made and their effects over, monotonic seconds.
    faults: list[tuple[float, float]] = field(default_factory=list)
    _one_fault: threading.Lock = field(default_factory=threading.Lock)

    @property
    def function(self) -> str:
        """The function behind RabbitMQ."""
        return self.queued[0].function_name

    @property
    def rapids(self) -> list[Rapid]:
        """Every rapid."""
        return [*self.queued, self.direct]

    @property
    def pids(self) -> dict[str, int]:
        """The processes that are measured, and must live to the end."""
        return {
            "server": self.worker_pid,
            "rapid 1": self.queued[0].pid,
            "rapid 2": self.queued[1].pid,
            "rapid alone": self.direct.pid,
        }

    def door(self, rng: random.Random) -> tuple[int, str]:
        """Return port and path of either way to a function."""
        program = rng.choice([self.server, self.direct])
        name = self.function if program is self.server else self.direct.function_name
        return program.port, f"/2015-03-31/functions/{name}/invocations"

    @contextlib.contextmanager
    def fault(self) -> Iterator[None]:
        """Make one fault of RabbitMQ in the block, and wait until both rapids consume again."""
        with self._one_fault:
            began = time.monotonic()
            self.faults.append((began, began + 2 * RECOVERY_LIMIT_S))
            try:
                yield
                wait_until(self.is_whole, "the consumers to be back", RECOVERY_LIMIT_S)
            finally:
                self.faults[-1] = (began, time.monotonic() + _AFTERMATH_S)

    def is_whole(self) -> bool:
        """Return whether every program is ready and both rapids consume."""
        with contextlib.suppress(Exception), AmqpClient(self.node.uri) as amqp:
            return amqp.consumers(self.function) == len(self.queued) and all(
                program.get("/readyz").status == 200 for program in [self.server, *self.rapids]
            )
        return False

    def is_in_fault(self, began: float, ended: float) -> bool:
        """Return whether a fault of RabbitMQ may have touched what was done in that time."""
        return any(began <= end and ended >= start for start, end in list(self.faults))

    def is_idle(self) -> bool:
        """Return whether no invocation runs anywhere."""
        return not any(map(running_now, self.rapids))

    def queues(self) -> dict[str, int]:
        """Return how many messages each queue holds."""
        lines = self.node.ctl("list_queues", "name", "messages").splitlines()
        rows = [line.split("\t") for line in lines]
        return {name: int(count) for name, count in rows if count.isdigit()}

    def dead_letters_counted(self) -> int:
        """Return how many dead letters the rapids say they have written."""
        text = b"\n".join(rapid.get("/metrics").body for rapid in self.queued)
        counts = re.findall(rb"^lambda_dead_letters_total\{.*\} (\S+)$", text, re.MULTILINE)
        return int(sum(map(float, counts)))

    def tracebacks(self) -> list[str]:
        """Return the lines of tracebacks through the product, of every log."""
        programs: list[Program] = [self.server, *self.rapids]
        return [
            f"{program.name}: {line.decode(errors='replace')}"
            for program in programs
            for log in (program.stdout, program.stderr)
            for line in _OUR_TRACEBACK.findall(log)
        ]


@contextlib.contextmanager
def start_stand(folder: Path) -> Iterator[Stand]:
    """Give all of it, ready; on the way out no process is left, were one to hide."""
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(RabbitmqNode(folder / "rabbitmq"))
        function = unique_name("soak")
        by_queue = {"AWS_LAMBDA_FUNCTION_NAME": function, "RAPID_AMQP_URI": node.uri, **_SETTINGS}
        queued = [stack.enter_context(Rapid(MISBEHAVE, **by_queue)) for _ in range(2)]
        destination = stack.enter_context(EndlessPeer("chunks"))
        subscriber = stack.enter_context(EndlessPeer("interim answers", is_slow=True))
        subscription = {
            "schemaVersion": "2022-12-13",
            "types": ["platform", "function", "extension"],
            "destination": {
                "protocol": "HTTP",
                "URI": f"http://sandbox.localdomain:{subscriber.address.port}",
            },
        }
        extension = {
            **RecorderExtension(folder).environ,
            "RECORDER_FILE": os.devnull,
            "RECORDER_EVENTS": "",
            "RECORDER_SUBSCRIBE": json.dumps(subscription),
        }
        settings = {"RAPID_ON_FAILURE": destination.address.url, **extension, **_SETTINGS}
        direct = stack.enter_context(Rapid(MISBEHAVE, **settings))
        server = stack.enter_context(Server(AMQP_URI=node.uri))
        (worker_pid,) = child_states(server.pid)
        yield Stand(
            node=node,
            server=server,
            queued=queued,
            direct=direct,
            worker_pid=worker_pid,
            rabbitmq_version=node.ctl("version").strip(),
        )
