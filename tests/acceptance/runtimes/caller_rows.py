"""AWS's SDKs that call functions: a program in each language, and what it reads and prints.

A program is given the endpoint as its argument. It reads a call a line, three parts with tabs
between: invocation type, function name, payload. It prints a line for each:

* ``ok``, status, function error, payload
* ``exception``, class of the SDK's exception, status, message
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.acceptance.runtimes.recipes import (
    GO_CALLER,
    JAVA_CALLER,
    NODE_CALLER,
    RUST_CALLER,
    Recipe,
)
from tests.acceptance.runtimes.rows import version_in
from tests.support import run_command


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A program that calls functions by one SDK."""

    id: str
    language: str
    client: str  #: the SDK's package
    recipe: Recipe
    command: tuple[str, ...]  #: ``{folder}`` is the built folder
    pinned_in: tuple[str, str]  #: file and pattern that tell the SDK's version
    language_version: tuple[str, ...]  #: the command that prints it

    @property
    def client_version(self) -> str:
        """The SDK and its version."""
        return f"{self.client} {version_in(self.recipe.source, *self.pinned_in)}"

    def run(self, folder: Path, endpoint: str, calls: Sequence[Sequence[str]]) -> list[list[str]]:
        """Make ``calls`` one after the other; return what the program printed of each."""
        command = [word.format(folder=folder) for word in self.command]
        lines = "".join("\t".join(call) + "\n" for call in calls)
        done = run_command(*command, endpoint, input=lines)
        assert done.returncode == 0, done.stderr
        return [line.split("\t") for line in done.stdout.splitlines()]


CALLERS: Final = (
    Caller(
        id="node",
        language="Node.js",
        client="@aws-sdk/client-lambda",
        recipe=NODE_CALLER,
        command=("node", "{folder}/index.mjs"),
        pinned_in=("package.json", r'"@aws-sdk/client-lambda": "([^"]+)"'),
        language_version=("node", "--version"),
    ),
    Caller(
        id="go",
        language="Go",
        client="aws-sdk-go-v2/service/lambda",
        recipe=GO_CALLER,
        command=("{folder}/caller",),
        pinned_in=("go.mod", r"service/lambda v(\S+)"),
        language_version=("go", "version"),
    ),
    Caller(
        id="rust",
        language="Rust",
        client="aws-sdk-lambda",
        recipe=RUST_CALLER,
        command=("{folder}/target/release/caller",),
        pinned_in=("Cargo.lock", r'name = "aws-sdk-lambda"\nversion = "([^"]+)"'),
        language_version=("rustc", "--version"),
    ),
    Caller(
        id="java",
        language="Java",
        client="software.amazon.awssdk:lambda",
        recipe=JAVA_CALLER,
        command=(
            "java",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            "{folder}/classes:{folder}/classpath/*",
            "Caller",
        ),
        pinned_in=("pom.xml", r"<artifactId>lambda</artifactId>\s*<version>([^<]+)"),
        language_version=("java", "--version"),
    ),
)
