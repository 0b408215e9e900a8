"""What runs during a soak: attacks and healthy callers in threads, and the measuring."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import psutil

from tests.acceptance.soak.attacks import Attack
from tests.acceptance.soak.stand import Stand
from tests.support import Client, is_alive

SAMPLE_EVERY_S: Final = 2.0
HEALTHY_EVERY_S: Final = 0.25
#: An answer this late is a failure, seconds; a call is refused after 30 s of waiting.
HEALTHY_LIMIT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one process uses."""

    rss_mb: float  #: 10⁶ bytes
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Figures:
        """Measure a process; raises ``psutil.Error`` when it is gone."""
        process = psutil.Process(pid)
        return cls(
            rss_mb=process.memory_info().rss / 1e6,
            descriptors=process.num_fds(),
            threads=process.num_threads(),
        )


class Repeated:
    """A thread that does something again and again until it is stopped."""

    def __init__(self, name: str, do: Callable[[], None], pause_s: float) -> None:
        self.name = name
        self._do = do
        self._pause_s = pause_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.is_set():
            self._do()
            self._is_over.wait(self._pause_s)

    def stop(self, limit_s: float) -> bool:
        """Let it end, and return whether it did."""
        self._is_over.set()
        self._thread.join(limit_s)
        return not self._thread.is_alive()


class HealthyCaller:
    """Calls steadily by one way, and checks that each answer is its own."""

    def __init__(self, stand: Stand, port: int, path: str, *, by_queue: bool) -> None:
        self.calls = 0
        self.failures_in_faults: Counter[str] = Counter()
        self.failures: list[str] = []  #: that no fault of RabbitMQ explains
        self.longest_s = 0.0
        self._stand = stand
        self._by_queue = by_queue
        self._path = path
        self._client = Client(port, HEALTHY_LIMIT_S)

    def call(self) -> None:
        """Call once."""
        self.calls += 1
        payload = json.dumps({"call": self.calls, "noise": random.random()}).encode()
        began = time.monotonic()
        try:
            answer = self._client.post(self._path, payload)
        except (OSError, http.client.HTTPException) as error:
            what = type(error).__name__
            self._client.close()
        else:
            what = str(answer.status) if answer.body != payload else ""
            if answer.status == 200 and what:
                what = f"another payload: {answer.body[:200]!r}"
        ended = time.monotonic()
        self.longest_s = max(self.longest_s, ended - began)
        if not what:
            return
        is_expected = what in ("404", "500", "502", "503")
        if self._by_queue and is_expected and self._stand.is_in_fault(began, ended):
            self.failures_in_faults[what] += 1
        else:
            self.failures.append(f"{what} after {ended - began:.1f} s at {time.strftime('%X')}")


class Load:
    """Everything that runs against a stand."""

    def __init__(self, stand: Stand, attacks: list[Attack], minutes: float) -> None:
        """Start measuring and the healthy callers; the attacks wait for :meth:`attack`."""
        self.stand = stand
        self.minutes = minutes
        self.attacks = attacks
        self.samples: dict[str, list[Figures]] = {name: [] for name in stand.pids}
        self.after: dict[str, Figures] = {}  #: when the attacks are over
        self._may_attack = threading.Event()
        self._rounds = [threading.Lock() for _ in attacks]  # held while one runs
        path = "/2015-03-31/functions/{}/invocations"
        queued, direct = path.format(stand.function), path.format(stand.direct.function_name)
        self.callers = {
            "through the server": HealthyCaller(stand, stand.server.port, queued, by_queue=True),
            "direct": HealthyCaller(stand, stand.direct.port, direct, by_queue=False),
        }
        self._threads = [Repeated("sampler", self._sample, SAMPLE_EVERY_S)]
        self._threads += [
            Repeated(name, caller.call, HEALTHY_EVERY_S) for name, caller in self.callers.items()
        ]
        self._attackers = [
            Repeated(attack.name, self._attacker(attack, lock), attack.pause_s)
            for attack, lock in zip(attacks, self._rounds, strict=True)
        ]

    def is_someone_gone(self) -> bool:
        """Return whether a process has ended that should not."""
        return not all(map(is_alive, self.stand.pids.values()))

    def attack(self) -> None:
        """Let the attacks go on."""
        self._may_attack.set()

    def pause(self, limit_s: float) -> list[str]:
        """Let the attacks rest; return those whose round did not end."""
        self._may_attack.clear()
        deadline = time.monotonic() + limit_s
        late = []
        for attack, lock in zip(self.attacks, self._rounds, strict=True):
            if lock.acquire(timeout=max(0, deadline - time.monotonic())):
                lock.release()
            else:
                late.append(attack.name)
        return late

    def stop_attacks(self, limit_s: float) -> list[str]:
        """End the attacks' threads; return what did not end."""
        late = self.pause(limit_s)
        return late + [each.name for each in self._attackers if not each.stop(limit_s)]

    def stop(self) -> None:
        """End the rest."""
        for thread in self._threads:
            thread.stop(HEALTHY_LIMIT_S)

    def _attacker(self, attack: Attack, lock: threading.Lock) -> Callable[[], None]:
        rng = random.Random(attack.name)

        def attack_once() -> None:
            if self._may_attack.wait(SAMPLE_EVERY_S):
                with lock:
                    if self._may_attack.is_set():
                        _count(attack, self.stand, rng)

        return attack_once

    def _sample(self) -> None:
        for name, pid in self.stand.pids.items():
            try:
                self.samples[name].append(Figures.of(pid))
            except psutil.Error:
                continue  # the verdict tells that it is gone


def _count(attack: Attack, stand: Stand, rng: random.Random) -> None:
    """Make one round of an attack, and count what came of each try."""
    tries = attack.round(stand, rng)
    while True:
        began = time.monotonic()
        try:
            outcome = next(tries, None)
        except Exception as error:  # the end of a connection, most of all
            outcome = type(error).__name__
        if outcome is None:
            return
        attack.outcomes[outcome] = attack.outcomes.get(outcome, 0) + 1
        ended = time.monotonic()
        is_known = outcome in attack.expected or outcome == 429
        if not is_known and not stand.is_in_fault(began, ended):
            attack.surprises.append(str(outcome)[:300])
