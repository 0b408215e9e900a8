"""Attack everything at once for ten minutes, judge what is left, and write docs/SOAK.md."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Final

from scripts.interrupts import exit_with
from scripts.progress import Step, wait_until
from tests.soak import verdicts
from tests.soak.attacks import all_attacks
from tests.soak.load import Load
from tests.soak.page import DOCUMENT, as_text, write_page
from tests.soak.stand import RECOVERY_LIMIT_S, Stand, start_stand
from tests.support import ROOT

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
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        with Step("start RabbitMQ, the server and three rapids"):
            running = start_stand(Path(name))
            stand = running.__enter__()
        try:
            load, verdict = _soak(stand, minutes)
        finally:
            running.__exit__(None, None, None)
    print(as_text(load, verdict))
    if minutes >= WRITTEN_FROM:
        write_page(load, verdict, minutes)
        print(f"Written to {DOCUMENT.relative_to(ROOT)}.")
    return 1 if any(verdict.values()) else 0


def _soak(stand: Stand, minutes: float) -> tuple[Load, dict[str, list[str]]]:
    """Attack, pause, attack; then judge. Returns each promise with the lines that break it."""
    load = Load(stand, all_attacks())
    verdict: dict[str, list[str]] = {"What runs comes down to nothing in each pause": []}
    (in_pauses,) = verdict.values()
    end = time.monotonic() + minutes * 60
    cycle_s = max(SHORTEST_CYCLE_S, minutes * 60 / CYCLES)
    while (left_s := end - time.monotonic()) > 1 and not verdicts.processes(stand):
        with Step(f"attack, {left_s:.0f} s to go") as step:
            load.attack()
            wait_until(lambda: bool(verdicts.processes(stand)), min(cycle_s, left_s), step.tick)
            in_pauses += [f"{name} did not end its round" for name in load.pause(ROUND_LIMIT_S)]
            in_pauses += verdicts.is_idle(stand, step.tick)
            step.result(_summary(load))
    with Step("let it settle, and judge") as step:
        in_pauses += [f"{name} did not end" for name in load.stop_attacks(ROUND_LIMIT_S)]
        load.stop()
        for promise, judge in verdicts.promises(load, minutes, step.tick):
            verdict[promise] = judge()
    return load, verdict


def _summary(load: Load) -> str:
    tries = sum(sum(attack.outcomes.values()) for attack in load.attacks)
    calls = sum(caller.calls for caller in load.callers.values())
    sizes = ", ".join(f"{name} {s[-1].rss_mb:.0f} MB" for name, s in load.samples.items() if s)
    return f"{tries} tries of attacks, {calls} healthy calls, {sizes}"


if __name__ == "__main__":
    exit_with(main)
