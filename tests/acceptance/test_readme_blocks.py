"""The blocks of README, guides and examples do what they say, typed in order into a terminal."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.rabbitmq_node import find_server
from tests.acceptance.readme_run import (
    EXEMPT,
    FOLDERS,
    IN_A_THIRD_TERMINAL,
    IN_ANOTHER_TERMINAL,
    blocks_of,
    is_server,
    logical_lines,
)
from tests.documents import DOCUMENTS
from tests.support import ROOT, run_command

#: New namespaces for network, mounts and processes; all that runs in them ends with the command.
ISOLATED = ("unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
LIMIT_S = 900


@functools.cache
def lack() -> str | None:
    """Return what keeps the blocks from being run here."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return "needs root and unshare, for ports 8080 and 9000 of its own"
    if subprocess.run([*ISOLATED, "true"], capture_output=True, check=False).returncode != 0:
        return "may not make namespaces here"
    tools = [tool for tool in ("curl", "xxd", "clang") if shutil.which(tool) is None]
    if find_server() is None or tools:
        return f"needs rabbitmq-server, curl, xxd and clang; lacks {tools}"
    return None


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
def test_every_block_works_in_the_order_given_while_the_stack_of_make_up_runs(
    tmp_path: Path,
) -> None:
    if (reason := lack()) is not None:
        pytest.skip(reason)

    done = run_command(
        *ISOLATED,
        sys.executable,
        "-m",
        "tests.acceptance.readme_run",
        str(tmp_path),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        timeout=LIMIT_S - 10,
    )

    records = [json.loads(line) for line in done.stdout.splitlines()]
    problems = [f"{r['at']}: {r['command']}\n{r['problem']}" for r in records if r.get("problem")]
    assert not problems, "\n\n".join(problems)
    assert (done.returncode, done.stderr) == (0, "")
    assert any(record["command"] == "make up" for record in records)


def test_exemptions_and_second_terminals_are_those_that_are_there() -> None:
    found = [block for document in FOLDERS for block in blocks_of(ROOT / document)]
    commands = [
        command
        for _, language, text, _ in found
        if language == "sh"
        for command in logical_lines(text)
    ]

    for pattern in EXEMPT:
        assert any(re.match(pattern, command) for command in commands), pattern
    for words in (IN_ANOTHER_TERMINAL, IN_A_THIRD_TERMINAL):
        beside = [before for *_, before in found if words.strip(" \n:") in before[-30:]]
        assert beside
        assert all(before.endswith(words) for before in beside)


def test_a_server_is_the_last_command_of_its_block() -> None:
    """A server keeps its terminal, so a command after it would never run."""
    for document in DOCUMENTS:
        for line, language, text, _ in blocks_of(document):
            commands = list(logical_lines(text)) if language == "sh" else []
            servers = [command for command in commands if is_server(command)]
            assert servers in ([], commands[-1:]), f"{document}:{line}"
