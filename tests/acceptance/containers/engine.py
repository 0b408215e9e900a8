"""Containers without a container engine: buildah makes the images, runc runs them.

A folder of Debian's, made by debootstrap, stands in for the image ``debian:trixie-slim``, so that
nothing but Debian's archive has to be reached. Everything is kept in the user's cache.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from devtools.apt import AptError, install
from devtools.commands import CommandError, run
from devtools.progress import OnWait, Step
from devtools.static.sources import RELEASE, SourcesError, archive
from tests.support import LIMIT_S, WebProgram

_TOOLS: Final = ("buildah", "debootstrap", "runc")
_BASE: Final = f"docker.io/library/debian:{RELEASE}-slim"
_AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_AUTHORITIES_THERE: Final = "/run/authorities.crt"
_BUILD_LIMIT_S: Final = 3600.0


class NotHere(Exception):
    """This machine runs no containers; the message says why."""


class Images:
    """Images by their Dockerfiles, in a store of our own; each one's root folder, mounted."""

    def __init__(self, cache: Path) -> None:
        """Find or install the tools, and see whether they work here; raises ``NotHere``."""
        self._cache = cache
        self._mounted: list[str] = []
        if os.geteuid() != 0:
            raise NotHere("it needs root")
        missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
        try:
            if missing:
                install(missing, "to build and run containers")
            cache.mkdir(parents=True, exist_ok=True)
            self._need_base()
        except (AptError, CommandError, SourcesError) as error:
            raise NotHere(str(error)) from error

    def build(self, tag: str, dockerfile: Path, context: Path, **arguments: str) -> None:
        """Build an image. Raises ``CommandError``."""
        command = ["build", "--isolation=chroot", "--pull-never", "--format=docker", "--layers"]
        command += [f"--file={dockerfile}", f"--tag={tag}"]
        command += [f"--build-arg={name}={value}" for name, value in arguments.items()]
        command += self._trust()
        ignored = context / ".dockerignore"
        if ignored.exists():
            command.append(f"--ignorefile={ignored}")
        with Step(f"image {tag}") as step:
            self._run(*command, str(context), on_wait=step.tick)

    def tag(self, tag: str, other: str) -> None:
        """Give an image another name too. Raises ``CommandError``."""
        self._run("tag", tag, other)

    def id(self, tag: str) -> str:
        """Return what an image is called by its content."""
        return self._output("inspect", "--type=image", "--format={{.FromImageID}}", tag).strip()

    def push(self, tag: str, registry: str, on_wait: OnWait) -> None:
        """Push an image to a registry without TLS. Raises ``CommandError``."""
        target = f"docker://{registry}/{tag}"
        self._run("push", "--quiet", "--tls-verify=false", tag, target, on_wait=on_wait)

    def settings(self, tag: str) -> dict[str, Any]:
        """Return what the image says of itself, as Docker has it."""
        shown = json.loads(self._output("inspect", "--type=image", tag))
        found: dict[str, Any] = shown["Docker"]["config"]
        return found

    def root(self, tag: str) -> Path:
        """Return the root folder of a new container of the image."""
        name = f"{tag}-{uuid.uuid4().hex[:8]}"
        self._run("from", "--pull-never", f"--name={name}", tag)
        self._mounted.append(name)
        return Path(self._output("mount", name).strip())

    def close(self) -> None:
        """Remove the containers; the images stay for the next run."""
        for name in self._mounted:
            self._run("umount", name)
            self._run("rm", name)
        self._mounted.clear()

    def _trust(self) -> list[str]:
        """Return what makes pip in a build trust the authorities that this machine trusts."""
        if not _AUTHORITIES.exists():
            return []
        settings = self._cache / "pip.conf"
        settings.write_text(f"[global]\ncert = {_AUTHORITIES_THERE}\n")
        return [
            f"--volume={_AUTHORITIES}:{_AUTHORITIES_THERE}:ro",
            f"--volume={settings}:/etc/pip.conf:ro",
        ]

    def _need_base(self) -> None:
        if self._output("images", "--quiet", "--filter=reference=" + _BASE).strip():
            return
        with (
            Step(f"Debian {RELEASE}, by debootstrap") as step,
            tempfile.TemporaryDirectory(dir=self._cache) as folder,
        ):
            root, packed = Path(folder) / "root", Path(folder) / "root.tar"
            mirror = f"{archive()}debian"
            run(
                ["debootstrap", "--variant=minbase", RELEASE, root, mirror],
                _BUILD_LIMIT_S,
                step.tick,
            )
            run(["tar", "-C", root, "-cf", packed, "."], _BUILD_LIMIT_S, step.tick)
            self._run("from", "--name=base", "scratch")
            self._run("add", "base", str(packed), "/", on_wait=step.tick)
            self._run("commit", "--rm", "base", _BASE, on_wait=step.tick)

    def _words(self) -> list[str]:
        return ["buildah", f"--root={self._cache / 'storage'}", f"--runroot={self._cache / 'run'}"]

    def _environ(self) -> dict[str, str]:
        """Return buildah's environment: caches that RUN mounts are kept below ``TMPDIR``."""
        return {**os.environ, "TMPDIR": str(self._cache)}

    def _run(self, *words: str, on_wait: OnWait | None = None) -> None:
        run([*self._words(), *words], _BUILD_LIMIT_S, on_wait, env=self._environ())

    def _output(self, *words: str) -> str:
        done = subprocess.run(
            [*self._words(), *words],
            env=self._environ(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise CommandError(f"buildah {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout


class Container(WebProgram):
    """A container as strict as Kubernetes makes one: its root read-only, without capabilities.

    It has the machine's network, and so its loopback address. ``mounts`` are destinations and what
    is there: a file or folder of the machine's, or None for one in memory.
    """

    def __init__(
        self,
        folder: Path,
        root: Path,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        port: int = 0,
        ready: bool = True,
        user: int = 1000,
        cwd: str = "/",
        mounts: Mapping[str, Path | None] | None = None,
    ) -> None:
        """Write the bundle into ``folder``; entering runs it."""
        self.id = f"test-{uuid.uuid4().hex[:12]}"
        self._runc = ["runc", f"--root={folder / 'runc'}"]
        bundle = Path(tempfile.mkdtemp(dir=folder, prefix="bundle-"))
        words = [*self._runc, "run", f"--bundle={bundle}", self.id]
        super().__init__(f"container of {root.parent.name}", words, {}, port=port, ready=ready)
        variables = {"TEST_PROCESS_MARK": self._mark, **environ}
        (bundle / "config.json").write_text(
            json.dumps(
                {
                    "ociVersion": "1.0.2",
                    "root": {"path": str(root), "readonly": True},
                    "process": {
                        "args": list(command),
                        "cwd": cwd,
                        "env": [f"{name}={value}" for name, value in variables.items()],
                        "user": {"uid": user, "gid": user},
                        "capabilities": {},
                        "noNewPrivileges": True,
                    },
                    "mounts": [
                        {"destination": "/proc", "type": "proc", "source": "proc"},
                        _in_memory("/dev", "mode=755"),
                        *(_mount(where, what) for where, what in (mounts or {}).items()),
                    ],
                    "linux": {
                        "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]
                    },
                }
            )
        )

    @property
    def init(self) -> int:
        """The process that is PID 1 in it, by the machine's number."""
        state = subprocess.run(
            [*self._runc, "state", self.id], capture_output=True, text=True, check=True
        )
        return int(json.loads(state.stdout)["pid"])

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run another command in it to its end."""
        return subprocess.run(
            [*self._runc, "exec", self.id, *command],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def close(self) -> None:
        """Remove it, whatever runs in it."""
        subprocess.run(
            [*self._runc, "delete", "--force", self.id], capture_output=True, check=False
        )
        super().close()


def _mount(where: str, what: Path | None) -> dict[str, object]:
    if what is None:
        return _in_memory(where, "mode=1777")
    options = ["bind", "ro" if what.is_file() else "rw"]
    return {"destination": where, "type": "bind", "source": str(what), "options": options}


def _in_memory(where: str, mode: str) -> dict[str, object]:
    options = ["nosuid", "nodev" if where != "/dev" else "noexec", mode]
    return {"destination": where, "type": "tmpfs", "source": "tmpfs", "options": options}
