"""Real extensions in compiled languages: AWS's Rust crate, and Go, for which there is no client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from devtools.ports import free_ports
from tests.acceptance.conformance.listener import COLD_CALL, platform_types
from tests.acceptance.runtimes.builds import built
from tests.acceptance.runtimes.recipes import GO_EXTENSION, RUST_EXTENSION
from tests.conftest import StartRapid
from tests.support import MISBEHAVE, Rapid, wait_for


def rust_extension() -> Path:
    """Return the extension on the crate lambda-extension."""
    return built(RUST_EXTENSION) / "target" / "release" / "rust-extension"


def start_with(
    program: Path, start_rapid: StartRapid, tmp_path: Path, **environ: str
) -> tuple[Rapid, Path]:
    """Start a rapid with ``program`` as its extension; return it, and what that writes to."""
    directory = tmp_path / "extensions"
    directory.mkdir()
    (directory / "compiled").symlink_to(program)
    file = tmp_path / "record"
    (port,) = free_ports(1)
    rapid = start_rapid(
        MISBEHAVE,
        RAPID_EXTENSIONS_DIR=str(directory),
        RECORDER_FILE=str(file),
        RECORDER_PORT=str(port),
        **environ,
    )
    return rapid, file


def lines_of(file: Path, mark: str) -> list[str]:
    """Return the file's lines once one of them has ``mark``."""

    def find() -> list[str] | None:
        text = file.read_text() if file.exists() else ""
        return text.splitlines() if mark in text else None

    return wait_for(find, f"{mark} in what the extension wrote")


def records_of(lines: list[str]) -> list[Any]:
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_an_extension_on_awss_rust_crate_reads_every_record(
    start_rapid: StartRapid, tmp_path: Path
) -> None:
    program = rust_extension()

    rapid, file = start_with(program, start_rapid, tmp_path)

    answer = rapid.do(do="print", text="hello\n")
    lines = lines_of(file, "platform.report")
    rapid.stop()

    records = records_of(lines)
    assert platform_types(records) == COLD_CALL
    assert [each["record"] for each in records if each["type"] == "function"] == ["hello\n"]
    request_id = answer.headers["x-amzn-RequestId"]
    assert f"INVOKE {request_id}" in lines
    assert records[-1]["record"]["requestId"] == request_id
    assert file.read_text().splitlines()[-1].lower() == "shutdown spindown"


def test_an_extension_on_awss_rust_crate_reads_every_log(
    start_rapid: StartRapid, tmp_path: Path
) -> None:
    program = rust_extension()
    rapid, file = start_with(program, start_rapid, tmp_path, RECORDER_API="logs")

    rapid.do(do="print", text="hello\n")
    lines = lines_of(file, "PlatformReport")

    kinds = [line.partition(" ")[0].partition("(")[0] for line in lines if line[:6] != "INVOKE"]
    assert kinds == [
        "PlatformLogsSubscription",
        "PlatformExtension",
        "PlatformStart",
        "Function",
        "PlatformRuntimeDone",
        "PlatformEnd",
        "PlatformReport",
    ]


def test_an_extension_in_go_reads_every_record(start_rapid: StartRapid, tmp_path: Path) -> None:
    rapid, file = start_with(built(GO_EXTENSION) / "bootstrap", start_rapid, tmp_path)

    answer = rapid.do(do="print", text="hello\n")
    records = records_of(lines_of(file, "platform.report"))

    assert platform_types(records) == COLD_CALL
    assert records[-1]["record"]["requestId"] == answer.headers["x-amzn-RequestId"]
