"""Which kustomize renders, and what is said when none does."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools import kustomize
from devtools.kustomize import VERSION, KustomizeError, find_kustomize, install_kustomize, render

SCRIPT = '#!/bin/sh\necho "rendered: $@"\n'


@pytest.fixture(autouse=True)
def empty_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give a machine with an empty cache and nothing on its PATH but what a test puts there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    return programs


def program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text)
    file.chmod(0o755)
    return file


def test_the_built_one_comes_before_kubectls(empty_machine: Path) -> None:
    program(empty_machine, "kubectl", SCRIPT)
    built = program(kustomize.cache() / f"kustomize-{VERSION}", "kustomize", SCRIPT)

    assert find_kustomize() == [str(built), "build"]


def test_kubectls_own_stands_in(empty_machine: Path) -> None:
    program(empty_machine, "kubectl", "#!/bin/sh\necho $1 $2\n")

    assert find_kustomize() == ["kubectl", "kustomize"]
    assert render(Path("k8s/base")) == "kustomize k8s/base\n"


def test_without_either_it_is_said_what_to_do() -> None:
    assert find_kustomize() is None
    with pytest.raises(KustomizeError, match=r"scripts/test-setup builds one"):
        render(Path("k8s/base"))


def test_without_go_it_is_said_that_there_is_none() -> None:
    with pytest.raises(KustomizeError, match="there is no go here"):
        install_kustomize()


def test_the_pinned_version_is_built_once_into_the_cache(
    empty_machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go = '#!/bin/sh\n[ "$1" = install ] && : > "$GOBIN/kustomize" && echo "$2" > "$GOBIN/module"\n'
    program(empty_machine, "go", go)
    folder = kustomize.cache() / f"kustomize-{VERSION}"
    folder.mkdir(parents=True)

    install_kustomize()
    install_kustomize()

    assert (folder / "module").read_text() == f"sigs.k8s.io/kustomize/kustomize/v5@v{VERSION}\n"
    assert capsys.readouterr().out.count("built") == 1


def test_a_kustomization_that_is_refused_is_named(empty_machine: Path) -> None:
    program(empty_machine, "kubectl", "#!/bin/sh\necho 'no such folder' >&2; exit 1\n")

    with pytest.raises(KustomizeError, match="k8s/nowhere: no such folder"):
        render(Path("k8s/nowhere"))
