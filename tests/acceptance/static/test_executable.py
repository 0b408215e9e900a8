"""What the file is, and that it needs nothing of where it runs."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from devtools.ports import LOOPBACK, free_ports
from tests.support import BASH_ECHO, ROOT, Client, Program, run_command, wait_until

#: What an image for containers may grow by.
SIZE_LIMIT = 19_000_000
NOBODY = 65534
COPIES = ["lambda-runtime-api-daemon", "rapid"]
#: A user that is nobody, in a root folder that holds rapid and nothing else.
IN_EMPTY_ROOT = (
    *("setpriv", "--no-new-privs"),
    *("/usr/sbin/chroot", f"--userspec={NOBODY}:{NOBODY}", "--groups="),
)
#: Each makes some interpreter, loader or library run or show something.
DOORS = {
    "RAPID_AS_PYTHON": "1",
    "PYTHONHOME": "/tmp",
    "PYTHONINSPECT": "1",
    "PYTHONSTARTUP": "/dev/stdin",
    "PYTHONBREAKPOINT": "os.abort",
    "PYTHONVERBOSE": "1",
    "LD_PRELOAD": "/nonexistent.so",
    "LD_DEBUG": "all",
    "OPENSSL_CONF": "/nonexistent.cnf",
}


def test_every_module_of_rapid_is_in_it(executable: Path) -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "rapid").rglob("*.py")
    ]
    content = executable.read_bytes()

    assert [name for name in names if f"\0{name}\0".encode() not in content] == []


def run(executable: Path, *argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return run_command(executable, *argv, env=environ, input="print('a door')", timeout=20)


class Started(Program):
    """rapid by a command line of its own, in no environment but its settings."""

    def __init__(self, *command: str | Path, **environ: str) -> None:
        self.port, runtime_api_port = free_ports(2)
        super().__init__("rapid", [str(word) for word in command], {})
        self._environ = {
            "TEST_PROCESS_MARK": self._mark,
            "RAPID_INVOKE_API_HOST": LOOPBACK,
            "RAPID_PORT": str(self.port),
            "RAPID_RUNTIME_API_PORT": str(runtime_api_port),
            **environ,
        }

    def __enter__(self) -> Started:
        self.start()
        try:
            wait_until(lambda: self.exit_code is not None or self.is_listening(), "rapid to listen")
        except BaseException:
            self.close()
            raise
        return self

    def is_listening(self) -> bool:
        try:
            with Client(self.port) as client:
                return client.get("/healthz").status == 200
        except OSError:
            return False


# --- the file


def test_it_is_small_static_stripped_and_names_no_folder_of_the_machine_that_made_it(
    executable: Path,
) -> None:
    told = subprocess.run(["file", executable], capture_output=True, text=True, check=True).stdout
    content = executable.read_bytes()

    assert "statically linked" in told
    assert ", stripped" in told
    assert "interpreter" not in told
    assert len(content) <= SIZE_LIMIT
    for folder in (Path.home() / ".cache", Path(__file__).resolve().parents[3]):
        assert os.fsencode(folder) not in content


# --- without anything


def test_it_serves_as_nobody_in_an_empty_root(empty_root: Path) -> None:
    """Its function does not exist."""
    with Started(*IN_EMPTY_ROOT, empty_root, "/rapid", "/bootstrap", "app.handler") as rapid:
        with Client(rapid.port) as client:
            answer = client.post("/2015-03-31/functions/function/invocations", b"{}")
            metrics = client.get("/metrics")

        assert answer.status == 200
        assert answer.error_type == "Runtime.InvalidEntrypoint"
        assert metrics.status == 200
        assert b"lambda_invocations_total" in metrics.body
        assert Path(f"/proc/{rapid.pid}/root").resolve().name == "root"
        assert Path(f"/proc/{rapid.pid}").stat().st_uid == NOBODY
        assert rapid.stop() == 0


def test_a_broker_that_is_not_there_is_looked_for_from_an_empty_root(empty_root: Path) -> None:
    """All of pika is there, and resolving a name without a resolver's file fails in good order."""
    uri = f"amqp://127.0.0.1:{free_ports(1)[0]}"
    command = (*IN_EMPTY_ROOT, empty_root, "/rapid", "/bootstrap")
    with Started(*command, RAPID_AMQP_URI=uri, RAPID_EAGER_INIT="FALSE") as rapid:
        line = rapid.wait_for_log("broker")
        with Client(rapid.port) as client:
            assert client.get("/readyz").body != b""

    assert "Traceback" not in "\n".join(rapid.log)
    assert line


def test_it_may_be_a_file_that_can_only_be_executed(empty_root: Path) -> None:
    (empty_root / "rapid").chmod(0o111)

    done = run_command(*IN_EMPTY_ROOT, empty_root, "/rapid", "--version")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("rapid ")


# --- the environment


def test_a_function_gets_what_was_set_for_it_and_rapid_uses_none_of_it(
    executable: Path, tmp_path: Path
) -> None:
    bootstrap, found = tmp_path / "bootstrap", tmp_path / "environ"
    bootstrap.write_text(f"#!/bin/sh\ncat /proc/$$/environ > {found}.new\nmv {found}.new {found}\n")
    bootstrap.chmod(0o755)
    given = {
        "LD_LIBRARY_PATH": "/opt/lib:/var/lang/lib",
        "PYTHONHOME": "/var/lang",
        "PYTHONPATH": "/var/runtime",
        "SSL_CERT_FILE": "/nonexistent.pem",
        "LANG": "en_US.UTF-8",
    }
    with Started(executable, bootstrap, **given):
        wait_until(found.exists, "the function's environment")

    got = dict(line.split("=", 1) for line in found.read_text().split("\0") if line)
    assert {name: got.get(name) for name in given} == given
    assert not [name for name in got if name.startswith(("PYTHON", "LD_")) and name not in given]


@pytest.mark.parametrize("door", DOORS)
def test_no_variable_runs_code(executable: Path, door: str) -> None:
    done = run(executable, "--version", **{door: DOORS[door]})

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("rapid ")


def test_a_module_beside_it_is_not_imported(executable: Path, tmp_path: Path) -> None:
    shutil.copy(executable, tmp_path / "rapid")
    for name in ("sitecustomize", "usercustomize", "lambda_protocol", "json", "ctypes"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")

    done = run_command(
        tmp_path / "rapid",
        "--version",
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PYTHONUSERBASE": str(tmp_path)},
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_the_interpreters_own_options_are_no_flags(executable: Path) -> None:
    done = run(executable, "-c", "print('a door')")

    assert (done.returncode, done.stdout) == (2, "")
    assert "'-c' is no flag of rapid" in done.stderr


def test_the_brokers_password_is_hidden_from_its_user(executable: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("to run as another user, one has to be root")
    as_nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    uri = f"amqp://user:secret@127.0.0.1:{free_ports(1)[0]}"
    with Started(
        *as_nobody, executable, BASH_ECHO, RAPID_AMQP_URI=uri, PATH=os.environ["PATH"]
    ) as rapid:
        environ = f"/proc/{rapid.pid}/environ"
        as_root = Path(environ).read_bytes()
        seen = subprocess.run([*as_nobody, "cat", environ], capture_output=True, check=False)

    assert b"secret" in as_root
    assert seen.returncode == 1
    assert b"Permission denied" in seen.stderr


def test_an_exit_while_threads_start_is_no_crash(executable: Path) -> None:
    """The Runtime API's thread has only just been started when the other port is found taken."""
    with socket.create_server((LOOPBACK, 0)) as taken:
        ports = {"RAPID_PORT": str(taken.getsockname()[1]), "RAPID_RUNTIME_API_PORT": "0"}

        codes = {
            run(executable, RAPID_INVOKE_API_HOST=LOOPBACK, **ports).returncode for _ in range(20)
        }

    assert codes == {1}


# --- the copy of itself


def copy_itself(root: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return run_command(
        *IN_EMPTY_ROOT, root, *command, env={"KUBERNETES_INIT_CONTAINER": "TRUE"}, timeout=20
    )


@pytest.mark.parametrize("mode", [0o755, 0o555])
def test_it_copies_itself_from_an_empty_root_and_a_copy_is_as_good(
    empty_root: Path, executable: Path, mode: int
) -> None:
    target = empty_root / "tmp"
    target.mkdir()
    target.chmod(0o1777)  # as a volume is mounted there
    (empty_root / "rapid").chmod(mode)

    done = copy_itself(empty_root, "/rapid")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "rapid: copied to /tmp/lambda-runtime-api-daemon and /tmp/rapid\n"
    assert sorted(path.name for path in target.iterdir()) == COPIES
    for name in COPIES:
        assert (target / name).read_bytes() == executable.read_bytes()
        assert stat.S_IMODE((target / name).stat().st_mode) == mode
    (empty_root / "rapid").unlink()
    assert copy_itself(empty_root, "/tmp/lambda-runtime-api-daemon").returncode == 0
