from __future__ import annotations

import pytest

from devtools.kind_cluster.context import mismatch
from tests.integration.cluster.conftest import kubeconfig

OURS = kubeconfig("https://127.0.0.1:40001")
OTHER_PORT = kubeconfig("https://127.0.0.1:40002")
ELSEWHERE = kubeconfig("https://prod.example.com:6443")


@pytest.mark.parametrize(
    ("view", "kind"),
    [
        pytest.param(OURS, OURS, id="ours"),
        pytest.param("", "", id="neither context nor cluster"),
        pytest.param(OURS, "", id="left over from a deleted cluster"),
    ],
)
def test_our_context_is_used(view: str, kind: str) -> None:
    assert mismatch(view, kind) is None


@pytest.mark.parametrize(
    ("view", "kind", "said"),
    [
        pytest.param(ELSEWHERE, OURS, "points to https://prod.example.com:6443", id="elsewhere"),
        pytest.param(ELSEWHERE, "", "points to https://prod.example.com:6443", id="no cluster"),
        pytest.param(OTHER_PORT, OURS, "points to https://127.0.0.1:40002", id="other cluster"),
        pytest.param("", OURS, "kind export kubeconfig --name lambda", id="no context"),
    ],
)
def test_another_context_is_refused(view: str, kind: str, said: str) -> None:
    assert said in (mismatch(view, kind) or "")
