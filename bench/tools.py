"""What a benchmark needs beside us: wrk, an echo function, the floor, aws-lambda-rie."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.errors import ToolMissing

_ECHO = Path(__file__).with_name("echo")
_EXTENSION = Path(__file__).with_name("extension")
_RIE_PACKAGE = "github.com/aws/aws-lambda-runtime-interface-emulator/cmd/aws-lambda-rie"
_GO_TIMEOUT_S = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program found or built; ``origin`` tells the reader of the results which one it was."""

    path: Path
    origin: str


def require_wrk() -> None:
    """Find wrk, or install Debian's when we are root."""
    if shutil.which("wrk"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ToolMissing("wrk is missing: apt-get install wrk")
    try:
        _run(["apt-get", "install", "-y", "wrk"], timeout_s=300)
    except ToolMissing:
        _run(["apt-get", "update"], timeout_s=300)
        _run(["apt-get", "install", "-y", "wrk"], timeout_s=300)


def build_echo() -> Tool:
    """Build the static Go echo function once per source and compiler; without Go, give Python's."""
    try:
        version = _run(["go", "env", "GOVERSION"]).strip()
        binary = _build_go(_ECHO, version)
    except ToolMissing as missing:
        return Tool(path=_ECHO / "echo.py", origin=f"Python fallback ({missing})")
    return Tool(path=binary, origin=f"{version}, aws-lambda-go {_module_version(binary, 'dep')}")


def build_extension() -> Tool:
    """Build the Go extension, once per source and compiler; raises ``ToolMissing`` without Go."""
    version = _run(["go", "env", "GOVERSION"]).strip()
    return Tool(path=_build_go(_EXTENSION, version), origin=version)


def build_floor() -> Path:
    """Build the program in C that makes a call's system calls; raises ``ToolMissing``."""
    source = _ECHO.with_name("floor") / "floor.c"
    binary = _cache() / f"floor-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not binary.exists():
        _run(["cc", "-O2", "-o", str(binary), str(source)])
    return binary


def install_rie() -> Tool:
    """Install aws-lambda-rie as a Go tool into the cache, or find it there."""
    binary = _cache() / "aws-lambda-rie"
    if not binary.exists():
        _run(["go", "install", f"{_RIE_PACKAGE}@latest"], environ={"GOBIN": str(_cache())})
    return Tool(path=binary, origin=f"Go tool, {_module_version(binary, 'mod')}")


def _build_go(source: Path, version: str) -> Path:
    digest = hashlib.sha256(version.encode())
    for file in sorted(source.iterdir()):
        digest.update(file.read_bytes())
    binary = _cache() / f"{source.name}-{digest.hexdigest()[:16]}"
    if not binary.exists():
        _run(["go", "build", "-trimpath", "-o", str(binary), "."], cwd=source)
    return binary


def _cache() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = home / "lambda-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _module_version(binary: Path, kind: str) -> str:
    """Return the version of the first module of ``kind`` (mod or dep) that Go built in."""
    for line in _run(["go", "version", "-m", str(binary)]).splitlines():
        fields = line.split()
        if fields[0] == kind:
            return fields[2]
    return "of unknown version"


def _run(
    command: list[str],
    *,
    environ: dict[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = _GO_TIMEOUT_S,
) -> str:
    """Return the command's output; any failure is a :class:`ToolMissing` of one line."""
    try:
        run = subprocess.run(
            command,
            env={**os.environ, "CGO_ENABLED": "0", **(environ or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=True,
        )
    except FileNotFoundError as error:
        raise ToolMissing(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ToolMissing(f"{' '.join(command[:2])}: no end after {timeout_s:.0f} s") from error
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip() or "no message").splitlines()[-1].strip()
        raise ToolMissing(f"{' '.join(command[:2])}: {reason}") from error
    return run.stdout
