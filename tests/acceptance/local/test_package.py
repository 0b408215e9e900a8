"""The source distribution and the wheel, built from a clone as a release is."""

from __future__ import annotations

import email
import email.message
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

import lambda_protocol
import lambda_server
import rapid
from lambda_protocol import __version__
from tests.support import ROOT, base_environ, run_command, run_rapid

PACKAGES = ("lambda_protocol", "lambda_server", "rapid")
NAME = f"lambda_runtime_api_daemon-{__version__}"
REMOTE = "https://user:secret@git.example.com/owner/lambda.git"
SOURCE = "Source, https://git.example.com/owner/lambda"
LIMIT_S = 120


class Built(NamedTuple):
    """What was built, by the names of the files in it."""

    sdist: set[str]
    wheel: set[str]
    metadata: email.message.Message
    sdist_wheel: set[str]  #: of the wheel that was built from the source distribution
    sdist_metadata: email.message.Message


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build both from a clone with a remote, and a wheel from the source distribution."""
    folder = tmp_path_factory.mktemp("package")
    clone = folder / "clone"
    made = ("build", "dist", "node_modules", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, clone, symlinks=True, ignore=shutil.ignore_patterns(".?*", *made))
    run("git", "init", "--quiet", cwd=clone)
    run("git", "remote", "add", "origin", REMOTE, cwd=clone)
    for what in ("sdist", "wheel"):
        build(what, clone, folder / what)
    archive = folder / "sdist" / f"{NAME}.tar.gz"
    with tarfile.open(archive) as file:
        sdist = {name.partition("/")[2] for name in file.getnames()}
        file.extractall(folder, filter="data")
    build("wheel", folder / NAME, folder / "from-sdist")
    return Built(sdist, *read_wheel(folder / "wheel"), *read_wheel(folder / "from-sdist"))


def build(what: str, source: Path, target: Path) -> None:
    """Build as pip does, by PEP 517, but with the setuptools of this environment."""
    hook = f"from setuptools import build_meta as b; b.build_{what}({str(target)!r})"
    target.mkdir()
    run(sys.executable, "-c", hook, cwd=source)


def run(*command: str, cwd: Path) -> None:
    done = run_command(*command, cwd=cwd, env=base_environ(), timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr


def read_wheel(folder: Path) -> tuple[set[str], email.message.Message]:
    with zipfile.ZipFile(folder / f"{NAME}-py3-none-any.whl") as file:
        metadata = file.read(f"{NAME}.dist-info/METADATA").decode()
        return set(file.namelist()), email.message_from_string(metadata)


def modules() -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    } | {f"{package}/py.typed" for package in PACKAGES}


@pytest.mark.slow
def test_wheel_and_source_distribution_have_the_packages_and_what_is_listed(built: Built) -> None:
    documents = {"CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "docs/PACKAGE.md"}
    settings = {"gunicorn.conf.py", "setup.cfg", "setup.py", "MANIFEST.in"}
    files = {name for name in built.sdist if "." in name or name == "LICENSE"}
    made = {name for name in files if ".egg-info" in name or name in ("PKG-INFO", "")}

    assert {name for name in built.wheel if ".dist-info/" not in name} == modules()
    assert any(name.endswith("/LICENSE") for name in built.wheel)
    assert files - made == modules() | documents | settings
    assert built.sdist_wheel == built.wheel
    assert str(built.sdist_metadata) == str(built.metadata)


@pytest.mark.slow
def test_the_package_page_leads_to_the_repository_it_was_built_from(built: Built) -> None:
    text = str(built.metadata.get_payload())

    assert built.metadata.get_all("Project-URL") == [SOURCE]
    assert "secret" not in str(built.metadata)
    assert text.lstrip().startswith("# Lambda Runtime API Daemon")
    assert built.metadata["Description-Content-Type"] == "text/markdown"
    links = re.findall(r"\]\(([^)]*)\)|<(?:a|img)[^>]*[\"']([^\"']*)", text)
    assert [link for link in links if not "".join(link).startswith("https://")] == []


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://host/owner/name.git", "https://host/owner/name"),
        ("https://host/owner/name/", "https://host/owner/name"),
        ("http://user@host:3000/owner/name", "http://host:3000/owner/name"),
        ("git@host:owner/name.git", "https://host/owner/name"),
        ("ssh://git@host:22/owner/name.git", "https://host/owner/name"),
        ("ssh://git@host/owner/name", "https://host/owner/name"),
        ("/srv/git/name.git", None),
        ("../name", None),
        ("", None),
    ],
)
def test_a_remote_has_a_web_address(
    remote: str, address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("setuptools.setup", lambda **_: None)
    names: dict[str, object] = {"__file__": "/nowhere/setup.py"}
    exec(compile((ROOT / "setup.py").read_text(), "setup.py", "exec"), names)

    assert names["web_address"](remote) == address  # type: ignore[operator]


def test_there_is_one_version(built: Built) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "lambda_server", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )

    assert {each.__version__ for each in (lambda_protocol, lambda_server, rapid)} == {__version__}
    assert built.metadata["Version"] == __version__
    assert run_rapid("--version").stdout == f"rapid {__version__}\n"
    assert said.stdout == f"lambda-server, version {__version__}\n"


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("docker/Dockerfile-daemon", r"ARG VERSION=(\S+)"),
        ("docker/Dockerfile-server", r"ARG VERSION=(\S+)"),
        ("docker-compose.yaml", r"image: (?:lambda|echo|image)-[a-z-]+:(\S+)"),
        ("examples/Dockerfile.rapid", r"lambda-runtime-api-daemon:(\S+)"),
        ("k8s/versions/kustomization.yaml", r"newName: localhost:5000/\S+ newTag: ([^}]+)"),
    ],
)
def test_what_names_our_images_names_the_version(path: str, pattern: str) -> None:
    assert set(re.findall(pattern, (ROOT / path).read_text())) == {__version__}
