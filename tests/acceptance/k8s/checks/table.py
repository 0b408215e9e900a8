"""The table of checks. A check takes a cluster and yields what is wrong with it, as sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from tests.acceptance.k8s.manifests import Cluster

Check = Callable[[Cluster], Iterator[str]]

CHECKS: Final[list[Check]] = []


def check(function: Check) -> Check:
    """Put a check into the table. Its name is its claim."""
    CHECKS.append(function)
    return function


def name_of(function: Check) -> str:
    """Return a check's name."""
    return function.__name__
