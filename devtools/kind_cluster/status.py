"""How the cluster is: a line for each component."""

from __future__ import annotations

from typing import Final

from devtools.kind_cluster import names
from devtools.kind_cluster.components import components
from devtools.kind_cluster.found import Found
from devtools.kind_cluster.manifests import Manifests
from devtools.kind_cluster.plan import Wish
from devtools.kind_cluster.summary import urls

ALL_READY: Final = 0
SOME_READY: Final = 1
NONE_READY: Final = 3

_WIDTH: Final = 28


def status(found: Found, manifests: Manifests) -> tuple[int, list[str]]:
    """Return the exit status, and the table."""
    choice = Wish().choice(found)
    known = urls(manifests)
    lines = [_line("Cluster", f"{len(found.nodes)} nodes", f"context {names.CONTEXT}")]
    ready = []
    for component in components(choice.scaling, choice.dashboard, choice.has_rabbitmq_cluster):
        for reference in component.workloads:
            workload = found.workload(component.namespace, reference)
            name = reference.partition("/")[2]
            url = known.get(name, "")
            if workload is None:
                lines.append(_line(name, "missing", url))
            elif workload.wanted == 0:
                lines.append(_line(name, "0/0", "scaled to zero"))
            else:
                lines.append(_line(name, f"{workload.ready}/{workload.wanted}", url))
            ready.append(workload is not None and workload.is_ready)
    lines.append(_line("Scaling", str(found.scaling or "none"), ""))
    if all(ready):
        return ALL_READY, lines
    return SOME_READY if any(ready) else NONE_READY, lines


def _line(name: str, state: str, more: str) -> str:
    return f"{name:<{_WIDTH}} {state:<10} {more}".rstrip()
