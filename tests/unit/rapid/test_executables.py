from __future__ import annotations

import errno
import os
import struct
import subprocess
from pathlib import Path

import pytest

from rapid.environment.executables import why_not_run

#: Other than this machine's.
FOREIGN = (183, "aarch64") if os.uname().machine != "aarch64" else (62, "x86_64")
HOST = os.uname().machine


@pytest.fixture
def true(tmp_path: Path) -> bytes:
    """Give a dynamically linked program of this machine."""
    return Path("/bin/true").read_bytes()


def refusal(path: Path | str) -> str | None:
    """Run ``path``, which the kernel refuses, and return why."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - which one is the kernel's business
        subprocess.run([str(path)], check=False)
    return why_not_run(str(path), caught.value)


def executable(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o755)
    return path


def foreign(program: bytes) -> bytes:
    """Return the program with another machine in its header."""
    return program[:18] + struct.pack("<H", FOREIGN[0]) + program[20:]


def test_a_program_for_another_machine_is_named_with_both_machines(
    tmp_path: Path, true: bytes
) -> None:
    path = executable(tmp_path / "bootstrap", foreign(true))

    assert refusal(path) == f"it is built for {FOREIGN[1]}, this machine is {HOST}"


def test_a_machine_without_a_name_is_told_by_number(tmp_path: Path, true: bytes) -> None:
    path = executable(tmp_path / "bootstrap", true[:18] + struct.pack("<H", 999) + true[20:])

    assert refusal(path) == f"it is built for ELF machine 999, this machine is {HOST}"


def test_a_script_whose_interpreter_is_for_another_machine(tmp_path: Path, true: bytes) -> None:
    shell = executable(tmp_path / "sh", foreign(true))
    path = executable(tmp_path / "bootstrap", f"#!{shell}\n")

    assert refusal(path) == (
        f"of its interpreter {shell}: it is built for {FOREIGN[1]}, this machine is {HOST}"
    )


def test_a_missing_loader_is_named(tmp_path: Path, true: bytes) -> None:
    start = true.index(b"/lib", 64)
    end = true.index(b"\0", start)
    loader = b"/lib/ld-musl.so.1".ljust(end - start, b"x")
    path = executable(tmp_path / "bootstrap", true[:start] + loader + true[end:])

    why = refusal(path)

    assert why is not None
    assert why.startswith(f"its loader {loader.decode()} is not here")


def test_a_missing_interpreter_is_named(tmp_path: Path) -> None:
    path = executable(tmp_path / "bootstrap", "#!/nonexistent/bash -e\n")

    assert refusal(path) == "its interpreter /nonexistent/bash is not here"


def test_line_ends_of_windows_are_told(tmp_path: Path) -> None:
    path = executable(tmp_path / "bootstrap", "#!/bin/sh\r\nexit\r\n")

    assert refusal(path) == (
        "its first line ends in a carriage return, save it with Unix line ends"
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "it is empty"),
        ("echo\n", "it is neither an ELF executable nor a script that begins with #!"),
        (b"\x7fELF", None),
        (
            b"\x7fELF\x02\x01".ljust(20, b"\0"),
            f"it is built for ELF machine 0, this machine is {HOST}",
        ),
    ],
)
def test_a_file_that_is_no_program(tmp_path: Path, content: bytes | str, why: str | None) -> None:
    assert refusal(executable(tmp_path / "bootstrap", content)) == why


def test_a_file_without_the_right_to_be_run(tmp_path: Path) -> None:
    path = tmp_path / "bootstrap"
    path.write_text("#!/bin/sh\n")

    assert refusal(path) == f"it is not executable, chmod +x {path} makes it so"


def test_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "it is a directory"


def test_a_missing_command_is_told_and_a_missing_file_speaks_for_itself() -> None:
    assert refusal("notacommand") == "no such command on PATH"
    assert refusal("/nonexistent/bootstrap") is None


def test_a_header_of_any_bytes_is_read_without_an_error(tmp_path: Path, true: bytes) -> None:
    path = tmp_path / "bootstrap"
    head = bytearray(true[:1024])
    head[18:20] = struct.pack("<H", {"x86_64": 62, "aarch64": 183}.get(HOST, 62))
    for at in range(4, 120):
        for value in (0x00, 0x7F, 0xFF):
            path.write_bytes(bytes(head[:at]) + bytes([value]) + bytes(head[at + 1 :]))
            why_not_run(str(path), OSError(errno.ENOEXEC, "Exec format error"))


def test_every_cut_of_a_header_is_read_without_an_error(tmp_path: Path, true: bytes) -> None:
    path = tmp_path / "bootstrap"
    for length in range(0, 1024, 3):
        path.write_bytes(true[:length])
        why_not_run(str(path), OSError(errno.ENOEXEC, "Exec format error"))
