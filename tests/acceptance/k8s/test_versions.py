"""Each version stands once, in ``k8s/versions``, and everything else agrees with it."""

from __future__ import annotations

import re
from typing import Final

from lambda_protocol import __version__
from tests.acceptance.k8s.checks.pods import images_of, split, table
from tests.acceptance.k8s.clusters import CLUSTERS, cluster
from tests.acceptance.k8s.manifests import K8S, load
from tests.acceptance.k8s.schemas import VERSIONS
from tests.acceptance.node import programs
from tests.support import ROOT

OURS: Final = "localhost:5000/"


def test_images_of_ours_have_the_version_of_this_checkout() -> None:
    ours = {image for image in table() if image.startswith(OURS)}
    names = ("echo-lambda", "image-greyscale-lambda", "lambda-runtime-api-daemon", "lambda-server")

    assert ours == {f"{OURS}{name}:{__version__}" for name in names}


def test_every_image_of_the_table_says_its_version_and_is_used() -> None:
    used = {image for name in CLUSTERS for pod in cluster(name).pods for image in images_of(pod)}

    assert {split(image)[0] for image in table() - used} == {"kindest/node"}
    assert all(re.search(r"\d+\.\d+\.\d+", split(image)[1] or "") for image in table())


def test_the_node_image_is_pinned_by_digest_and_of_a_version_that_is_validated() -> None:
    (node,) = [image for image in table() if image.startswith("kindest/node")]
    _, tag, digest = split(node)

    assert digest is not None
    assert str(tag).removeprefix("v").rpartition(".")[0] in VERSIONS


def test_kedas_manifest_is_of_the_version_of_its_images() -> None:
    versions = {split(image)[1] for image in table() if "/kedacore/" in image}
    objects = load((K8S / "keda" / "keda.yaml").read_text())
    labels = {each["metadata"]["labels"].get("app.kubernetes.io/version") for each in objects}
    (head,) = re.findall(r"^# KEDA (\S+), ", (K8S / "keda" / "keda.yaml").read_text())

    assert labels - {None} == versions == {head}


def test_the_file_for_one_host_has_the_same_versions() -> None:
    (compose,) = load((ROOT / "docker-compose.yaml").read_text())
    images = {each["image"] for each in compose["services"].values()}

    plain = {image.removesuffix("-management") for image in table()}
    assert {image for image in images if "lambda" not in image} <= plain


def test_the_node_of_the_tests_runs_the_versions_of_the_cluster() -> None:
    versions = programs.known_programs()

    assert any(image.startswith(f"kindest/node:{versions.kubernetes}@") for image in table())
    keda = [image for image in table() if "/kedacore/" in image]
    assert {split(image)[1] for image in keda} == {versions.keda.removeprefix("v")}
