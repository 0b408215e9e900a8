"""A function of a user's own, as docs/KUBERNETES.md shows it, fits into a cluster of ours."""

from __future__ import annotations

from typing import Final

import pytest

from tests.k8s.checks import functions, images, labels, scaling, security
from tests.k8s.checks.every import CHECKS, Check, name_of
from tests.k8s.clusters import cluster
from tests.k8s.manifests import Cluster, Resource, load, rendered
from tests.support import ROOT

EXAMPLES: Final = ROOT / "examples" / "kubernetes"

#: What is ours to say, and not a user's.
_OURS_TO_SAY: Final = {
    *labels.CHECKS,
    functions.both_examples_are_there,
    images.images_are_those_of_the_table,
    images.versions_are_those_of_the_images,
}
#: What the manifest in one file leaves out: an autoscaler, and which nodes its pods are on.
_NOT_IN_ONE_FILE: Final = {
    functions.pods_are_spread_over_nodes,
    scaling.every_function_is_scaled_the_same_way,
}
_FOR_USERS: Final = [check for check in CHECKS if check not in _OURS_TO_SAY]


def with_(*resources: Resource) -> Cluster:
    """Return a cluster of ours with a user's objects in it."""
    usual = cluster("keda")
    return Cluster("of a user", [*usual.resources, *resources])


@pytest.mark.parametrize("check", _FOR_USERS, ids=name_of)
def test_the_short_manifest_fits_in(check: Check) -> None:
    known = [each.data for each in cluster("keda").resources]
    added = [each for each in rendered(EXAMPLES / "my-lambda") if each.data not in known]

    assert list(check(with_(*added))) == []


@pytest.mark.parametrize(
    "check", [each for each in _FOR_USERS if each not in _NOT_IN_ONE_FILE], ids=name_of
)
def test_the_manifest_in_one_file_fits_in(check: Check) -> None:
    (data,) = load((EXAMPLES / "deployment.yaml").read_text())

    assert list(check(with_(Resource("examples", data)))) == []


@pytest.mark.parametrize("folder", ["functions", "server", "rabbitmq", "prometheus"])
def test_on_a_cluster_of_ones_own_no_node_is_open_and_no_image_is_of_kind(folder: str) -> None:
    resources = Cluster(folder, list(rendered(EXAMPLES / "own-cluster" / folder)))

    types = {each.spec.get("type", "ClusterIP") for each in resources.of("Service")}
    assert types <= {"ClusterIP"}
    used = {image for pod in resources.pods for image in images.images_of(pod)}
    assert not [image for image in used if image.startswith("localhost:")]
    assert list(images.images_are_pinned(resources)) == []
    assert list(security.pods_are_restricted(resources)) == []
