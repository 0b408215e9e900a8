"""What Dockerfiles, manifests, scripts and READMEs of the examples promise, without a container."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from lambda_protocol import __version__
from rapid.self_copy import TARGET
from tests.acceptance.k8s.checks.functions import EMULATOR
from tests.support import ROOT, run_command, setting

EXAMPLES: Final = ROOT / "examples"
FOLDERS: Final = sorted(EXAMPLES.glob("echo-lambda*"))
DOCKERFILES: Final = sorted(EXAMPLES.glob("echo-lambda*/Dockerfile*"))
RAPID_DOCKERFILE: Final = EXAMPLES / "Dockerfile.rapid"
BASH_SCRIPTS: Final = [
    *sorted(EXAMPLES.glob("echo-lambda*/*.sh")),
    *sorted(EXAMPLES.glob("clients/*.sh")),
    EXAMPLES / "echo-lambda-bash" / "bootstrap",
]
#: AWS's images name no user and an entry point: Lambda runs them as one without rights.
AWS_IMAGES: Final = ("public.ecr.aws/lambda/", "${FUNCTION_IMAGE}")

#: A FROM, and pairs of an instruction and its text that follow it.
Stage = tuple[str, list[tuple[str, str]]]


def path_of(path: Path) -> str:
    """Return a test's id."""
    return str(path.relative_to(EXAMPLES))


each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=path_of)
each_script = pytest.mark.parametrize("script", BASH_SCRIPTS, ids=path_of)


def test_there_are_four_functions_with_the_same_files_and_manifests() -> None:
    manifests = set()
    for folder in FOLDERS:
        names = {path.name for path in folder.iterdir()}
        assert {"Dockerfile", "Dockerfile.aws", "README.md", "deployment.yaml"} <= names
        text = (folder / "deployment.yaml").read_text().replace(folder.name, "echo-lambda")
        if "entry_script.sh" not in names:  # and then nothing in the image would start rapid
            assert f"command: [{EMULATOR}]" in text
            text = re.sub(r"^ +command: .*\n", "", text, flags=re.MULTILINE)
        manifests.add(text)

    assert (len(FOLDERS), len(manifests)) == (4, 1)


# --- Dockerfiles


def stages_of(dockerfile: Path) -> dict[str, Stage]:
    """Return the stages of a Dockerfile by their names."""
    text = re.sub(r"^\s*(#.*)?\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    stages: dict[str, Stage] = {}
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, alias = rest.partition(" AS ")
            stages[alias] = (base, [])
        elif stages:
            stages[list(stages)[-1]][1].append((instruction, rest))
    return stages


@pytest.mark.parametrize("dockerfile", [*DOCKERFILES, RAPID_DOCKERFILE], ids=path_of)
def test_a_dockerfile_builds_on_versions_and_copies_what_is_there(dockerfile: Path) -> None:
    context = ROOT if dockerfile == RAPID_DOCKERFILE else dockerfile.parent
    for base, instructions in stages_of(dockerfile).values():
        if base not in ("scratch", "${FUNCTION_IMAGE}"):
            assert base.rpartition("/")[2].partition(":")[2] not in ("", "latest"), base
        for instruction, text in instructions:
            if instruction == "COPY":
                first, *words = shlex.split(text)
                if first.startswith("--from="):
                    assert first.removeprefix("--from=") in stages_of(dockerfile)
                else:
                    assert all((context / each).exists() for each in (first, *words[:-1])), text
            if instruction == "RUN" and "apt-get" in text:
                assert text.startswith("apt-get update && apt-get install --yes")
                assert "--no-install-recommends" in text
                assert text.endswith("&& rm -rf /var/lib/apt/lists/*")


@pytest.mark.parametrize("dockerfile", [*DOCKERFILES, RAPID_DOCKERFILE], ids=path_of)
def test_an_image_of_ours_runs_as_a_number_that_is_not_root(dockerfile: Path) -> None:
    base, instructions = list(stages_of(dockerfile).values())[-1]
    said = dict(instructions)

    if base.startswith(AWS_IMAGES):
        assert not {"USER", "ENTRYPOINT"} & said.keys()
        return
    # Kubernetes can tell only of a number that it is not root.
    assert all(int(number) > 0 for number in said["USER"].split(":"))
    # In exec form: a shell between would keep signals from rapid, and an empty image has none.
    program = Path(json.loads(said["ENTRYPOINT"])[0])
    assert all(isinstance(word, str) for word in json.loads(said.get("CMD", "[]")))
    copies = [text for name, text in instructions if name == "COPY" and program.name in text]
    assert "--from=" in copies[0] or os.access(dockerfile.parent / program.name, os.X_OK)


def test_dockerfile_rapid_puts_rapid_where_the_emulator_is_looked_for() -> None:
    (rapid, _), (function, copied) = stages_of(RAPID_DOCKERFILE).values()

    assert rapid == f"lambda-runtime-api-daemon:{__version__}"
    assert function == "${FUNCTION_IMAGE}"
    assert copied == [("COPY", f"--from=rapid /usr/local/bin/rapid {EMULATOR}")]


# --- what is pinned


def test_the_python_image_has_the_client_that_the_tests_have() -> None:
    (pin,) = re.findall(r"awslambdaric==\S+", (EXAMPLES / "echo-lambda/Dockerfile").read_text())

    assert pin in setting("options.extras_require", "dev").split()


def test_the_node_client_is_pinned_and_its_lock_names_no_registry() -> None:
    folder = EXAMPLES / "echo-lambda-node"
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]

    assert packages.pop("")["dependencies"] == wanted
    assert packages["node_modules/aws-lambda-ric"]["version"] == wanted["aws-lambda-ric"]
    for package in packages.values():
        assert "resolved" not in package
        assert "integrity" in package


def test_the_go_module_can_be_built_by_debians_go() -> None:
    text = (EXAMPLES / "echo-lambda-go" / "go.mod").read_text()
    (version,) = re.findall(r"^go 1\.(\d+)$", text, re.MULTILINE)

    assert int(version) <= 24  # Debian trixie's
    assert "toolchain" not in text


# --- the manifest, of which all four are made


def variables_of(container: Any) -> dict[str, Any]:
    """Return the variables of a container: their values, or where these come from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def test_a_manifest_fits_together() -> None:
    """What it leaves to say, a real API server says: tests/acceptance/node/test_admission.py."""
    text = (EXAMPLES / "echo-lambda" / "deployment.yaml").read_text()
    deployment = yaml.safe_load(text)
    template = deployment["spec"]["template"]
    pod, labels = template["spec"], template["metadata"]["labels"]
    (init,), (function,) = pod["initContainers"], pod["containers"]
    (source,) = init["volumeMounts"]
    mounts = {each["mountPath"]: each for each in function["volumeMounts"]}
    variables = variables_of(function)

    assert {variables["AWS_LAMBDA_FUNCTION_NAME"], *labels.values()} == {"echo-lambda"}
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert (init["image"], function["image"]) == (
        f"lambda-runtime-api-daemon:{__version__}",
        "echo-lambda:1",
    )
    assert pod["automountServiceAccountToken"] is False
    assert pod["terminationGracePeriodSeconds"] > int(variables["AWS_LAMBDA_FUNCTION_TIMEOUT"])
    assert variables_of(init) == {"KUBERNETES_INIT_CONTAINER": None}
    assert mounts.keys() == {EMULATOR, "/tmp"}
    assert (mounts[EMULATOR]["name"], mounts[EMULATOR]["readOnly"]) == (source["name"], True)
    assert Path(source["mountPath"]) / mounts[EMULATOR]["subPath"] == TARGET
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"])
    assert function["readinessProbe"]["httpGet"]["port"] == function["ports"][0]["name"]
    for container in (init, function):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["resources"].keys() == {"requests", "limits"}
    assert "amqp://" not in text
    assert variables["RAPID_AMQP_URI"] == {"secretKeyRef": {"name": "broker", "key": "AMQP_URI"}}


# --- scripts and READMEs


@each_script
def test_shellcheck_finds_nothing(script: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck on this machine")

    done = run_command(
        "shellcheck", "--external-sources", "--source-path", str(script.parent), str(script)
    )

    assert (done.returncode, done.stdout) == (0, "")


@each_folder
def test_a_readme_lists_every_file_and_makes_the_brokers_secret(folder: Path) -> None:
    readme = (folder / "README.md").read_text()
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "."],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = re.findall(r"^\| (`.*?) \|", readme, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}

    assert listed == set(tracked.stdout.split()) - {"README.md"}
    assert "secret generic broker --from-literal=AMQP_URI=" in readme
