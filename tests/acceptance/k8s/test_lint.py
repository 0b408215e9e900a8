"""What ``make k8s-lint`` goes by: yamllint's rules, and checkov's findings that have a reason."""

from __future__ import annotations

import re

import pytest

from devtools import k8s_lint
from devtools.k8s_lint import Finding, read_skips
from tests.acceptance.k8s.clusters import CLUSTERS, places
from tests.acceptance.k8s.manifests import K8S, load


def test_every_skip_has_a_reason_and_no_two_are_alike() -> None:
    (table,) = load(k8s_lint.SKIPS.read_text())
    skips = read_skips()

    assert all(set(each) == {"check", "where", "reason"} for each in table)
    assert len({skip.check for skip in skips}) == len(skips)
    for skip in skips:
        re.compile(skip.where)
        assert re.match(r"CKV2?_K8S_", skip.check)
        assert len(skip.reason.split()) >= 8


#: Probes, image tags, read-only root, tokens.
@pytest.mark.parametrize("check", [f"CKV_K8S_{number}" for number in (8, 9, 14, 15, 22, 38)])
@pytest.mark.parametrize(
    "place",
    ["overlays/keda:Deployment.lambda.echo-lambda", "lambda-server:Deployment.lambda.x"],
)
def test_what_is_left_to_checkov_is_not_skipped(check: str, place: str) -> None:
    assert not [skip for skip in read_skips() if skip.covers(Finding(check, "", place))]


def test_everything_that_is_applied_is_looked_at() -> None:
    folders = {str(each.relative_to(K8S)) for each in k8s_lint.applied_folders()}
    used = {place for name in CLUSTERS for place in places(name) if (K8S / place).is_dir()}

    assert used <= folders
