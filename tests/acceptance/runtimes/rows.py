"""The rows of the matrix: AWS's runtime interface clients, and how each tells of an error."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.acceptance.runtimes.recipes import FUNCTIONS, GO, JAVA, NODE, RUST, Recipe
from tests.support import AWSLAMBDARIC


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A runtime: the function of ``folder`` under one client."""

    id: str
    language: str
    client: str
    folder: str  #: in ``functions/``
    command: tuple[str, ...]  #: ``{folder}`` is the built folder
    version_in: tuple[str, str] | None = None  #: file and pattern that tell the client's version
    recipe: Recipe | None = None  #: None: nothing to build
    language_version: tuple[str, ...]  #: the command that prints it
    error_type: str  #: of the error that ``{"do": "fail"}`` makes
    stack: tuple[str, str] | None  #: the payload's member and a name in it; None: no stack
    init_error: tuple[str, str]  #: ``errorType``, and what ``errorMessage`` has, of FAIL_INIT

    @property
    def client_version(self) -> str:
        """The client and its version."""
        if self.client == "awslambdaric":
            return f"{self.client} {importlib.metadata.version(self.client)}"
        if self.version_in is None:
            return self.client
        return f"{self.client} {version_in(FUNCTIONS / self.folder, *self.version_in)}"


def version_in(folder: Path, file: str, pattern: str) -> str:
    """Return the version that the first group of ``pattern`` finds in a file of ``folder``."""
    found = re.search(pattern, (folder / file).read_text())
    assert found is not None, f"no {pattern} in {file}"
    return found[1]


def _python(style: str, handler: str) -> Row:
    return Row(
        id=f"python-{style}",
        language=f"Python, {style}",
        client="awslambdaric",
        folder="python",
        command=(*AWSLAMBDARIC, handler),
        language_version=(sys.executable, "--version"),
        error_type="ValueError",
        stack=("stackTrace", "in fail"),
        init_error=("RuntimeError", "init on purpose"),
    )


ROWS: Final = (
    _python("function", "behaviours.handler"),
    _python("object", "behaviours.callable_handler"),
    _python("folder", "nested/handlers.handler"),
    Row(
        id="bash",
        language="bash",
        client="curl",
        folder="bash",
        command=("{folder}/bootstrap",),
        language_version=("bash", "--version"),
        error_type="OnPurpose",
        stack=("stackTrace", "fail:"),
        init_error=("OnPurpose", "init on purpose"),
    ),
    Row(
        id="node",
        language="Node.js",
        client="aws-lambda-ric",
        folder="node",
        recipe=NODE,
        command=("node", "node_modules/aws-lambda-ric/bin/index.mjs", "index.handler"),
        version_in=("package.json", r'"aws-lambda-ric": "([^"]+)"'),
        language_version=("node", "--version"),
        error_type="RangeError",
        stack=("trace", "at fail"),
        init_error=("Error", "init on purpose"),
    ),
    Row(
        id="go",
        language="Go",
        client="aws-lambda-go",
        folder="go",
        recipe=GO,
        command=("{folder}/bootstrap",),
        version_in=("go.mod", r"aws-lambda-go v(\S+)"),
        language_version=("go", "version"),
        error_type="string",
        stack=("stackTrace", "fail"),
        init_error=("Runtime.ExitError", "exit status 1"),
    ),
    Row(
        id="rust",
        language="Rust",
        client="lambda_runtime",
        folder="rust",
        recipe=RUST,
        command=("{folder}/target/release/behaviours",),
        version_in=("Cargo.lock", r'name = "lambda_runtime"\nversion = "([^"]+)"'),
        language_version=("rustc", "--version"),
        error_type="OnPurpose",
        stack=None,
        init_error=("Runtime.ExitError", "exit status 1"),
    ),
    Row(
        id="java",
        language="Java",
        client="aws-lambda-java-runtime-interface-client",
        folder="java",
        recipe=JAVA,
        command=(
            "java",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            "{folder}/classes:{folder}/classpath/*",
            "com.amazonaws.services.lambda.runtime.api.client.AWSLambda",
            "Behaviours::handleRequest",
        ),
        version_in=(
            "pom.xml",
            r"runtime-interface-client</artifactId>\s*<version>([^<]+)",
        ),
        language_version=("java", "--version"),
        error_type="java.lang.IllegalStateException",
        stack=("stackTrace", "Behaviours.fail"),
        init_error=("java.lang.IllegalArgumentException", "init on purpose"),
    ),
)
