"""Run tests with versions that this machine does not have: RabbitMQ 4, aws cli 2, newer Pythons.

They come from Debian's archive, by ``debian_root``. What cannot be had is left out, and said so.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devtools.commands import CommandError, run
from devtools.debian_root import DebianRoot, RootError
from devtools.kustomize import cache
from devtools.progress import Step

CHECKOUT: Final = Path(__file__).resolve().parent.parent
_LIMIT_S: Final = 600.0

#: RabbitMQ 4.0, aws cli 2 and Python 3.13. The programs of /usr/sbin insist on the system's user.
TRIXIE: Final = DebianRoot(
    release="trixie",
    packages=("awscli", "curl", "python3-venv", "rabbitmq-server"),
    programs={
        "aws": "/usr/bin/aws",
        "python3.13": "/usr/bin/python3.13",
        "rabbitmq-server": "/usr/lib/rabbitmq/bin/rabbitmq-server",
        "rabbitmqctl": "/usr/lib/rabbitmq/bin/rabbitmqctl",
    },
)
#: Python 3.14.
FORKY: Final = DebianRoot(
    release="forky",
    packages=("curl", "python3-venv"),
    programs={"python3.14": "/usr/bin/python3.14"},
)

#: What depends on the broker's version.
_BROKER_TESTS: Final = (
    "tests/acceptance/system/test_amqp.py",
    "tests/acceptance/system/test_events.py",
    "tests/integration/server/test_broker.py",
    "tests/integration/server/test_dead_letters.py",
    "tests/integration/server/test_rpc_client.py",
    "-mbroker",
    # A known fault: RabbitMQ 4.0 answers a passive declaration only after 66 s while the node of a
    # classic queue is down, where 3.10 answers at once. Callers then get 500 or wait, not 503.
    "--deselect=tests/acceptance/system/test_amqp.py::test_a_classic_queue_is_back_when_its_node_is",
    "--deselect=tests/acceptance/system/test_amqp.py::"
    "test_calls_that_wait_in_a_queue_are_503_soon_after_its_node_has_died",
)
_AWS_CLI_TESTS: Final = (
    "tests/acceptance/conformance/test_invoke.py",
    "tests/acceptance/examples/test_clients.py",
)
#: What needs no broker. rapid's own tests run with 3.13 already: it is what the static file is of.
_SERVER_TESTS: Final = (
    *("tests/unit/protocol", "tests/integration/protocol"),
    *("tests/unit/server", "tests/integration/server"),
    "-mnot broker",
)
_UNIT_TESTS: Final = ("tests/unit/rapid", "tests/integration/rapid", *_SERVER_TESTS)
_UNIT_TOOLS: Final = (
    *("awslambdaric", "boto3", "httptools", "jsonschema"),
    *("psutil", "pytest", "pytest-timeout", "pytest-xdist", "pyyaml", "trustme"),
)
_OPTIONS: Final = ("--quiet", "--numprocesses=2", "-p", "no:cacheprovider")


@dataclass(frozen=True, slots=True)
class Part:
    """One version of one program, and the tests to run with it."""

    name: str
    root: DebianRoot
    programs: Mapping[str, str]  #: variable that the tests read → program of the root
    tests: Sequence[str]  #: for pytest
    python: str | None = None  #: program of the root that runs them; None: this environment's


PARTS: Final = (
    Part("RabbitMQ 4", TRIXIE, {"RABBITMQ_SERVER": "rabbitmq-server"}, _BROKER_TESTS),
    Part("aws cli 2", TRIXIE, {"AWS_CLI": "aws"}, [*_AWS_CLI_TESTS, "-kaws"]),
    Part("Python 3.13", TRIXIE, {}, _SERVER_TESTS, "python3.13"),
    Part("Python 3.14", FORKY, {}, _UNIT_TESTS, "python3.14"),
)


def main(parts: Sequence[Part] = PARTS) -> int:
    """Run every part; return 1 if a test failed."""
    has_failed = False
    for part in parts:
        try:
            command = [_python(part), "-m", "pytest", *_OPTIONS, *part.tests]
        except (RootError, CommandError) as error:
            print(f"  {part.name}: left out, {error}", file=sys.stderr)
            continue
        programs = {name: str(part.root.program(to)) for name, to in part.programs.items()}
        with Step(f"Tests with {part.name}") as step:
            done = subprocess.run(
                command, cwd=CHECKOUT, env={**os.environ, **programs}, check=False
            )
            if done.returncode != 0:
                step.result("failed")
                has_failed = True
    return 1 if has_failed else 0


def _python(part: Part) -> str | Path:
    """Return what runs the tests of a part. Raises RootError, CommandError."""
    if part.python is None:
        part.root.make()
        return sys.executable
    folder = cache() / f"{part.python}-packages"
    try:
        part.root.make()
        plain = part.root.program(part.python)
        python = part.root.wrap(f"{part.python}-with-packages", folder / "bin" / "python")
    except RootError:
        found = shutil.which(part.python)
        if found is None:
            raise
        plain, python = Path(found), folder / "bin" / "python"
    _need_packages(plain, python, folder)
    return python


def _need_packages(plain: Path, python: Path, folder: Path) -> None:
    """Make a virtual environment in ``folder`` by ``plain``; ``python`` is then the one in it."""
    stamp, wanted = folder / "requirements", "\n".join([str(plain), *_requirements()])
    if stamp.exists() and stamp.read_text() == wanted:
        return
    with Step(f"{plain.name}, the packages that the tests need") as step:
        run([plain, "-m", "venv", "--clear", folder], _LIMIT_S, step.tick)
        pip = ("-m", "pip", "install", "--quiet", "--only-binary=:all:")
        run([python, *pip, *_requirements()], _LIMIT_S, step.tick)
    stamp.write_text(wanted)


def _requirements() -> list[str]:
    """Return what setup.cfg asks for, of the tools those that unit tests use."""
    config = configparser.ConfigParser()
    config.read(CHECKOUT / "setup.cfg")
    extras = config["options.extras_require"]
    tools = [*extras["dev"].split(), *extras["local"].split()]
    used = [tool for tool in tools if re.split("[=<>]", tool)[0] in _UNIT_TOOLS]
    return [*config["options"]["install_requires"].split(), *used]


if __name__ == "__main__":
    sys.exit(main())
