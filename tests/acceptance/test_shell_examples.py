"""Every command in a document names what is there: commands, options, targets, files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click
import pytest

from devtools.kind_cluster.__main__ import main as cluster
from lambda_server.cli import main as lambda_server
from rapid.settings.command_line import USAGE
from tests.documents import Block, blocks, make_targets
from tests.shell_commands import commands_of
from tests.support import ROOT, run_command

#: Source: kubectl 1.36, `kubectl --help`.
KUBECTL: Final = {
    *("annotate", "api-resources", "api-versions", "apply", "attach", "auth", "autoscale"),
    *("certificate", "cluster-info", "config", "cordon", "cp", "create", "debug", "delete"),
    *("describe", "diff", "drain", "edit", "events", "exec", "explain", "expose", "get"),
    *("kustomize", "label", "logs", "patch", "port-forward", "proxy", "replace", "rollout", "run"),
    *("scale", "set", "taint", "top", "uncordon", "version", "wait"),
}
#: Options of kubectl before its verb, with a value.
KUBECTL_OPTIONS: Final = {"--context", "--namespace", "-n", "--kubeconfig"}
NAMESPACES: Final = {
    *("lambda", "messaging", "monitoring", "registry", "keda", "kubernetes-dashboard"),
    "kube-system",
}
#: Folders of this checkout: a word that begins with one is a path.
FOLDERS: Final = tuple(
    f"{name}/" for name in ("bench", "devtools", "docker", "docs", "examples", "k8s", "scripts")
)


def problems_of(block: Block) -> Iterator[str]:
    """Yield what a block names that is not there."""
    folder = ROOT
    for words in commands_of(block.text):
        program, arguments = words[0], words[1:]
        if program == "cd" and (ROOT / arguments[0]).is_dir():
            folder = ROOT / arguments[0]
        if program == "make":
            named = [word for word in arguments if re.fullmatch("[a-z0-9-]+", word)]
            yield from (f"make {word}" for word in set(named) - make_targets(folder))
        elif program == "kubectl":
            yield from kubectl_problems(arguments)
        elif program == "lambda-server":
            yield from click_problems(lambda_server, program, arguments)
        elif program.endswith("scripts/cluster"):
            yield from click_problems(cluster, program, arguments)
        elif program == "rapid":
            flags = [word for word in arguments if word.startswith("--")]
            yield from (f"rapid {flag}" for flag in flags if flag.partition("=")[0] not in USAGE)
        for word in words:
            yield from path_problems(word, folder)


def kubectl_problems(arguments: Sequence[str]) -> Iterator[str]:
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in KUBECTL_OPTIONS and rest:
            rest.pop(0)
    if not rest or rest[0] not in KUBECTL:
        yield f"kubectl {' '.join(rest[:1])}"
    text = " ".join(arguments)
    for namespace in re.findall(r"(?:^|\s)(?:-n|--namespace)[ =](\S+)", text):
        if namespace not in NAMESPACES and not re.match(r"[A-Z$]", namespace):
            yield f"namespace {namespace}"
    for context in re.findall(r"--context[ =](\S+)", text):
        if context != "kind-lambda" and not re.match(r"[A-Z$]", context):
            yield f"context {context}"


def click_problems(command: click.Command, name: str, arguments: Sequence[str]) -> Iterator[str]:
    """Parse a command line as the program would, without running it."""
    try:
        parse(command, name, arguments)
    except click.exceptions.Exit:
        pass  # --help and --version
    except click.ClickException as error:
        yield f"{name} {' '.join(arguments)}: {error.format_message()}"


def parse(
    command: click.Command, name: str, arguments: Sequence[str], parent: click.Context | None = None
) -> None:
    """Raise what a command says to its arguments; the options of our groups take no values."""
    context = command.make_context(name, list(arguments), parent=parent)
    if isinstance(command, click.Group):
        start = next(index for index, word in enumerate(arguments) if not word.startswith("-"))
        inner_name, inner, rest = command.resolve_command(context, list(arguments[start:]))
        assert inner is not None
        parse(inner, str(inner_name), rest, context)


def path_problems(word: str, folder: Path) -> Iterator[str]:
    """Tell of a path in this checkout that is not there; with a letter to fill in it may be not."""
    path = word.removeprefix("./").removeprefix("@")
    is_path = path.startswith(FOLDERS) and not re.search(r"[$*<>{}A-Z]{2}|[$*<>{}]", path)
    if is_path and not any((place / path).exists() for place in (ROOT, folder)):
        yield f"no {path} in this checkout"


BLOCKS: Final = blocks("sh")


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_shell_and_what_it_names_is_there(
    block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # where paths of commands are looked for

    done = run_command("bash", "-n", input=block.text)

    assert (done.returncode, done.stderr) == (0, "")
    assert list(problems_of(block)) == []


def test_only_blocks_that_say_so_are_shell() -> None:
    assert len(BLOCKS) >= 30
    assert not blocks("bash") + blocks("shell")


@pytest.mark.parametrize(
    ("shell", "problem"),
    [
        ("make wonder", "make wonder"),
        ("cd examples/image-greyscale && make up", "make up"),
        ("kubectl aply -k k8s/overlays/keda", "kubectl aply"),
        ("kubectl --context kind-lambda -n lambda", "kubectl "),
        ("kubectl -n lamda get pods", "namespace lamda"),
        ("kubectl --context=kind-lamda get pods", "context kind-lamda"),
        ("kubectl apply -k k8s/overlays/kedo", "no k8s/overlays/kedo in this checkout"),
        ("x=$(rapid --loglevel debug ./bootstrap)", "rapid --loglevel"),
        ("scripts/clusters up", "no scripts/clusters in this checkout"),
        ("A=1 ./scripts/cluster upp", "No such command 'upp'"),
        ("scripts/cluster up --scaling keda-http", "'keda-http' is not one of"),
        ("lambda-server invoke echo --tale", "No such option"),
        ("lambda-server dev examples/function.toml", "no examples/function.toml"),
    ],
)
def test_what_is_not_there_is_noticed(
    shell: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)

    found = list(problems_of(Block(ROOT / "README.md", 1, shell)))

    assert any(problem in each for each in found), found


def test_commands_are_told_apart() -> None:
    shell = """\
A=1 make up ''  # starts
curl -d '{"a":
  1}' http://one/ | grep -q x && (cd docs; ls \\
  -l)
kubectl apply -f - <<'EOF'
make trouble
EOF
token=$(kubectl get token) && echo "$(kubectl get name)"
"""

    assert list(commands_of(shell)) == [
        ["make", "up", ""],
        ["curl", "-d", '{"a":\n  1}', "http://one/"],
        ["grep", "-q", "x"],
        ["cd", "docs"],
        ["ls", "-l"],
        ["kubectl", "apply", "-f", "-"],
        ["kubectl", "get", "token"],
        ["echo", "$(kubectl get name)"],
        ["kubectl", "get", "name"],
    ]
