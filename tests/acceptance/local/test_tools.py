"""What ``make`` leans on: steps that tell their time, commands, packages, ports, kustomize."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from devtools import examples, kustomize, ports, prepare_tests
from devtools.apt import AptError, install
from devtools.commands import CommandError, run
from devtools.examples import ECHO, GREYSCALE, available
from devtools.kustomize import VERSION, KustomizeError, find_kustomize, render
from devtools.ports import free_ports
from devtools.progress import Step


def program(folder: Path, name: str, text: str = "#!/bin/sh\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text)
    file.chmod(0o755)
    return file


@pytest.fixture
def empty_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give a machine with an empty cache and nothing on its PATH but what a test puts there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


# --- steps and commands


def test_a_step_that_raises_says_that_it_failed() -> None:
    out = io.StringIO()

    with pytest.raises(ZeroDivisionError), Step("RabbitMQ starts", out):
        _ = 1 / 0

    assert out.getvalue() == "  RabbitMQ starts: failed\n"


@pytest.mark.parametrize(
    ("command", "limit_s", "said"),
    [
        (["sh", "-c", "seq 0 99; exit 7"], 10.0, r"failed with status 7\n85\n(.*\n)*98\n99$"),
        (["sleep", "600"], 0.2, "sleep 600: took too long"),
    ],
)
def test_a_command_that_fails_says_why_and_not_what_it_read(
    command: list[str], limit_s: float, said: str
) -> None:
    with pytest.raises(CommandError, match=said) as raised:
        run(command, limit_s, stdin="a secret")

    assert "a secret" not in str(raised.value)


# --- packages


@pytest.mark.parametrize(
    ("has_apt_get", "said"),
    [(False, "there is no apt-get"), (True, "run `sudo apt-get install lld curl`")],
)
def test_what_cannot_be_installed_is_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch, empty_machine: Path, has_apt_get: bool, said: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if has_apt_get:
        program(empty_machine, "apt-get")

    with pytest.raises(AptError, match=f"lld and curl needed by the tests: {said}"):
        install(["lld", "curl"], "by the tests")


def test_a_package_is_missing_when_what_it_brings_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(prepare_tests, "find_server", lambda: Path("/rabbitmq-server"))
    monkeypatch.setattr("shutil.which", lambda name: name != "wasm-ld" or None)
    program(tmp_path / "include" / "stb", "stb_image.h")

    missing = prepare_tests.missing_packages(tmp_path)

    assert missing == ["lld", "libclang-rt-dev-wasm32", "wasi-libc"]


@pytest.mark.parametrize(
    ("missing", "has_kubectl", "in_ci"),
    [
        pytest.param([], True, 0, id="kubectl stands in"),
        pytest.param([], False, 1, id="no kustomize"),
        pytest.param(["lld"], True, 1, id="no package"),
    ],
)
@pytest.mark.parametrize("ci", ["true", ""])
def test_what_tests_lack_is_a_failure_in_ci_only(
    monkeypatch: pytest.MonkeyPatch,
    empty_machine: Path,
    missing: list[str],
    has_kubectl: bool,
    in_ci: int,
    ci: str,
) -> None:
    def refuse(packages: Sequence[str], reason: str) -> None:
        raise AptError(f"{packages} needed {reason}")

    monkeypatch.setattr(prepare_tests, "missing_packages", lambda: missing)
    monkeypatch.setattr(prepare_tests, "install", refuse)
    monkeypatch.setenv("CI", ci)
    if has_kubectl:
        program(empty_machine, "kubectl")

    assert prepare_tests.main() == (in_ci if ci else 0)


def test_an_example_that_cannot_be_started_is_told_and_left_out(
    monkeypatch: pytest.MonkeyPatch, empty_machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_index(*_args: object) -> None:
        raise CommandError("pip install failed:\nERROR: No matching distribution found")

    assert available() == [ECHO, GREYSCALE]  # without a compiler

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(examples, "run", no_index)

    assert available() == [ECHO]
    said = "image-greyscale-lambda: left out, ERROR: No matching distribution found"
    assert said in capsys.readouterr().out


# --- kustomize


def test_the_pinned_kustomize_comes_before_kubectls(empty_machine: Path) -> None:
    program(empty_machine, "kubectl", "#!/bin/sh\necho $1 $2\n")
    by_kubectl = render(Path("k8s/base"))
    built = program(kustomize.cache() / f"kustomize-{VERSION}", "kustomize")

    assert by_kubectl == "kustomize k8s/base\n"
    assert find_kustomize() == [str(built), "build"]


@pytest.mark.usefixtures("empty_machine")
def test_without_kustomize_it_is_said_what_to_do() -> None:
    with pytest.raises(KustomizeError, match=r"scripts/test-setup builds one"):
        render(Path("k8s/base"))


# --- ports


def test_free_ports_differ_and_lie_below_those_the_kernel_gives_to_clients() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])

    found = free_ports(30)

    assert len(set(found)) == 30
    assert max(found) < first


def test_two_test_workers_never_draw_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "2")
    ranges = []
    for worker in ("gw0", "gw1"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        ranges.append(set(ports._own_range()))

    assert not ranges[0] & ranges[1]
    assert all(len(own) > 1_000 for own in ranges)
