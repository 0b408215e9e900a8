"""Install what the tests need: RabbitMQ, Prometheus, curl, kustomize, clang for WebAssembly."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final

from devtools.apt import AptError, install
from devtools.interrupts import exit_with
from devtools.kustomize import (
    KustomizeError,
    find_kustomize,
    install_kustomize,
    is_kustomize_built,
)
from devtools.rabbitmq_node import find_server

#: Debian package → the program that it brings.
_PROGRAMS: Final = {
    "clang": "clang",
    "curl": "curl",
    "lld": "wasm-ld",
    "prometheus": "promtool",
    "shellcheck": "shellcheck",
    "xxd": "xxd",
}
#: Debian package → a file that it brings, below ``/usr``.
_FILES: Final = {
    "libclang-rt-dev-wasm32": "lib/llvm-*/lib/clang/*/lib/wasi/libclang_rt.builtins-wasm32.a",
    "libstb-dev": "include/stb/stb_image.h",
    "wasi-libc": "include/wasm32-wasi/stdlib.h",
}


def main() -> int:
    """Install what is missing; return 0, or 1 in CI if something still is."""
    missing = missing_packages()
    if not missing and is_kustomize_built():
        print("  Test set-up: nothing to do, all is installed")
        return 0
    problems = []
    try:
        if missing:
            install(missing, "by the tests")
    except AptError as error:
        problems.append(str(error))
    try:
        install_kustomize()
    except KustomizeError as error:
        if find_kustomize() is None:  # kubectl's would do
            problems.append(str(error))
    for problem in problems:
        print(f"  Test set-up: {problem}", file=sys.stderr)
    if problems and os.environ.get("CI") == "true":
        return 1
    if problems:
        print("  Test set-up: the tests that need them will be skipped", file=sys.stderr)
    return 0


def missing_packages(usr: Path = Path("/usr")) -> list[str]:
    """Return the Debian packages that have what is not here."""
    missing = [] if find_server() else ["rabbitmq-server"]
    missing += [name for name, program in _PROGRAMS.items() if shutil.which(program) is None]
    return missing + [name for name, file in _FILES.items() if not any(usr.glob(file))]


if __name__ == "__main__":
    exit_with(main)
