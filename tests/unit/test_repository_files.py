"""The files that hooks, workflows and templates are made of: they parse, and name what is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.documents import make_targets
from tests.shell_commands import commands_of
from tests.support import ROOT, setting

HOOKS: Final = ROOT / ".pre-commit-config.yaml"
WORKFLOWS: Final = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEMPLATES: Final = [
    ROOT / ".github" / "pull_request_template.md",
    *sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md")),
]
#: What the machines of the workflows have, or what a step before installs.
_PROGRAMS: Final = {"apt-get", "docker", "echo", "gh", "git"}


def hooks() -> list[Any]:
    (repository,) = yaml.safe_load(HOOKS.read_text())["repos"]
    return list(repository["hooks"])


def steps(workflow: Path) -> list[Any]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def programs_of(shell: str) -> list[str]:
    return [words[0] for words in commands_of(shell)]


def test_hooks_are_tools_of_the_dev_extra() -> None:
    pinned = {line.partition("==")[0] for line in setting("options.extras_require", "dev").split()}

    tools = {Path(shlex.split(hook["entry"])[0]) for hook in hooks()}

    assert {tool.name for tool in tools} == {"ruff", "mypy", "codespell"}
    assert {tool.name for tool in tools} <= pinned
    assert {str(tool.parent) for tool in tools} == {".venv/bin"}


def test_hooks_are_what_the_check_runs() -> None:
    check = (ROOT / "scripts" / "check").read_text()

    for hook in hooks():
        assert f"\n{hook['entry']}\n" in check


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_workflow_runs_is_there(workflow: Path) -> None:
    shell = "\n".join(step["run"] for step in steps(workflow) if "run" in step)

    for program in programs_of(shell):
        is_ours = "/" in program and (ROOT / program).stat().st_mode & 0o100
        assert is_ours or program in _PROGRAMS, program


def test_ci_runs_what_a_developer_can_run() -> None:
    (run,) = (step["run"] for step in steps(WORKFLOWS[0]) if ".ci/" in step.get("run", ""))

    assert run == ".ci/run"


def test_the_release_makes_targets_that_are_there() -> None:
    shell = (ROOT / "scripts" / "release").read_text()
    made = [words for words in commands_of(shell) if words[0] == "make"]

    targets = {word for words in made for word in words[1:] if not word.startswith(("-", "."))}

    assert targets == {"docker", "rapid", "sbom"}
    assert targets <= make_targets()


@pytest.mark.parametrize("path", [*WORKFLOWS, ROOT / "scripts" / "release"], ids=lambda p: p.name)
def test_the_registry_is_a_variable(path: Path) -> None:
    text = path.read_text()

    assert not re.search(r"\b[\w-]+\.(io|com|org|dev)/", text)
    assert ("REGISTRY" in text) == (path.name != "ci.yml")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_says_what_to_run_by_its_name(template: Path) -> None:
    text = template.read_text()
    if template.parent.name == "ISSUE_TEMPLATE":
        _, front, _ = text.split("---\n", 2)
        assert yaml.safe_load(front).keys() == {"name", "about"}

    for target in re.findall(r"`make ([\w-]+)", text):
        assert target in make_targets()
