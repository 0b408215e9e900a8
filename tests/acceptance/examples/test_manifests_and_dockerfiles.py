"""What Dockerfiles, manifests, scripts and READMEs of the examples promise, without a container."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from lambda_protocol import __version__
from rapid.self_copy import TARGET
from tests.acceptance.k8s.checks import images, workloads
from tests.acceptance.k8s.checks.every import Check, name_of
from tests.acceptance.k8s.checks.functions import EMULATOR
from tests.acceptance.k8s.manifests import Cluster, Resource
from tests.support import ROOT, setting

EXAMPLES: Final = ROOT / "examples"
FOLDERS: Final = sorted(EXAMPLES.glob("echo-lambda*"))
DOCKERFILES: Final = sorted(EXAMPLES.glob("echo-lambda*/Dockerfile*"))
RAPID_DOCKERFILE: Final = EXAMPLES / "Dockerfile.rapid"
MANIFESTS: Final = sorted(EXAMPLES.glob("echo-lambda*/deployment.yaml"))
BASH_SCRIPTS: Final = [
    *sorted(EXAMPLES.glob("echo-lambda*/*.sh")),
    *sorted(EXAMPLES.glob("clients/*.sh")),
    EXAMPLES / "echo-lambda-bash" / "bootstrap",
]

#: AWS's images name no user: Lambda runs them as one without rights, whatever they say.
AWS_IMAGES: Final = "public.ecr.aws/lambda/"

INSTRUCTIONS: Final = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "RUN", "USER", "WORKDIR"}


def path_of(path: Path) -> str:
    """Return a test's id."""
    return str(path.relative_to(EXAMPLES))


each_dockerfile = pytest.mark.parametrize(
    "dockerfile", [*DOCKERFILES, RAPID_DOCKERFILE], ids=path_of
)
each_manifest = pytest.mark.parametrize("manifest", MANIFESTS, ids=path_of)
each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=path_of)


def test_there_are_four_functions_with_the_same_files() -> None:
    assert len(FOLDERS) == 4
    for folder in FOLDERS:
        names = {path.name for path in folder.iterdir()}
        assert {"Dockerfile", "Dockerfile.aws", "README.md", "deployment.yaml"} <= names


# --- Dockerfiles


@dataclass(frozen=True)
class Stage:
    """One FROM and what follows it: pairs of an instruction and the text after it."""

    base: str
    name: str | None
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def texts(self, instruction: str) -> list[str]:
        """Return what each use of an instruction says."""
        return [text for name, text in self.instructions if name == instruction]


def stages_of(dockerfile: Path) -> list[Stage]:
    """Parse a Dockerfile; comments and ARGs before the first FROM are left out."""
    lines = [
        line for line in dockerfile.read_text().splitlines() if not re.match(r"\s*(#|$)", line)
    ]
    stages: list[Stage] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, text = line.partition(" ")
        assert name in INSTRUCTIONS, line
        if name == "FROM":
            base, _, alias = text.partition(" AS ")
            stages.append(Stage(base, alias or None))
        elif stages:
            stages[-1].instructions.append((name, text))
        else:
            assert name == "ARG", line
    return stages


def context_of(dockerfile: Path) -> Path:
    return ROOT if dockerfile == RAPID_DOCKERFILE else dockerfile.parent


def split_copy(text: str) -> tuple[str | None, list[str], str]:
    """Return the stage, the sources and the destination of a COPY."""
    words = shlex.split(text)
    stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else None
    return stage, words[:-1], words[-1]


@each_dockerfile
def test_a_base_image_has_a_tag_that_is_not_latest(dockerfile: Path) -> None:
    for stage in stages_of(dockerfile):
        if stage.base not in ("scratch", "${FUNCTION_IMAGE}"):
            _, _, tag = stage.base.rpartition("/")[2].partition(":")
            assert tag not in ("", "latest"), stage.base


@each_dockerfile
def test_what_is_copied_is_there(dockerfile: Path) -> None:
    earlier: set[str | None] = set()
    for stage in stages_of(dockerfile):
        for text in stage.texts("COPY"):
            origin, sources, destination = split_copy(text)
            if origin is not None:
                assert origin in earlier, text
                continue
            assert all((context_of(dockerfile) / source).exists() for source in sources), text
            assert len(sources) == 1 or destination.endswith("/"), text
        earlier.add(stage.name)


@each_dockerfile
def test_an_image_of_ours_does_not_run_as_root(dockerfile: Path) -> None:
    final = stages_of(dockerfile)[-1]
    if final.base == "${FUNCTION_IMAGE}" or final.base.startswith(AWS_IMAGES):
        assert not final.texts("USER")  # it stays the image's own
        return

    user, _, group = final.texts("USER")[-1].partition(":")
    # Kubernetes can tell only of a number that it is not root.
    assert int(user) > 0
    assert int(group) > 0


@each_dockerfile
def test_commands_are_in_exec_form(dockerfile: Path) -> None:
    """A shell between would keep signals from rapid, and an empty image has none."""
    for stage in stages_of(dockerfile):
        for text in stage.texts("ENTRYPOINT") + stage.texts("CMD"):
            words = json.loads(text)
            assert words
            assert all(isinstance(word, str) for word in words)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=path_of)
def test_an_entrypoint_is_copied_into_the_image_and_can_be_run(dockerfile: Path) -> None:
    final = stages_of(dockerfile)[-1]
    if final.base.startswith(AWS_IMAGES):
        assert not final.texts("ENTRYPOINT")  # it stays the image's own
        return

    program = Path(json.loads(final.texts("ENTRYPOINT")[0])[0])
    copies = [split_copy(text) for text in final.texts("COPY")]
    (origin,) = {copy[0] for copy in copies if program.name in {Path(s).name for s in copy[1]}}
    assert origin is not None or os.access(dockerfile.parent / program.name, os.X_OK)


@each_dockerfile
def test_apt_leaves_neither_lists_nor_recommendations(dockerfile: Path) -> None:
    for stage in stages_of(dockerfile):
        for text in stage.texts("RUN"):
            if "apt-get" in text:
                assert text.startswith("apt-get update && apt-get install --yes")
                assert "--no-install-recommends" in text
                assert text.endswith("&& rm -rf /var/lib/apt/lists/*")


def test_dockerfile_rapid_puts_rapid_where_the_emulator_is_looked_for() -> None:
    rapid, final = stages_of(RAPID_DOCKERFILE)

    assert rapid.base == f"lambda-runtime-api-daemon:{__version__}"
    assert final.base == "${FUNCTION_IMAGE}"
    assert final.instructions == [("COPY", f"--from=rapid /usr/local/bin/rapid {EMULATOR}")]


@pytest.mark.parametrize(
    "script", sorted(EXAMPLES.glob("echo-lambda*/entry_script.sh")), ids=path_of
)
def test_an_entry_script_starts_the_same_command_with_the_emulator_and_without(
    script: Path,
) -> None:
    with_emulator, without = re.findall(r"^ +exec (.*)$", script.read_text(), re.MULTILINE)

    assert with_emulator == f"{EMULATOR} {without}"
    assert without.endswith(' "$@"')


# --- what is pinned


def test_the_python_image_has_the_client_that_the_tests_have() -> None:
    (pin,) = re.findall(r"awslambdaric==\S+", (EXAMPLES / "echo-lambda/Dockerfile").read_text())

    assert pin in setting("options.extras_require", "dev").split()


def test_the_node_client_is_pinned_and_its_lock_names_no_registry() -> None:
    folder = EXAMPLES / "echo-lambda-node"
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]

    assert packages[""]["dependencies"] == wanted
    assert packages["node_modules/aws-lambda-ric"]["version"] == wanted["aws-lambda-ric"]
    for name, package in packages.items():
        assert "resolved" not in package
        assert name == "" or "integrity" in package


def test_the_go_module_can_be_built_by_debians_go() -> None:
    text = (EXAMPLES / "echo-lambda-go" / "go.mod").read_text()
    (version,) = re.findall(r"^go 1\.(\d+)$", text, re.MULTILINE)

    assert int(version) <= 24  # Debian trixie's
    assert "toolchain" not in text


# --- manifests


def pod_of(manifest: Path) -> Any:
    return yaml.safe_load(manifest.read_text())["spec"]["template"]


def containers_of(pod: Any) -> list[Any]:
    return [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]


def variables_of(container: Any) -> dict[str, Any]:
    """Return the variables of a container: their values, or where these come from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


@each_manifest
def test_the_function_has_one_name_everywhere(manifest: Path) -> None:
    deployment, pod = yaml.safe_load(manifest.read_text()), pod_of(manifest)
    (function,) = pod["spec"]["containers"]
    name = variables_of(function)["AWS_LAMBDA_FUNCTION_NAME"]

    assert name == manifest.parent.name == deployment["metadata"]["name"]
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert pod["metadata"]["labels"] == {"app.kubernetes.io/name": name}
    assert function["image"] == f"{name}:1"


@pytest.mark.parametrize(
    "check",
    [
        images.images_are_pinned,
        workloads.containers_say_what_they_need_and_may_take,
        workloads.probes_ask_ports_that_are_there,
        workloads.selectors_select_their_own_pods_only,
        workloads.volumes_and_mounts_agree,
        workloads.writable_folders_have_a_limit,
    ],
    ids=name_of,
)
@each_manifest
def test_a_manifest_fits_together(manifest: Path, check: Check) -> None:
    """By the checks that the manifests of ``k8s/`` go through."""
    data = yaml.safe_load(manifest.read_text())

    assert list(check(Cluster(path_of(manifest), [Resource(path_of(manifest), data)]))) == []


@each_manifest
def test_a_pod_has_no_token_and_a_read_only_root(manifest: Path) -> None:
    pod = pod_of(manifest)

    assert pod["spec"]["automountServiceAccountToken"] is False
    for container in containers_of(pod):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


@each_manifest
def test_rapid_is_copied_to_where_it_is_mounted_from(manifest: Path) -> None:
    pod = pod_of(manifest)
    (init,), (function,) = pod["spec"]["initContainers"], pod["spec"]["containers"]
    (source,) = init["volumeMounts"]
    (mount,) = [each for each in function["volumeMounts"] if each["mountPath"] == EMULATOR]

    assert variables_of(init) == {"KUBERNETES_INIT_CONTAINER": None}
    assert init["image"] == f"lambda-runtime-api-daemon:{__version__}"
    assert source["name"] == mount["name"]
    assert Path(source["mountPath"]) / mount["subPath"] == TARGET
    assert mount["readOnly"] is True


@each_manifest
def test_the_function_can_write_to_tmp_as_on_aws(manifest: Path) -> None:
    (function,) = pod_of(manifest)["spec"]["containers"]

    assert [mount for mount in function["volumeMounts"] if mount["mountPath"] == "/tmp"]


@each_manifest
def test_the_brokers_address_comes_from_a_secret_that_the_readme_makes(manifest: Path) -> None:
    (function,) = pod_of(manifest)["spec"]["containers"]
    secret = variables_of(function)["RAPID_AMQP_URI"]["secretKeyRef"]
    readme = (manifest.parent / "README.md").read_text()

    assert "amqp://" not in manifest.read_text()
    assert f"secret generic {secret['name']} --from-literal={secret['key']}=" in readme


@each_manifest
def test_a_pod_has_longer_to_stop_than_a_call_may_take(manifest: Path) -> None:
    pod = pod_of(manifest)
    (function,) = pod["spec"]["containers"]

    timeout_s = int(variables_of(function)["AWS_LAMBDA_FUNCTION_TIMEOUT"])
    assert pod["spec"]["terminationGracePeriodSeconds"] > timeout_s


@each_manifest
def test_an_image_without_an_entry_script_is_started_by_rapid(manifest: Path) -> None:
    (function,) = pod_of(manifest)["spec"]["containers"]
    has_script = (manifest.parent / "entry_script.sh").exists()

    assert function.get("command") == (None if has_script else [EMULATOR])


# --- scripts


@pytest.mark.parametrize("script", BASH_SCRIPTS, ids=path_of)
def test_scripts_are_bash(script: Path) -> None:
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", BASH_SCRIPTS, ids=path_of)
def test_shellcheck_finds_nothing(script: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck on this machine")

    done = subprocess.run(
        ["shellcheck", "--external-sources", "--source-path", str(script.parent), str(script)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "")


# --- READMEs


@each_folder
def test_a_readme_lists_every_file(folder: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "."],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = re.findall(r"^\| (`.*?) \|", (folder / "README.md").read_text(), re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}

    assert listed == set(tracked.stdout.split()) - {"README.md"}
