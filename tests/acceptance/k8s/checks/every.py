"""All checks: importing a module of checks puts them into the table."""

from __future__ import annotations

from tests.acceptance.k8s.checks import broker, functions, names, network, pods, scaling
from tests.acceptance.k8s.checks.table import CHECKS, Check, name_of

__all__ = ["CHECKS", "Check", "name_of"]

MODULES = (broker, functions, names, network, pods, scaling)
