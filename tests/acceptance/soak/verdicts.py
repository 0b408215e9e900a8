"""What must hold when the attacks are over: each promise returns how it is broken, line by line."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Final
from unicodedata import bidirectional, category

from devtools.progress import OnWait, wait_until
from tests.acceptance.soak.load import Figures, Load
from tests.acceptance.soak.stand import SLOTS_OF_A_RAPID, TIMEOUT_S, Stand
from tests.support import LIMIT_S, ROOT, WebProgram, base_environ, is_alive, pids_of

#: How long what was begun may take to end: retries, keep-alive, connections of RabbitMQ, seconds.
SETTLE_LIMIT_S: Final = 90.0
#: The same for queues, seconds: what comes out of a quorum queue of delays while its target is
#: deleted, RabbitMQ keeps there for 3 minutes before it tries again.
#: Source: RabbitMQ, dead_letter_worker_publisher_confirm_timeout.
EMPTY_LIMIT_S: Final = 240.0
#: A shorter run says nothing about memory: the programs still warm up.
FLAT_FROM_MINUTES: Final = 5.0
MEMORY_GROWTH: Final = 1.10
MEMORY_GROWTH_MB: Final = 8.0
#: A connection to RabbitMQ, an environment's pipes, a caller: not one a round of anything.
SPARE: Final = 32

#: Source: Unicode Standard Annex 9, explicit formatting characters.
_DIRECTIONS: Final = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")

Broken = list[str]
Promise = Callable[[Load, OnWait], Broken]


def processes(load: Load, _on_wait: OnWait) -> Broken:
    """No process is replaced or ends."""
    return [f"{name} ({pid}) is gone" for name, pid in load.stand.pids.items() if not is_alive(pid)]


def memory(load: Load, _on_wait: OnWait) -> Broken:
    """Memory in the last third is at most 10 % or 8 MB over the middle third."""
    broken = []
    for name, samples in load.samples.items():
        _, middle, last = thirds([sample.rss_mb for sample in samples])
        if last > max(middle * MEMORY_GROWTH, middle + MEMORY_GROWTH_MB):
            broken.append(f"{name} grew from {middle:.1f} to {last:.1f} MB")
    return broken


def thirds(values: Sequence[float]) -> list[float]:
    """Return the medians of the first, middle and last third."""
    size = max(1, len(values) // 3)
    return [median(values[at : at + size]) for at in (0, size, len(values) - size)]


def descriptors_and_threads(load: Load, on_wait: OnWait) -> Broken:
    """Descriptors and threads are back where they began.

    The server keeps the threads that it used: these are compared with the first third.
    """
    limits = {}
    for name, samples in load.samples.items():
        early = samples[: len(samples) // 3]
        threads = max(s.threads for s in early) if name == "server" else samples[0].threads
        limits[name] = (samples[0].descriptors + SPARE, threads + SPARE)

    def over() -> Broken:
        broken = []
        for name, pid in load.stand.pids.items():
            now = load.after[name] = Figures.of(pid)
            for what, count, limit in zip(
                ("descriptors", "threads"),
                (now.descriptors, now.threads),
                limits[name],
                strict=True,
            ):
                if count > limit:
                    broken.append(f"{name} has {count} {what}, {limit} expected at most")
        return broken

    with contextlib.suppress(OSError):  # the verdict on processes tells
        wait_until(lambda: not over(), SETTLE_LIMIT_S, on_wait)
        return over()
    return []


def slots(load: Load, on_wait: OnWait) -> Broken:
    """As many calls as there are slots run at once."""
    stand = load.stand
    ways: list[tuple[WebProgram, str, int]] = [
        (stand.server, stand.function, SLOTS_OF_A_RAPID * len(stand.queued)),
        (stand.direct, stand.direct.function_name, SLOTS_OF_A_RAPID),
    ]
    return [
        f"{program.name}: fewer than {count} calls at once"
        for program, function, count in ways
        if not any(_run_at_once(stand, program, function, count, on_wait) for _ in range(3))
    ]


def _run_at_once(
    stand: Stand, program: WebProgram, function: str, count: int, on_wait: OnWait
) -> bool:
    """Return whether ``count`` calls were all running before the first of them could end."""
    folder = stand.node.folder
    marks = [folder / uuid.uuid4().hex for _ in range(count)]
    gate = folder / uuid.uuid4().hex
    with ThreadPoolExecutor(count) as pool:

        def call(mark: Path) -> bool:
            wish = (
                f'{{"do": "print_halves", "first": "1", "rest": "2\\n", '
                f'"wrote": "{mark}", "until": "{gate}"}}'
            )
            with program.client() as client:
                path = f"/2015-03-31/functions/{function}/invocations"
                answer = client.post(path, wish.encode())
                return answer.status == 200 and "X-Amz-Function-Error" not in answer.headers

        calls = pool.map(call, marks)
        wait_until(lambda: all(mark.exists() for mark in marks), TIMEOUT_S, on_wait)
        gate.touch()
        return all(calls)


def callers(load: Load, _on_wait: OnWait) -> Broken:
    """A healthy caller fails only while RabbitMQ was broken on purpose, and is told of it."""
    return [
        f"the caller {way}: {len(caller.failures)} failures, {failure}"
        for way, caller in load.callers.items()
        for failure in caller.failures[:1]
    ]


def attacks(load: Load, _on_wait: OnWait) -> Broken:
    """Every attack is made, and answered as it should be."""
    broken = [f"{attack.name}: was not made" for attack in load.attacks if not attack.outcomes]
    return broken + [
        f"{attack.name}: {len(attack.surprises)} unexpected, {surprise}"
        for attack in load.attacks
        for surprise in attack.surprises[:1]
    ]


def queues(load: Load, on_wait: OnWait) -> Broken:
    """Nothing waits but dead letters, and they are as many as rapid counted.

    rapid counts a letter before RabbitMQ confirms it: each fault may let it count one again.
    """
    stand = load.stand
    dead = f"{stand.function}.dead"

    def left() -> dict[str, int]:
        return {name: count for name, count in stand.queues().items() if count and name != dead}

    wait_until(lambda: not left(), EMPTY_LIMIT_S, on_wait)
    broken = [f"{name} still holds {count}" for name, count in left().items()]
    letters, counted = stand.queues().get(dead, 0), stand.dead_letters_counted()
    if letters + len(stand.faults) < counted:
        broken.append(f"{letters} dead letters, but rapid counted {counted}")
    return broken


def dead_letters_are_shown(load: Load, _on_wait: OnWait) -> Broken:
    """`lambda-server dead list` prints nothing that a terminal would obey."""
    function = load.stand.function
    done = subprocess.run(
        [*(sys.executable, "-m", "lambda_server", "dead", "list", "--limit", "2000"), function],
        env={**base_environ(), "AMQP_URI": load.stand.node.uri},
        cwd=ROOT,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode:
        return [f"dead list: {done.stderr.decode()[-300:]}"]
    obeyed = set(filter(_is_obeyed, done.stdout.decode()))
    return [f"dead list prints {obeyed - {chr(10)}}"] if obeyed > {"\n"} else []


def _is_obeyed(char: str) -> bool:
    """Return whether it is a control character, or changes the order or the lines of a text."""
    is_direction = char in "\u061c\u200e\u200f" or bidirectional(char) in _DIRECTIONS
    return is_direction or category(char) in ("Cc", "Zl", "Zp")


def logs(load: Load, _on_wait: OnWait) -> Broken:
    """No traceback runs through the product."""
    found = load.stand.tracebacks()
    return [f"{len(found)} lines of tracebacks, {found[0]}"] if found else []


def stop(load: Load, _on_wait: OnWait) -> Broken:
    """Every program ends with 0 when it is told to, and leaves no process, not a hidden one."""
    stand, broken = load.stand, []
    for program in [stand.server, *stand.rapids]:
        code = program.stop(2 * LIMIT_S)
        if code != 0:
            broken.append(f"{program.name} ended with {code}")
        if left := program.descendants():
            broken.append(f"{program.name} left {left}")
    hidden = pids_of(stand.orphan_mark)
    for pid in hidden:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    return broken + ([f"hidden processes are left: {hidden}"] if hidden else [])


def is_idle(load: Load, on_wait: OnWait) -> Broken:
    """What runs comes down to nothing in each pause."""
    if wait_until(load.stand.is_idle, SETTLE_LIMIT_S, on_wait):
        return []
    return [f"invocations still ran {SETTLE_LIMIT_S:g} s into the pause of {time.strftime('%X')}"]


#: Judged at the end, in this order: the last stops the programs. The first line says what it is.
PROMISES: Final = (
    processes,
    memory,
    descriptors_and_threads,
    slots,
    callers,
    attacks,
    queues,
    dead_letters_are_shown,
    logs,
    stop,
)


def words(promise: Promise) -> str:
    """Return what is promised, in words."""
    return str(promise.__doc__).partition(".")[0]
