"""What rapid has imported when it answers its first call: each module is time of a start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.ports import free_ports
from tests.support import BASH_ECHO, IS_ONE_FILE, ROOT

#: For what a call does not need, or without a broker: no form of rapid imports them.
UNWANTED = {
    "argparse", "asyncio", "calendar", "concurrent.futures", "csv", "datetime", "decimal", "email",
    "hashlib", "hmac", "html", "http.client", "http.server", "importlib.metadata",
    "multiprocessing", "pika", "platform", "prometheus_client", "random", "ssl", "tempfile",
    "urllib.request", "uuid", "xml", "zipfile",
}  # fmt: skip
#: What freezing makes unnecessary until something unusual happens.
UNWANTED_IN_ONE_FILE = {
    "ast", "copy", "dataclasses", "dis", "encodings.idna", "enum", "fnmatch", "http", "inspect",
    "ipaddress", "linecache", "locale", "opcode", "re", "string", "stringprep", "textwrap",
    "tokenize", "traceback", "typing", "urllib.parse",
}  # fmt: skip


def imported() -> set[str]:
    """Return the modules of a rapid, in the form that is tested, at its first answer."""
    program = [sys.executable, "-S"]
    if IS_ONE_FILE:
        if "RAPID_TESTS_BINARY" not in os.environ:
            pytest.skip("the one file shows no modules; make test-binary makes one that does")
        program = [os.environ["RAPID_TESTS_BINARY"]]
    port, runtime_api_port = free_ports(2)
    settings = {
        "PATH": os.environ["PATH"],
        "RAPID_INVOKE_API_HOST": "127.0.0.1",
        "RAPID_PORT": str(port),
        "RAPID_RUNTIME_API_PORT": str(runtime_api_port),
    }
    done = subprocess.run(
        [*program, "-c", Path(__file__).with_name("first_answer.py").read_text()],
        env={
            **{name: v for name, v in os.environ.items() if name.startswith("RAPID_TESTS_")},
            **settings,
            "FUNCTION": BASH_ECHO,
            "PYTHONPATH": str(ROOT),
            "SETTINGS": ",".join(settings),
        },
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("answer ")]
    _, answer, _, *modules = line.split()
    assert answer == "{}", done.stderr
    assert "rapid.daemon" in modules
    return set(modules)


def test_the_first_answer_needs_no_module_that_is_slow_to_import() -> None:
    unwanted = UNWANTED | (UNWANTED_IN_ONE_FILE if IS_ONE_FILE else set())

    assert imported() & unwanted == set()
