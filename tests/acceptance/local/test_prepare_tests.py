from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from devtools import prepare_tests
from devtools.apt import AptError
from devtools.kustomize import KustomizeError


def refuse(packages: Sequence[str], reason: str) -> None:
    raise AptError(f"{' and '.join(packages)} needed {reason}")


def test_one_line_when_there_is_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prepare_tests, "missing_packages", list)
    monkeypatch.setattr(prepare_tests, "is_kustomize_built", lambda: True)
    monkeypatch.setattr(prepare_tests, "install", refuse)

    assert prepare_tests.main() == 0

    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize(
    ("ci", "status"), [pytest.param("true", 1, id="CI"), pytest.param("", 0, id="laptop")]
)
def test_what_cannot_be_installed_is_a_failure_in_ci_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ci: str, status: int
) -> None:
    monkeypatch.setattr(prepare_tests, "find_server", lambda: None)
    monkeypatch.setattr(prepare_tests, "install", refuse)
    monkeypatch.setattr(prepare_tests, "install_kustomize", lambda: None)
    monkeypatch.setenv("CI", ci)

    assert prepare_tests.main() == status

    assert "rabbitmq-server needed by the tests" in capsys.readouterr().err


def test_a_package_is_missing_when_what_it_brings_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(prepare_tests, "find_server", lambda: Path("/rabbitmq-server"))
    monkeypatch.setattr("shutil.which", lambda name: name != "wasm-ld" or None)
    header = tmp_path / "include" / "stb" / "stb_image.h"
    header.parent.mkdir(parents=True)
    header.touch()

    missing = prepare_tests.missing_packages(tmp_path)

    assert missing == ["lld", "libclang-rt-dev-wasm32", "wasi-libc"]


@pytest.mark.parametrize(
    ("kubectl", "status"),
    [pytest.param(["kubectl"], 0, id="kubectl"), pytest.param(None, 1, id="no")],
)
def test_kubectl_stands_in_where_kustomize_cannot_be_built(
    monkeypatch: pytest.MonkeyPatch, kubectl: list[str] | None, status: int
) -> None:
    def refuse_to_build() -> None:
        raise KustomizeError("there is no go here")

    monkeypatch.setattr(prepare_tests, "missing_packages", list)
    monkeypatch.setattr(prepare_tests, "is_kustomize_built", lambda: False)
    monkeypatch.setattr(prepare_tests, "install_kustomize", refuse_to_build)
    monkeypatch.setattr(prepare_tests, "find_kustomize", lambda: kubectl)
    monkeypatch.setenv("CI", "true")

    assert prepare_tests.main() == status
