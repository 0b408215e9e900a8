"""Everything that is installed together fits together, for each way to scale."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.k8s.checks.every import CHECKS, Check, name_of
from tests.acceptance.k8s.clusters import CLUSTERS, cluster, places
from tests.acceptance.k8s.faults import FAULTS, Fault
from tests.acceptance.k8s.manifests import K8S


@pytest.mark.parametrize("name", CLUSTERS)
@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_in_a_cluster(check: Check, name: str) -> None:
    assert list(check(cluster(name))) == []


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_is_reported(fault: Fault) -> None:
    broken = cluster(fault.cluster).copy()

    fault.put_into(broken)

    assert list(fault.check(broken))


def test_every_check_has_a_fault_that_it_notices() -> None:
    assert {fault.check for fault in FAULTS} == set(CHECKS)


def test_kind_makes_one_control_plane_and_four_workers() -> None:
    (kind,) = cluster("keda").of("Cluster")

    assert [node["role"] for node in kind.data["nodes"]] == ["control-plane", *["worker"] * 4]


def test_every_folder_is_in_a_cluster() -> None:
    """What is in none would be checked by nobody; ``base`` is in every overlay."""
    folders = {each.parent.relative_to(K8S) for each in K8S.rglob("kustomization.yaml")}
    used = {Path(place) for name in CLUSTERS for place in places(name)}

    parts = {Path(name) for name in ("base", "broker", "versions", "dashboard/admin-user")}
    assert {each for each in folders if each.parts[0] != "components"} - parts <= used
