"""How the static executable is built, without building it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from devtools.commands import CommandError
from devtools.static import sources, stages
from devtools.static.stages import Stage
from tests.support import ROOT


def nothing(_waited_s: float = 0.0) -> None:
    """Show no progress."""


# --- stages


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Give a stage whose script says what it sees."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "demo.sh").write_text('echo "made with $LEVEL, CFLAGS=$CFLAGS" > "$PREFIX/it"')
    monkeypatch.setattr(stages, "HERE", scripts)
    archive = tmp_path / "sources"
    archive.mkdir()
    (archive / "demo_1.dsc").write_text("demo 1")
    return Stage(
        name="demo",
        cache=tmp_path / "cache",
        sources=archive,
        package="demo",
        settings={"LEVEL": "1"},
    )


def test_a_stage_is_built_when_its_script_has_ended_well_without_the_callers_variables(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CFLAGS", "-O0")
    script = stages.HERE / "demo.sh"
    works = script.read_text()
    script.write_text('echo half > "$PREFIX/it"; exit 3')
    with pytest.raises(CommandError, match="status 3"):
        stage.build(nothing)
    assert not stage.is_built()

    script.write_text(works)
    stage.build(nothing)

    assert stage.is_built()
    assert (stage.folder / "it").read_text() == "made with 1, CFLAGS=\n"


@pytest.mark.parametrize("what", ["script", "source", "input", "compiler", "setting", "need"])
def test_what_goes_into_a_stage_is_in_the_name_of_its_folder(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    training = tmp_path / "training"
    training.write_text("1")
    below = Stage(name="demo", cache=stage.cache, sources=stage.sources, package="below")

    def folder(level: str = "1") -> Path:
        return Stage(
            name="demo",
            cache=stage.cache,
            sources=stage.sources,
            package="demo",
            needs=(below,),
            settings={"LEVEL": level},
            inputs=(training,),
        ).folder

    before = folder()
    match what:
        case "script":
            (stages.HERE / "demo.sh").write_text("true")
        case "source":
            (stage.sources / "demo_1.dsc").write_text("demo 1, patched")
        case "input":
            training.write_text("2")
        case "compiler":
            monkeypatch.setattr(stages, "compiler", lambda: "gcc 99")
        case "need":
            (stage.sources / "below_1.dsc").write_text("below 1")

    after = folder("2" if what == "setting" else "1")

    assert after != before


# --- sources


@pytest.fixture
def archive_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an apt before the real one: two versions are listed, of which the newer cannot be had."""
    tools = tmp_path / "tools"
    tools.mkdir()
    scripts = {
        "apt-cache": "echo 'Version: 1.9-1'; echo 'Version: 1.10-1'",
        "apt-get": f"""
            echo "$@" >> {tmp_path}/apt-get
            case "$*" in
                *indextargets*) echo http://archive/security http://archive/debian/ ;;
                *=1.10-1) touch half_1.10.tar; exit 100 ;;
                *=1.9-1) name=${{*##* }}; touch "${{name%=*}}_1.9.dsc" ;;
            esac""",
    }
    for name, text in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(sources, "_KEYRING", keyring)
    monkeypatch.setattr(sources, "COMPILED", ("musl",))
    return tmp_path / "cache" / "sources"


def test_the_newest_version_that_the_machines_own_archive_has_is_taken_and_told(
    archive_of: Path, tmp_path: Path
) -> None:
    told = sources.fetch(archive_of, nothing)

    lists = (archive_of.with_name("apt") / "sources.list").read_text().splitlines()
    calls = (tmp_path / "apt-get").read_text().splitlines()
    assert told == ["musl 1.9-1; 1.10-1 cannot be had"]
    assert (archive_of / "musl_1.9.dsc").exists()
    mirrors = ("http://archive/debian", "http://archive/debian-security")
    assert all(line.split()[2] in mirrors and "[signed-by=" in line for line in lists)
    # The lists of the machine itself are left alone.
    assert all("Dir::State::Lists=" in call for call in calls if "indextargets" not in call)


def test_an_update_that_fails_leaves_the_sources_that_were_there(
    archive_of: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_of.mkdir(parents=True)
    (archive_of / "musl_1.8.dsc").touch()
    monkeypatch.setattr(sources, "COMPILED", ("missing",))

    def refuse(*_: object, **__: object) -> NoReturn:
        raise CommandError("no network")

    monkeypatch.setattr(sources, "run", refuse)

    with pytest.raises(sources.SourcesError, match="no network"):
        sources.fetch(archive_of, nothing)

    assert (archive_of / "musl_1.8.dsc").exists()


# --- the command


def test_the_build_needs_nothing_but_python() -> None:
    code = "import sys; import devtools.static.__main__; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert not {"pika", "click", "pytest"} & set(done.stdout.split())
