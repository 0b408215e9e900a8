"""The checks notice: each deliberate fault is reported by the check that is there for it."""

from __future__ import annotations

import pytest

# Each of these puts its faults into the table.
from tests.acceptance.k8s.checks.every import CHECKS, name_of
from tests.acceptance.k8s.clusters import cluster
from tests.acceptance.k8s.faults import of_broker, of_functions, of_references, of_workloads
from tests.acceptance.k8s.faults.table import FAULTS, Fault

MODULES = (of_broker, of_functions, of_references, of_workloads)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_reported(fault: Fault) -> None:
    broken = cluster(fault.cluster).copy()

    fault.break_it(broken)

    problems = list(fault.check(broken))
    assert problems
    assert all(isinstance(problem, str) and problem for problem in problems)


def test_every_check_has_a_fault_that_it_notices() -> None:
    tried = {fault.check for fault in FAULTS}

    assert sorted(map(name_of, set(CHECKS) - tried)) == []
    assert tried <= set(CHECKS)
    assert len(FAULTS) >= 2 * 25
