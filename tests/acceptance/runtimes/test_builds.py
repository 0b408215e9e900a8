from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.runtimes.builds import BuildBroken, Cache, NotBuilt, main
from tests.acceptance.runtimes.recipes import Recipe
from tests.support import LIMIT_S


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "main").write_text("one")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    cache = Cache(tmp_path / "cache")
    with cache.lock():
        return cache


def recipe(source: Path, **changes: Any) -> Recipe:
    """Return a recipe that notes each build in the file ``builds`` beside the sources."""
    plain: dict[str, Any] = {
        "name": "toy",
        "source": source,
        "toolchain": (("echo", "1.0"),),
        "fetch": (("true",),),
        "build": (("sh", "-c", f"cp main built && echo >> {source.parent}/builds"),),
    }
    return Recipe(**{**plain, **changes})


def build(cache: Cache, recipe: Recipe) -> Path:
    return cache.build(recipe, time.monotonic() + LIMIT_S)


def test_a_build_is_made_once_and_again_when_its_sources_or_toolchain_change(
    cache: Cache, source: Path
) -> None:
    folders = [build(cache, recipe(source)) for _ in range(2)]
    assert {*folders, cache.find(recipe(source))} == {folders[0]}
    assert (source.parent / "builds").read_text() == "\n"
    with pytest.raises(NotBuilt, match="make runtimes"):
        cache.find(recipe(source, toolchain=(("echo", "2.0"),)))

    (source / "main").write_text("two")

    assert (build(cache, recipe(source)) / "built").read_text() == "two"
    assert not folders[0].exists()


def test_a_missing_tool_is_told_by_name(cache: Cache, source: Path) -> None:
    with pytest.raises(NotBuilt, match="no notatool on this machine"):
        cache.find(recipe(source, toolchain=(("notatool", "--version"),)))


@pytest.mark.parametrize(
    ("step", "error"), [("fetch", NotBuilt), ("build", BuildBroken)], ids=["network", "sources"]
)
def test_what_a_failed_step_says_is_told_until_it_succeeds(
    cache: Cache, source: Path, step: str, error: type[Exception]
) -> None:
    fails = recipe(source, **{step: (("sh", "-c", "echo no way >&2; exit 1"),)})

    for find in (build, Cache.find):
        with pytest.raises(error, match="no way"):
            find(cache, fails)

    assert build(cache, recipe(source)) == cache.find(recipe(source))


def test_no_time_left_is_nobodys_fault(cache: Cache, source: Path) -> None:
    with pytest.raises(NotBuilt, match="no time was left"):
        cache.build(recipe(source, build=(("sleep", "60"),)), time.monotonic())


def test_the_command_tells_what_it_leaves_out_and_fails_for_what_is_broken(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    left_out = recipe(source, toolchain=(("notatool",),))
    broken = recipe(source, name="broken", build=(("false",),))

    assert main([left_out]) == 0
    assert main([left_out, broken]) == 1
    assert "toy: left out, no notatool on this machine" in capsys.readouterr().out
