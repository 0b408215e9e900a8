"""Types the blocks of documents into a terminal, in order.

``test_readme_blocks.py`` runs ``python -m tests.acceptance.readme_run SCRATCH`` in namespaces of
its own for network, mounts and processes: there the ports of the documents are free, and what is
written to the checkout goes away. Prints one JSON object for each command.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.shell_commands import commands_of
from tests.support import ROOT
from tests.terminal import Terminal

#: What is not run here, and why. Every one has to occur.
EXEMPT: Final = {
    r"git clone ": "the test runs in a checkout",
    r"make (rapid|docker)": "minutes of compiling; tests of their own build these",
    r"docker ": "needs docker",
    r"kubectl ": "needs a cluster",
    r"rabbitmqctl ": "is for a RabbitMQ of the system",
}
#: Where a document's commands start. Go's and Node's examples ask their registries first, and
#: image-greyscale's the stack to be down; both run in tests/acceptance/examples.
FOLDERS: Final = {
    "README.md": ROOT,
    "docs/how-to/laptop.md": ROOT,
    "docs/how-to/ci.md": ROOT,
    "docs/how-to/one-host.md": ROOT,
    "docs/how-to/debug-a-start.md": ROOT,
    "docs/reference/amqp.md": ROOT,
    "docs/reference/asynchronous-invocation.md": ROOT,
    "docs/reference/extensions.md": ROOT,
    "examples/clients/README.md": ROOT,
    "examples/echo-lambda/README.md": ROOT / "examples" / "echo-lambda",
    "examples/echo-lambda-bash/README.md": ROOT / "examples" / "echo-lambda-bash",
    "examples/extensions/README.md": ROOT,
}
#: Stand before a block for a further terminal, while the commands before it run on.
IN_ANOTHER_TERMINAL: Final = "in another terminal:\n\n"
IN_A_THIRD_TERMINAL: Final = "in a third terminal:\n\n"
#: In an answer: the function failed, or the call did.
_FAILURE: Final = re.compile(r'"errorType"|"[Mm]essage"|Traceback')
#: Commands whose program is up but not ready: its bootstrap lacks.
_NEVER_READY: Final = ("cd examples/hello ",)
_SERVERS: Final = (["rapid"], ["gunicorn"], ["lambda-server", "serve"], ["lambda-server", "dev"])
_COMMAND_LIMIT_S: Final = 300.0
_READY_LIMIT_S: Final = 60.0
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_INTERFACE: Final = "16sh22x"  # struct ifreq: name, flags


def main() -> int:
    """Run the blocks; return 1 if one of their commands did not do what it should."""
    bring_loopback_up()
    cover_checkout(Path(sys.argv[1]))
    environ = {"HOME": os.environ.get("HOME", "/root"), "PATH": os.environ["PATH"]}
    is_good = True
    for document, folder in FOLDERS.items():
        with contextlib.closing(Session(folder, environ)) as session:
            for line, language, text, before in blocks_of(ROOT / document):
                for record in session.run_block(language, text, before):
                    record = {"at": f"{document}:{line}", **record}
                    is_good = is_good and record.get("problem") is None
                    print(json.dumps(record), flush=True)
    return 0 if is_good else 1


def bring_loopback_up() -> None:
    """Give the new network namespace its loopback interface. Source: netdevice(7)."""
    with socket.socket() as sock:
        asked = fcntl.ioctl(sock, _SIOCGIFFLAGS, struct.pack(_INTERFACE, b"lo", 0))
        name, flags = struct.unpack(_INTERFACE, asked)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack(_INTERFACE, name, flags | _IFF_UP))


def cover_checkout(scratch: Path) -> None:
    """Lay an overlay over the checkout: it is as it was, and what is written is gone afterwards."""
    mount = ["mount", "-t"]
    subprocess.run([*mount, "tmpfs", "none", scratch], check=True)
    for name in ("upper", "work", "tmp"):
        (scratch / name).mkdir()
    layers = f"lowerdir={ROOT},upperdir={scratch}/upper,workdir={scratch}/work"
    subprocess.run([*mount, "overlay", "overlay", "-o", layers, ROOT], check=True)
    if not ROOT.is_relative_to("/tmp"):
        subprocess.run(["mount", "--bind", scratch / "tmp", "/tmp"], check=True)
    os.chdir(ROOT)  # the folder under the overlay is another one
    shutil.rmtree(".local", ignore_errors=True)
    for stamp in (".runtime", ".dev"):  # there is no network to bring .venv up to date by
        Path(".venv", stamp).touch()


def blocks_of(document: Path) -> Iterator[tuple[int, str, str, str]]:
    """Yield line, language and text of each block that can be run, and the text before it."""
    text = document.read_text()
    for found in re.finditer(r"^```(sh|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, found.start()) + 2, found[1], found[2], text[: found.start()]


class Session:
    """Three terminals side by side. In each a server may be running."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._terminals = [Terminal(folder, environ) for _ in range(3)]
        self._running: dict[int, str] = {}  # terminal → the command of its server

    def run_block(self, language: str, text: str, before: str) -> Iterator[dict[str, str | None]]:
        """Run a block's commands, and yield what came of each."""
        if language == "python":
            (ROOT / "block.py").write_text(text)
            text = f"python {ROOT}/block.py"
        number = 1 * before.endswith(IN_ANOTHER_TERMINAL) + 2 * before.endswith(IN_A_THIRD_TERMINAL)
        for command in logical_lines(text):
            reason = next((why for what, why in EXEMPT.items() if re.match(what, command)), None)
            if reason is not None:
                yield {"command": command, "exempt": reason}
            else:
                yield {"command": command, "problem": self._run(command, number)}

    def close(self) -> None:
        """Stop what runs, and close the terminals."""
        self._stop_from(0)
        for terminal in self._terminals:
            terminal.close()

    def _run(self, command: str, number: int) -> str | None:
        """Run a command in a terminal, and return what is wrong with what it did."""
        if (problem := self._stop_from(number)) is not None:
            return problem
        terminal = self._terminals[number]
        if is_server(command):
            terminal.type(command)
            self._running[number] = command
            return wait_until_up(command)
        try:
            code, output = terminal.run(command, _COMMAND_LIMIT_S)
        except TimeoutError as error:
            return str(error)
        return f"exit code {code}: {output}" if code or _FAILURE.search(output) else None

    def _stop_from(self, number: int) -> str | None:
        """Press Ctrl-C in this terminal and the ones after it, the last one first.

        Return what is wrong with how a server ended.
        """
        problems = []
        for each in sorted((each for each in self._running if each >= number), reverse=True):
            command = self._running.pop(each)
            try:
                code, output = self._terminals[each].interrupt(_READY_LIMIT_S)
            except TimeoutError as error:
                problems.append(f"{command}: {error}")
                continue
            if code not in (0, 130) or "Traceback" in output:
                problems.append(f"{command}: after Ctrl-C exit code {code}: {output}")
        return "\n".join(problems) or None


def logical_lines(text: str) -> Iterator[str]:
    """Yield the commands of a block as a person types them: each with its continuation lines."""
    command = ""
    for line in text.splitlines(keepends=True):
        command += line
        parsed = subprocess.run(["bash", "-n", "-c", command], capture_output=True, check=False)
        if parsed.returncode == 0 and not parsed.stderr and not line.rstrip("\n").endswith("\\"):
            if command.strip() and not command.startswith("#"):
                yield command.strip()
            command = ""
    assert not command.strip(), command


def is_server(command: str) -> bool:
    """Return whether a command runs until Ctrl-C."""
    return any(
        words[: len(server)] == server for words in commands_of(command) for server in _SERVERS
    )


def wait_until_up(command: str) -> str | None:
    """Wait until a server is ready on the port that its command names."""
    found = re.search(r"(?:--port |PORT=)(\d+)", command)
    port = int(found[1]) if found else 8080
    path = "/healthz" if any(each in command for each in _NEVER_READY) else "/readyz"
    deadline = time.monotonic() + _READY_LIMIT_S
    answer = "no answer"
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            answer = response.read().decode()
            if response.status == 200:
                return None
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    return f"{path} on port {port} is not 200 after {_READY_LIMIT_S:g} s: {answer}"


if __name__ == "__main__":
    sys.exit(main())
