"""``scripts/build-images`` with a docker that only writes down how it is called."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from devtools.kind_cluster.names import IMAGES
from lambda_protocol import __version__
from tests.support import ROOT


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """Give a folder for PATH; what its docker is called with is in ``calls``."""
    tool = tmp_path / "docker"
    tool.write_text(
        '#!/bin/sh\necho "$@" >> "${0%/*}/calls"\nif [ "$1" = create ]; then echo 4711; fi\n'
    )
    tool.chmod(0o755)
    return tmp_path


def build(docker: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "build-images"],
        env={"PATH": f"{docker}:/usr/bin:/bin"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def built(docker: Path) -> dict[str, list[str]]:
    """Return the words of each build by the image's name."""
    lines = [line.split() for line in (docker / "calls").read_text().splitlines()]
    return {
        words[words.index("--tag") + 1].partition(":")[0]: words
        for words in lines
        if words[0] == "build"
    }


def test_every_image_of_the_cluster_is_built(docker: Path) -> None:
    done = build(docker)

    assert done.returncode == 0, done.stderr
    assert sorted(built(docker)) == sorted(IMAGES)


def test_images_are_tagged_with_the_version(docker: Path) -> None:
    build(docker)

    for image, words in built(docker).items():
        tags = [words[i + 1] for i, word in enumerate(words) if word == "--tag"]
        assert tags == [f"{image}:{__version__}", f"{image}:latest"]


def test_each_is_built_from_what_is_there(docker: Path) -> None:
    build(docker)

    for words in built(docker).values():
        assert (ROOT / words[words.index("--file") + 1]).is_file()
        assert (ROOT / words[-1]).is_dir()


def test_a_function_is_built_from_its_own_folder(docker: Path) -> None:
    """Its Dockerfile copies files by names that are relative to it."""
    build(docker)

    folders = {image: words[-1] for image, words in built(docker).items()}
    assert folders == {
        "echo-lambda": "examples/echo-lambda",
        "image-greyscale-lambda": "examples/image-greyscale",
        "lambda-runtime-api-daemon": ".",
        "lambda-server": ".",
    }


def test_build_arguments_are_those_that_the_file_takes(docker: Path) -> None:
    build(docker)

    for words in built(docker).values():
        text = (ROOT / words[words.index("--file") + 1]).read_text()
        given = [words[i + 1] for i, word in enumerate(words) if word == "--build-arg"]
        for argument in given:
            assert f"ARG {argument.partition('=')[0]}=" in text


def test_the_static_file_is_left_where_docker_compose_mounts_it_from(docker: Path) -> None:
    build(docker)

    calls = (docker / "calls").read_text().splitlines()
    compose = (ROOT / "docker-compose.yaml").read_text()
    assert f"create lambda-runtime-api-daemon:{__version__}" in calls
    assert "cp 4711:/usr/local/bin/rapid dist/lambda-runtime-api-daemon" in calls
    assert "rm 4711" in calls
    assert "source: ./dist/lambda-runtime-api-daemon" in compose


def test_a_failed_build_ends_it(docker: Path) -> None:
    tool = docker / "docker"
    tool.write_text(tool.read_text() + '[ "$1" != build ]\n')

    assert build(docker).returncode != 0
    assert len(built(docker)) == 1


def test_without_a_daemon_it_says_so(docker: Path) -> None:
    (docker / "docker").write_text("#!/bin/sh\nexit 1\n")

    done = build(docker)

    assert done.returncode == 1
    assert "make docker needs docker and a running daemon" in done.stderr
