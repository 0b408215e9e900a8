"""Where a program under load spends its Python time: py-spy's samples, by function.

Only threads that hold the interpreter's lock are sampled: py-spy takes many that wait in the
kernel for running ones. So time in system calls is not shown; ``python -m bench`` counts it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bench.errors import BenchError, ToolMissing
from bench.load import run_wrk
from bench.subjects import Setup, running
from devtools.progress import Step

#: The programs that can be profiled: the subject they are part of, and the part.
PROGRAMS = {
    "rapid": ("direct", "daemon"),
    "rapid-behind-broker": ("server", "daemon"),
    "server": ("server", "server"),
}

_SAMPLES_PER_S = 500
_WARM_UP_S = 1
_LINES = 30


def profile_program(
    program: str, setup: Setup, *, connections: int, seconds: int, stacks: Path, folder: Path
) -> str:
    """Load the program while py-spy samples it into ``stacks``; return a table by function."""
    subject_name, part = PROGRAMS[program]
    with running([subject_name], setup, folder) as subjects:
        subject = subjects[subject_name]
        run_wrk(subject.url, connections=connections, seconds=_WARM_UP_S)
        with (
            Step(f"{program} under {connections} connections"),
            _py_spy(getattr(subject, part), seconds, stacks) as sampling,
        ):
            # The load goes on for longer than the sampling, so that no idle time is sampled.
            load = run_wrk(subject.url, connections=connections, seconds=seconds + _WARM_UP_S)
            _, message = sampling.communicate()
    if sampling.returncode != 0:
        raise BenchError(f"py-spy: {message.strip()}")
    rate = load.answers / load.duration_s
    return f"{rate:,.0f} req/s while sampled\n{summarize(stacks.read_text().splitlines())}"


def _py_spy(pid: int, seconds: int, stacks: Path) -> subprocess.Popen[str]:
    beside_python = Path(sys.executable).parent
    command = shutil.which("py-spy", path=f"{beside_python}{os.pathsep}{os.environ['PATH']}")
    if command is None:
        raise ToolMissing("py-spy is missing: pip install py-spy")
    return subprocess.Popen(
        [
            *(command, "record", "--pid", str(pid), "--subprocesses", "--duration", str(seconds)),
            *("--rate", str(_SAMPLES_PER_S), "--format", "raw", "--function", "--gil"),
            *("--output", str(stacks)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def summarize(stacks: Iterable[str]) -> str:
    """Turn folded stacks, ``outer;inner 12``, into the functions with the most time of their own.

    ``self`` is the share of samples in the function itself, ``total`` with all that it called.
    """
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        functions = stack.split(";")
        own[functions[-1]] += int(count)
        for function in set(functions):
            total[function] += int(count)
    share = 100 / max(own.total(), 1)
    lines = [
        f"{own[function] * share:6.1f} {total[function] * share:6.1f}  {function}"
        for function, _ in own.most_common(_LINES)
    ]
    return "\n".join([f"{'self %':>6} {'total':>6}  function", *lines])
