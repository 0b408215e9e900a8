"""What the node may do to this machine: private namespaces and folders, and cgroups that go away.

The tests run below PID 1 of a PID namespace of their own. When that process ends, the kernel kills
every process of the namespace, and with the last of them go the mounts and the network interfaces.
Cgroups and folders are left, and are removed from outside.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_NAME: Final = "lambda-node-"  #: and the process id of the command
_REMOVAL_S: Final = 20.0

#: Dies with whoever started it, and its child dies with it, whatever happens.
_UNSHARE: Final = (
    *("setpriv", "--pdeathsig=KILL"),
    *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
    "--propagation=private",
)
#: Where programs of a node write, whatever they are told: each is covered by an overlay.
_COVERED: Final = ("/etc", "/var/lib", "/var/log", "/run", "/usr/libexec")
#: What a kubelet sets for the whole machine. It finds these values already, in files of its own.
_SYSCTLS: Final = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
_PROBE: Final = """\
set -e
mkdir upper work
mount -t overlay overlay -o lowerdir=/etc,upperdir=upper,workdir=work /etc
ip link add node0 type veth
nft list ruleset
"""


class NotHere(Exception):
    """This machine cannot run a node; the message says why."""


def check(folder: Path) -> None:
    """Try in ``folder`` what a node needs; raises ``NotHere``."""
    if os.geteuid() != 0:
        raise NotHere("it needs root")
    probe = folder / f"probe-{os.getpid()}"
    probe.mkdir(parents=True)
    try:
        done = subprocess.run(
            [*_UNSHARE, "sh", "-c", _PROBE],
            cwd=probe,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()[-1:]
            raise NotHere(f"no namespaces, overlayfs or nftables: {' '.join(said)}")
        with cgroup(os.getpid()):
            pass
    except OSError as error:
        raise NotHere(f"no cgroups: {error}") from error
    finally:
        shutil.rmtree(probe)


def is_unified() -> bool:
    """Return whether this machine has cgroup v2 alone."""
    return (_CGROUPS / "cgroup.controllers").exists()


@contextlib.contextmanager
def cgroup(number: int) -> Iterator[str]:
    """Make a cgroup in each hierarchy, and give its name; in the end remove all below it."""
    name = f"{_NAME}{number}"
    try:
        for hierarchy in _hierarchies():
            _make_cgroup(hierarchy, name)
        yield name
    finally:
        _remove_cgroups(name)


def remove_leftovers(folder: Path) -> None:
    """Remove the cgroups and folders of runs that were killed."""
    for hierarchy in _hierarchies():
        for found in hierarchy.glob(f"{_NAME}*"):
            if not _is_running(found.name.removeprefix(_NAME)):
                _remove_cgroups(found.name)
    for found in folder.glob("run-*"):
        if not _is_running(found.name.removeprefix("run-")):
            shutil.rmtree(found)


def run_enclosed(command: Sequence[str], *, environ: dict[str, str], cwd: Path) -> int:
    """Run ``command`` in namespaces of its own and return its exit status."""
    words = [*_UNSHARE, sys.executable, "-m", "tests.acceptance.node.machine", *command]
    with subprocess.Popen(words, env=environ, cwd=cwd) as process:
        try:
            return process.wait()
        except BaseException:
            # Ctrl-C reaches pytest as well: it may stop the node in order.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_REMOVAL_S)
            raise
        finally:
            process.kill()


def cover(folder: Path) -> None:
    """Cover in this mount namespace the folders and sysctls that a node writes."""
    for number, covered in enumerate(_COVERED):
        upper, work = folder / f"upper-{number}", folder / f"work-{number}"
        upper.mkdir()
        work.mkdir()
        options = f"lowerdir={covered},upperdir={upper},workdir={work}"
        _mount("-t", "overlay", "overlay", "-o", options, covered)
    for name, value in _SYSCTLS.items():
        file = folder / name.replace("/", "-")
        file.write_text(f"{value}\n")
        _mount("--bind", str(file), f"/proc/sys/{name}")


def first_process(command: Sequence[str]) -> int:
    """Run ``command`` and reap orphans, as PID 1 has to, until it ends; return its status."""
    child = subprocess.Popen(command)
    while True:
        try:
            pid, status = os.wait()
        except KeyboardInterrupt:  # the command got it too
            continue
        if pid == child.pid:
            return os.waitstatus_to_exitcode(status)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _hierarchies() -> list[Path]:
    """Return where the controllers are: one folder with cgroup v2, several with v1."""
    if is_unified():
        return [_CGROUPS]
    return [path for path in _CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def _make_cgroup(hierarchy: Path, name: str) -> None:
    """Make one; a cpuset without processors could hold no process."""
    if is_unified():
        controllers = (hierarchy / "cgroup.controllers").read_text().split()
        enabled = " ".join(f"+{controller}" for controller in controllers)
        (hierarchy / "cgroup.subtree_control").write_text(enabled)
    made = hierarchy / name
    made.mkdir(exist_ok=True)
    for setting in ("cpuset.cpus", "cpuset.mems"):
        if not is_unified() and (made / setting).exists():
            (made / setting).write_text((hierarchy / setting).read_text())


def _remove_cgroups(name: str) -> None:
    """Remove a cgroup with those below it. A process that was killed leaves it soon."""
    until = time.monotonic() + _REMOVAL_S
    for hierarchy in _hierarchies():
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            while True:
                try:
                    Path(folder).rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.05)


def _is_running(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


if __name__ == "__main__":
    sys.exit(first_process(sys.argv[1:]))
