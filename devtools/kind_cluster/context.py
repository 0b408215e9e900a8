"""Whether the kubeconfig's context is our cluster's, so that no other cluster is ever touched."""

from __future__ import annotations

from typing import Final

import yaml

from devtools.kind_cluster.answers import ask, read
from devtools.kind_cluster.names import CLUSTER, CONTEXT, kind, kubectl

_THIS_MACHINE: Final = ("https://127.0.0.1:", "https://localhost:", "https://[::1]:")


def problem(has_cluster: bool) -> str | None:
    """Return why kubectl must not be used, or None. Raises CommandError."""
    view = ask(kubectl("config", "view", "--minify", "-o", "json"))  # fails if there is none
    kubeconfig = read(kind("get", "kubeconfig")) if has_cluster else ""
    return mismatch(view.out if view.status == 0 else "", kubeconfig)


def problem_of_deletion() -> str | None:
    """Return why kind must not delete our cluster, and with it the context, or None.

    A cluster that is not whole may have no address, or no context. Raises CommandError.
    """
    view = ask(kubectl("config", "view", "--minify", "-o", "json"))
    kubeconfig = ask(kind("get", "kubeconfig"))
    if view.status != 0:
        return None
    return mismatch(view.out, kubeconfig.out if kubeconfig.status == 0 else "")


def mismatch(view: str, kubeconfig: str) -> str | None:
    """Return how the context of kubectl's ``view`` differs from kind's ``kubeconfig``.

    Without a cluster, and so without ``kubeconfig``, kind is about to write the context: it may
    replace one that a deleted cluster left behind, but none of another machine.
    """
    found, ours = _server(view), _server(kubeconfig)
    if found == ours or (not ours and found.startswith(_THIS_MACHINE)):
        return None
    if not found:
        return (
            f"kubectl does not know the context {CONTEXT}, and kind has the cluster {CLUSTER}. "
            f"Make it known: kind export kubeconfig --name {CLUSTER}; if that fails, the cluster "
            "is not whole: scripts/cluster down"
        )
    expected = (
        f"kind's cluster {CLUSTER} is {ours}" if ours else f"kind knows no such cluster {CLUSTER}"
    )
    return (
        f"The context {CONTEXT} points to {found}, but {expected}. Nothing was done: "
        "rename that context, or name another file in KUBECONFIG"
    )


def _server(kubeconfig: str) -> str:
    """Return the address in a kubeconfig of one cluster; nothing if there is none."""
    clusters = (yaml.safe_load(kubeconfig) or {}).get("clusters") or []
    return str(clusters[0]["cluster"]["server"]) if clusters else ""
