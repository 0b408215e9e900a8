"""The init container of a pod: rapid as one file copies itself into the volume and ends.

The file is the static one that RAPID_BINARY names, else a zipapp of the same code.
"""

from __future__ import annotations

import shutil
import sys
import zipapp
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from rapid.self_copy import ALIAS, TARGET
from tests.support import IS_ONE_FILE, RAPID, ROOT, run_command

#: Every manifest of the checkout that has rapid as an init container, the user story's first.
MANIFESTS: Final = [
    Path(__file__).parent / "user-story.yaml",
    *sorted(ROOT.glob("k8s/lambdas-*.yaml")),
    *sorted(ROOT.glob("examples/*/deployment.yaml")),
]
#: In a mount namespace: the image's folder at /mnt, the volume at /tmp, then the image's program.
IN_CONTAINER: Final = (
    *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c"),
    'mount --bind "$1" /mnt && mount --bind "$2" /tmp && exec /mnt/rapid',
    "sh",
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of an image that has nothing but rapid, as one file."""
    image, source = tmp_path_factory.mktemp("image"), tmp_path_factory.mktemp("source")
    if IS_ONE_FILE:
        shutil.copy2(RAPID[0], image / "rapid")
        return image
    for package in ("rapid", "lambda_protocol"):
        shutil.copytree(ROOT / package, source / package)
    (source / "__main__.py").write_text("from rapid.__main__ import main_entry\nmain_entry()\n")
    # The environment of a checkout below /tmp is not seen where the volume is mounted there.
    python = str(Path(sys.executable).resolve())
    zipapp.create_archive(source, image / "rapid", interpreter=python)
    (image / "rapid").chmod(0o755)
    return image


def init_containers(document: Any) -> Iterator[dict[str, Any]]:
    """Yield the containers of a manifest that run before the function's."""
    if isinstance(document, dict):
        yield from document.get("initContainers", [])
        for value in document.values():
            yield from init_containers(value)


def variables(container: dict[str, Any]) -> dict[str, str]:
    """Return a container's variables as Kubernetes makes them; Source: EnvVar, value."""
    return {each["name"]: each.get("value", "") for each in container["env"]}


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_init_container_of_a_manifest_copies_rapid_and_ends(
    manifest: Path, image: Path, tmp_path: Path
) -> None:
    documents = yaml.safe_load_all(manifest.read_text())
    containers = [each for document in documents for each in init_containers(document)]
    assert containers

    for number, container in enumerate(containers):
        volume = tmp_path / str(number)
        volume.mkdir()
        (mount,) = container["volumeMounts"]
        assert mount["mountPath"] == str(TARGET.parent)
        environ = {"PATH": "/usr/bin:/bin", **variables(container)}
        done = run_command(*IN_CONTAINER, image, volume, env=environ)

        assert (done.returncode, done.stderr) == (0, "")
        assert {path.name for path in volume.iterdir()} == {TARGET.name, ALIAS}
        for path in volume.iterdir():
            assert path.read_bytes() == (image / "rapid").read_bytes()


def test_the_variable_of_the_user_story_has_no_value() -> None:
    (container,) = init_containers(yaml.safe_load(MANIFESTS[0].read_text()))

    assert container["env"] == [{"name": "KUBERNETES_INIT_CONTAINER"}]
    assert variables(container) == {"KUBERNETES_INIT_CONTAINER": ""}
