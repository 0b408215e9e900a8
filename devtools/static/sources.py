"""What the executable is made of, from Debian's archive: apt downloads it and checks signatures.

apt is told of the release by options alone, so the machine's own lists and caches stay as they are.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Final

from devtools.commands import CommandError, run
from devtools.progress import OnWait

#: The Debian release that everything is taken from, whatever runs here.
RELEASE: Final = "trixie"
#: Source packages, which we compile.
COMPILED: Final = ("musl", "zlib", "openssl", "python3.13")
#: Packages of pure Python, which we freeze: what rapid imports, and what that imports.
FROZEN: Final = ("python3-pika", "python3-prometheus-client", "python3-decorator")

_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_LIMIT_S: Final = 900.0


class SourcesError(Exception):
    """The sources cannot be had; the message says why."""


def fetch(folder: Path, on_wait: OnWait) -> list[str]:
    """Fill ``folder`` with the newest sources; return what to tell of them.

    Python packages are unpacked into ``python`` below the folder, the source packages are left as
    they came. What was there before stays unless all of it can be had. Raises ``SourcesError``.
    """
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        apt = _Apt(folder.with_name("apt"), on_wait)
        told = [note for name in COMPILED for note in apt.source(name, fresh)]
        apt.unpack(FROZEN, fresh)
    except (CommandError, OSError) as error:
        raise SourcesError(str(error)) from error
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return told


class _Apt:
    """apt-get, with lists and caches of our own in ``state``."""

    def __init__(self, state: Path, on_wait: OnWait) -> None:
        """Read the lists of the release."""
        self._on_wait = on_wait
        for part in ("lists/partial", "cache/archives/partial"):
            (state / part).mkdir(parents=True, exist_ok=True)
        base = archive()
        lines = [
            f"{kind} [signed-by={_KEYRING}] {base}{uri} {suite} main"
            for kind in ("deb", "deb-src")
            for uri, suite in (
                ("debian", RELEASE),
                ("debian", f"{RELEASE}-updates"),
                ("debian-security", f"{RELEASE}-security"),
            )
        ]
        (state / "sources.list").write_text("\n".join(lines) + "\n")
        settings = {
            "Dir::Etc::SourceList": state / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": state / "lists",
            "Dir::Cache": state / "cache",
            "APT::Sandbox::User": "root",  # the folders are ours, not apt's
        }
        self._options = [
            word for name, value in settings.items() for word in ("-o", f"{name}={value}")
        ]
        self._get("update")

    def source(self, name: str, folder: Path) -> list[str]:
        """Download the newest version that the archive has; tell when it lists a newer one."""
        versions = self._versions(name)
        for version in versions:
            try:
                self._get("source", "--download-only", f"{name}={version}", cwd=folder)
            except CommandError:
                if version == versions[-1]:
                    raise
                for partial in folder.glob(f"{name}_*"):
                    partial.unlink()
            else:
                newest = versions[0]
                return [] if version == newest else [f"{name} {version}; {newest} cannot be had"]
        raise SourcesError(f"{RELEASE} has no source package {name}")

    def unpack(self, names: tuple[str, ...], folder: Path) -> None:
        """Download packages and take their Python modules."""
        self._get("download", *names, cwd=folder)
        modules = folder / "python"
        modules.mkdir()
        for package in sorted(folder.glob("*.deb")):
            root = folder / package.stem
            run(["dpkg-deb", "--extract", package, root], _LIMIT_S, self._on_wait)
            for entry in (root / "usr/lib/python3/dist-packages").iterdir():
                if entry.suffix in ("", ".py"):
                    entry.rename(modules / entry.name)
            shutil.rmtree(root)

    def _versions(self, name: str) -> list[str]:
        """Return the versions that the lists have, newest first."""
        shown = subprocess.run(
            ["apt-cache", *self._options, "showsrc", "--only-source", name],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        versions = {line.split()[1] for line in shown.splitlines() if line.startswith("Version: ")}
        return sorted(versions, key=functools.cmp_to_key(_compare), reverse=True)

    def _get(self, *words: str, cwd: Path | None = None) -> None:
        run(["apt-get", "--quiet", *self._options, *words], _LIMIT_S, self._on_wait, cwd=cwd)


def archive() -> str:
    """Return where this machine gets Debian from: the part that its archives' addresses share."""
    if not _KEYRING.exists():
        raise SourcesError(f"{_KEYRING} is not there; expected a Debian machine, or that keyring")
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Identifier: Packages"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    for uri in targets.split():
        base, _, last = uri.rstrip("/").rpartition("/")
        if last == "debian":
            return f"{base}/"
    raise SourcesError(
        "apt knows no address that ends in /debian; expected Debian's archive, and its lists: "
        "run `apt-get update`"
    )


def _compare(one: str, other: str) -> int:
    """Order two versions as dpkg does."""
    if one == other:
        return 0
    command = ["dpkg", "--compare-versions", one, "gt", other]
    return 1 if subprocess.run(command, check=False).returncode == 0 else -1
