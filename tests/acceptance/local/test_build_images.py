"""``scripts/build-images`` with a docker that only writes down how it is called."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest

from devtools.kind_cluster.names import IMAGES
from lambda_protocol import __version__
from tests.support import ROOT, run_command

FOLDERS = {
    "echo-lambda": "examples/echo-lambda",
    "image-greyscale-lambda": "examples/image-greyscale",
    "lambda-runtime-api-daemon": ".",
    "lambda-server": ".",
}


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """Give a docker that writes down what it is called with, in ``calls`` beside it."""
    tool = tmp_path / "docker"
    tool.write_text('#!/bin/sh\necho "$@" >> "${0%/*}/calls"\n[ "$1" != create ] || echo 4711\n')
    tool.chmod(0o755)
    return tool


def build(docker: Path) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the script; return how it ended, and the calls of docker."""
    done = run_command(
        ROOT / "scripts" / "build-images", env={"PATH": f"{docker.parent}:/usr/bin:/bin"}, cwd="/"
    )
    calls = docker.parent / "calls"
    return done, calls.read_text().splitlines() if calls.exists() else []


def test_every_image_is_built_by_its_file_from_its_folder_and_tagged(docker: Path) -> None:
    done, calls = build(docker)

    assert done.returncode == 0, done.stderr
    built = {}
    for words in (call.split() for call in calls if call.startswith("build ")):
        options: dict[str, list[str]] = {}
        for option, value in itertools.pairwise(words):
            options.setdefault(option, []).append(value)
        name = options["--tag"][0].partition(":")[0]
        built[name] = words[-1]
        assert options["--tag"] == [f"{name}:{__version__}", f"{name}:latest"]
        text = (ROOT / options["--file"][0]).read_text()
        for argument in options.get("--build-arg", []):
            assert f"\nARG {argument.partition('=')[0]}=" in text
    assert built == FOLDERS
    assert sorted(built) == sorted(IMAGES)


def test_the_static_file_is_left_where_docker_compose_mounts_it_from(docker: Path) -> None:
    _, calls = build(docker)

    compose = (ROOT / "docker-compose.yaml").read_text()
    assert calls[-3:] == [
        f"create lambda-runtime-api-daemon:{__version__}",
        "cp 4711:/usr/local/bin/rapid dist/lambda-runtime-api-daemon",
        "rm 4711",
    ]
    assert "source: ./dist/lambda-runtime-api-daemon" in compose


def test_a_failed_build_ends_it(docker: Path) -> None:
    docker.write_text(docker.read_text() + '[ "$1" != build ]\n')

    done, calls = build(docker)

    assert done.returncode != 0
    assert sum(call.startswith("build ") for call in calls) == 1


def test_without_a_daemon_it_says_so(docker: Path) -> None:
    docker.write_text("#!/bin/sh\nexit 1\n")

    done, _ = build(docker)

    assert done.returncode == 1
    assert "make docker needs docker and a running daemon" in done.stderr
