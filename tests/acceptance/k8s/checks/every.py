"""All checks of a cluster. Each takes the cluster and yields what is wrong, as sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from tests.acceptance.k8s.checks import (
    accounts,
    broker,
    functions,
    images,
    labels,
    network,
    references,
    scaling,
    security,
    services,
    workloads,
)
from tests.acceptance.k8s.manifests import Cluster

Check = Callable[[Cluster], Iterator[str]]

CHECKS: Final[tuple[Check, ...]] = (
    *workloads.CHECKS,
    *services.CHECKS,
    *references.CHECKS,
    *accounts.CHECKS,
    *security.CHECKS,
    *network.CHECKS,
    *images.CHECKS,
    *labels.CHECKS,
    *functions.CHECKS,
    *scaling.CHECKS,
    *broker.CHECKS,
)


def name_of(check: Check) -> str:
    """Return a check's name, which is its claim."""
    return check.__name__
