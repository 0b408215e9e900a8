"""The test programs that must be built: what each needs, and the commands that make it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tests.support import ROOT

FUNCTIONS: Final = Path(__file__).parent / "functions"
CALLERS: Final = Path(__file__).parent / "callers"
EXAMPLES: Final = ROOT / "examples"
EXTENSIONS: Final = ROOT / "tests" / "acceptance" / "conformance" / "functions"

Commands = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recipe:
    """How a function is built in a copy of its folder."""

    name: str  #: of the build
    source: Path  #: the folder in the checkout
    toolchain: Commands  #: print versions; each must be there, and a new version is a new build
    packages: Mapping[str, str] = field(default_factory=dict)  #: program → Debian package
    fetch: Commands  #: ask the language's registry; a failure is the network's
    build: Commands  #: ask nobody; a failure is ours
    environ: Mapping[str, str] = field(default_factory=dict)


def _headers_of_node() -> dict[str, str]:
    """Return where node-gyp finds Node's headers, which it would download otherwise."""
    node = shutil.which("node")
    prefix = Path(node).resolve().parent.parent if node else Path()
    has_headers = (prefix / "include" / "node" / "node_api.h").exists()
    return {"npm_config_nodedir": str(prefix)} if has_headers else {}


GO: Final = Recipe(
    name="go",
    source=FUNCTIONS / "go",
    toolchain=(("go", "version"),),
    fetch=(("go", "mod", "download"),),
    build=(("go", "build", "-trimpath", "-o", "bootstrap", "."),),
    environ={"CGO_ENABLED": "0"},
)
ECHO_GO: Final = replace(GO, name="echo-lambda-go", source=EXAMPLES / "echo-lambda-go")
SSE: Final = replace(GO, name="sse", source=FUNCTIONS / "sse", packages={"chromium": "chromium"})
RUST: Final = Recipe(
    name="rust",
    source=FUNCTIONS / "rust",
    toolchain=(("cargo", "--version"), ("rustc", "--version")),
    fetch=(("cargo", "fetch", "--locked"),),
    build=(("cargo", "build", "--release", "--locked", "--offline"),),
)
GO_EXTENSION: Final = replace(GO, name="go-extension", source=EXTENSIONS / "go-extension")
RUST_EXTENSION: Final = replace(RUST, name="rust-extension", source=EXTENSIONS / "rust-extension")
JAVA: Final = Recipe(
    name="java",
    source=FUNCTIONS / "java",
    toolchain=(("javac", "--version"), ("mvn", "--version")),
    fetch=(("mvn", "-B", "-q", "dependency:copy-dependencies", "-DoutputDirectory=classpath"),),
    build=(("javac", "-d", "classes", "-cp", "classpath/*", "src/main/java/Behaviours.java"),),
)
NODE: Final = Recipe(
    name="node",
    source=FUNCTIONS / "node",
    toolchain=(("node", "--version"), ("npm", "--version")),
    # The client has a native part: curl and aws-lambda-cpp, which it brings as source.
    packages={
        "autoconf": "autoconf",
        "automake": "automake",
        "libtoolize": "libtool",
        "cmake": "cmake",
        "g++": "g++",
        "make": "make",
    },
    fetch=(("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"),),
    build=(("npm", "rebuild", "--foreground-scripts"),),
    environ={"MAKEFLAGS": "-j2", **_headers_of_node()},
)

_TO_PACKAGES: Final = (
    *("install", "--quiet", "--only-binary=:all:"),
    *("--target", "packages", "--requirement", "requirements.txt"),
)
WEB_PYTHON: Final = Recipe(
    name="web-python",
    source=FUNCTIONS / "web-python",
    toolchain=((sys.executable, "--version"),),
    fetch=((sys.executable, "-m", "pip", *_TO_PACKAGES),),
    build=(),
)
WEB_ADAPTER: Final = replace(RUST, name="web-adapter", source=FUNCTIONS / "web-adapter")
WEB_GO: Final = replace(GO, name="web-go", source=FUNCTIONS / "web-go")
WEB_NODE: Final = replace(NODE, name="web-node", source=FUNCTIONS / "web-node")

GO_CALLER: Final = replace(
    GO,
    name="go-caller",
    source=CALLERS / "go",
    build=(("go", "build", "-trimpath", "-o", "caller", "."),),
)
RUST_CALLER: Final = replace(RUST, name="rust-caller", source=CALLERS / "rust")
JAVA_CALLER: Final = replace(
    JAVA,
    name="java-caller",
    source=CALLERS / "java",
    build=(("javac", "-d", "classes", "-cp", "classpath/*", "src/main/java/Caller.java"),),
)
NODE_CALLER: Final = replace(
    NODE, name="node-caller", source=CALLERS / "node", packages={}, build=(), environ={}
)

RECIPES: Final = (
    *(GO, SSE, ECHO_GO, GO_EXTENSION, JAVA, RUST, RUST_EXTENSION, NODE),
    *(GO_CALLER, JAVA_CALLER, NODE_CALLER, RUST_CALLER),
    *(WEB_ADAPTER, WEB_GO, WEB_NODE, WEB_PYTHON),
)
