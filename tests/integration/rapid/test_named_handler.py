"""A handler or a source file in the place of a command: ``rapid app.handler``, ``rapid app.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rapid.settings.named_handler import sources_of
from tests.acceptance.runtimes.builds import built
from tests.acceptance.runtimes.recipes import NODE
from tests.support import LIMIT_S, RAPID, Rapid, base_environ

PYTHON_SOURCE = """
import os

def handler(event, context):
    return [event, os.getcwd(), os.environ["LAMBDA_TASK_ROOT"], os.environ["_HANDLER"]]
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give the folder that rapid is started in."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def run_there(folder: Path) -> Run:
    """Run rapid to its end in ``folder``; ``path`` is all of PATH."""

    def run(*words: str, path: Path = Path("/nonexistent")) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*RAPID, *words],
            env={**base_environ(), "PATH": str(path)},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    return run


def write(folder: Path, *names: str, text: str = "") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def program(path: Path, shell: str) -> Path:
    """Make an executable."""
    write(path.parent, path.name, text=f"#!/bin/sh\n{shell}\n")
    path.chmod(0o755)
    return path


def assert_one_line(done: subprocess.CompletedProcess[str], line: str) -> None:
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"rapid: {line}\n")


# --- what runs it


@pytest.mark.parametrize(
    ("word", "source"),
    [
        pytest.param("app.handler", "app.py", id="module"),
        pytest.param("src/app.handler", "src/app.py", id="folder"),
        pytest.param("src.app.handler", "src/app.py", id="package"),
        pytest.param("app.handler", "app/__init__.py", id="package-itself"),
    ],
)
def test_a_python_handler_runs_under_awslambdaric(folder: Path, word: str, source: str) -> None:
    write(folder, source, text=PYTHON_SOURCE)
    rapid = Rapid(word)
    rapid.cwd = folder
    with rapid:
        answer = rapid.invoke(b"1")
        said = rapid.wait_for_log(" is the handler in ")

    task_root = "/var/task" if Path("/var/task").is_dir() else str(folder)
    assert answer.json() == [1, str(folder), task_root, word]
    assert said.endswith(f"{word} is the handler in {source}")


def test_where_python_and_javascript_are_beside_each_other_python_is_first(folder: Path) -> None:
    write(folder, "index.py", text=PYTHON_SOURCE)
    write(folder, "index.mjs", "index.js")
    rapid = Rapid("index.handler")
    rapid.cwd = folder
    with rapid:
        assert rapid.invoke(b"1").json()[0] == 1
        rapid.wait_for_log("in index.py; index.mjs and index.js left aside")


@pytest.mark.parametrize("suffix", [".mjs", ".js", ".cjs"])
def test_a_javascript_handler_runs_under_aws_lambda_ric(folder: Path, suffix: str) -> None:
    is_module = suffix == ".mjs"
    text = "export const handler = " if is_module else "exports.handler = "
    write(folder, f"src/index{suffix}", text=f"{text} async (event) => [event, process.cwd()];")
    (folder.parent / "node_modules").symlink_to(built(NODE) / "node_modules")
    rapid = Rapid("src/index.handler")
    rapid.cwd = folder
    with rapid:
        assert rapid.invoke(b"1").json() == [1, str(folder)]


def test_a_program_goes_before_a_handler_of_its_name(folder: Path, tmp_path: Path) -> None:
    write(folder, "app.py", text=PYTHON_SOURCE)
    other = program(tmp_path / "bin" / "app.handler", "exec sleep 60")
    rapid = Rapid("app.handler", ready=False, PATH=f"{other.parent}:{os.environ['PATH']}")
    rapid.cwd = folder
    with rapid:
        rapid.wait_for_log(f"exec '{other}'")


# --- what is missing


def test_without_the_client_for_python_it_is_named(folder: Path, run_there: Run) -> None:
    write(folder, "app.py")
    python = program(folder.parent / "bin" / "python3", f'exec {sys.executable} -I -S "$@"')

    done = run_there("app.handler", path=python.parent)

    what = "app.handler needs AWS's runtime client for Python"
    assert_one_line(done, f"{what}: {python} -m pip install awslambdaric")


def test_without_the_client_for_node_it_is_named(folder: Path, run_there: Run) -> None:
    write(folder, "index.mjs")
    node = program(folder.parent / "bin" / "node", "exit 1")  # is not started

    done = run_there("index.handler", path=node.parent)

    line = "index.handler needs AWS's runtime client for Node.js: npm install aws-lambda-ric"
    assert_one_line(done, line)


def test_a_handler_without_a_source_file_is_answered_and_explained(folder: Path) -> None:
    rapid = Rapid("app.handler", ready=False)
    rapid.cwd = folder
    with rapid:
        assert rapid.invoke().error_type == "Runtime.InvalidEntrypoint"
        line = rapid.wait_for_log("init failed")

    sources = "app.py, app/__init__.py, app.mjs, app.js, app.cjs"
    assert line.endswith(f"hint=if it is a handler: none of {sources} is in {folder}")


# --- words that are no command


@pytest.mark.parametrize(
    ("source", "words", "line"),
    [
        ("app.py", "app.handler", "app.handler is in Python; there is no python3 on PATH"),
        ("app.cjs", "app.handler", "app.handler is in JavaScript; there is no node on PATH"),
        ("app.py", "app.py", "app.py is no command; name the handler in it: rapid app.FUNCTION"),
        ("a.mjs", "a.mjs", "a.mjs is no command; name the handler in it: rapid a.FUNCTION"),
        ("a.js", "a.js", "a.js is no command; name the handler in it: rapid a.FUNCTION"),
        (
            "./src/app.py",
            "./src/app.py",
            "./src/app.py is no command; name the handler in it: rapid src/app.FUNCTION",
        ),
        (
            "app.py",
            "app.py handler",
            "app.py is no command; name the handler in it: rapid app.FUNCTION",
        ),
        (
            "sub/app.py",
            "{folder}/sub/app.py",
            "{folder}/sub/app.py is no command; name the handler in it: "
            "cd {folder}/sub && rapid app.FUNCTION",
        ),
        (
            "other.py",
            "app.py",
            "there is no app.py in {folder}; a handler is named as in: rapid app.FUNCTION",
        ),
        (
            "app.py",
            "app:handler",
            "app:handler is no command; a handler has a dot: rapid app.handler",
        ),
        (
            "src/app.js",
            "src/app:handler",
            "src/app:handler is no command; a handler has a dot: rapid src/app.handler",
        ),
    ],
)
def test_a_word_that_cannot_be_run_is_told_what_to_say_instead(
    folder: Path, run_there: Run, source: str, words: str, line: str
) -> None:
    write(folder, source)

    done = run_there(*words.format(folder=folder).split())

    assert_one_line(done, line.format(folder=folder))


def test_an_executable_source_file_may_be_a_runtime(folder: Path, run_there: Run) -> None:
    program(folder / "app.py", "exit 1")

    done = run_there("app.py")

    either = "name the handler in it: rapid app.FUNCTION, or if it is a runtime itself: "
    assert_one_line(done, f"app.py is no command; {either}rapid ./app.py")


@pytest.mark.parametrize(
    "word",
    ["app", "./app.handler", "/app.handler", "app.", ".handler", "a..b", "x" * 5000 + ".handler"],
    ids=lambda word: word[:20],
)
def test_other_words_are_commands(word: str) -> None:
    assert sources_of(word) == ()
