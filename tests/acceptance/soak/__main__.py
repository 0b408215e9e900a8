"""Attack everything at once for ten minutes, judge what is left, and write the soak page."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Final

from devtools.interrupts import exit_with
from devtools.progress import Step, wait_until
from tests.acceptance.soak import verdicts
from tests.acceptance.soak.attacks import all_attacks
from tests.acceptance.soak.load import Load
from tests.acceptance.soak.page import DOCUMENT, as_page
from tests.acceptance.soak.stand import RECOVERY_LIMIT_S, start_stand
from tests.support import LIMIT_S, ROOT

#: From how many minutes on a run is worth a page.
WRITTEN_FROM: Final = 10.0
#: How many times the attacks pause, so that what runs can come down to nothing.
CYCLES: Final = 10
SHORTEST_CYCLE_S: Final = 20.0
#: How long a round of an attack may take at most: the slowest wait for RabbitMQ.
ROUND_LIMIT_S: Final = 2 * RECOVERY_LIMIT_S


def main() -> int:
    """Return 0 when every promise is kept."""
    parser = argparse.ArgumentParser(description=__doc__, prog="make soak")
    parser.add_argument("minutes", type=float, nargs="?", default=10.0)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory(prefix="soak-") as name, contextlib.ExitStack() as stack:
        with Step("start RabbitMQ, the server and three rapids"):
            stand = stack.enter_context(start_stand(Path(name)))
        load = Load(stand, all_attacks(), minutes)
        verdict = _soak(load)
    page = as_page(load, verdict)
    print(page)
    if minutes >= WRITTEN_FROM:
        DOCUMENT.write_text(page)
        print(f"Written to {DOCUMENT.relative_to(ROOT)}.")
    return 1 if any(verdict.values()) else 0


def _soak(load: Load) -> dict[str, list[str]]:
    """Attack, pause, attack; then judge. Returns each promise with the lines that break it."""
    in_pauses: list[str] = []
    end = time.monotonic() + load.minutes * 60
    cycle_s = max(SHORTEST_CYCLE_S, load.minutes * 60 / CYCLES)
    with Step("measure at rest") as step:
        wait_until(lambda: all(map(len, load.samples.values())), LIMIT_S, step.tick)
    while (left_s := end - time.monotonic()) > 1 and not load.is_someone_gone():
        with Step(f"attack, {left_s:.0f} s to go") as step:
            load.attack()
            wait_until(load.is_someone_gone, min(cycle_s, left_s), step.tick)
            in_pauses += [f"{name} did not end its round" for name in load.pause(ROUND_LIMIT_S)]
            in_pauses += verdicts.is_idle(load, step.tick)
            step.result(_summary(load))
    verdict = {verdicts.words(verdicts.is_idle): in_pauses}
    with Step("let it settle, and judge") as step:
        in_pauses += [f"{name} did not end" for name in load.stop_attacks(ROUND_LIMIT_S)]
        load.stop()
        for promise in verdicts.PROMISES:
            if promise is verdicts.memory and load.minutes < verdicts.FLAT_FROM_MINUTES:
                continue
            try:
                broken = promise(load, step.tick)
            except Exception as error:  # which is no reason to lose the other verdicts
                broken = [f"it could not be judged: {error!r}"[:500]]
            verdict[verdicts.words(promise)] = broken
    return verdict


def _summary(load: Load) -> str:
    tries = sum(sum(attack.outcomes.values()) for attack in load.attacks)
    calls = sum(caller.calls for caller in load.callers.values())
    sizes = ", ".join(f"{name} {s[-1].rss_mb:.0f} MB" for name, s in load.samples.items() if s)
    return f"{tries} tries of attacks, {calls} healthy calls, {sizes}"


if __name__ == "__main__":
    exit_with(main)
