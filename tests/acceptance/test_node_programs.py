"""What of the node's tests can be told without a node: versions, caches, and a caller's answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.node import programs
from tests.acceptance.node.amqp_caller import Calls
from tests.acceptance.node.programs import ToolMissing
from tests.support import ROOT

NODE = Path(programs.__file__).parent


def test_the_node_runs_the_versions_of_the_cluster() -> None:
    kind = (ROOT / "k8s" / "kind.yaml").read_text() + (
        ROOT / "k8s" / "versions" / "kustomization.yaml"
    ).read_text()
    kubernetes = (NODE / "kubernetes" / "go.mod").read_text()
    from_keda = (NODE / "keda" / "go.mod").read_text()

    version = programs.required_version(kubernetes, "k8s.io/kubernetes")
    keda_version = programs.required_version(from_keda, "github.com/kedacore/keda/v2")

    assert f"kindest/node:{version}@" in kind or version in kind
    assert keda_version.removeprefix("v") in kind


def test_programs_of_different_modules_are_cached_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    found = programs.known_programs()
    folders = {found[name].parent for name in ("kubelet", "keda-operator", "registry")}

    assert len(folders) == 3
    assert found["etcd"].parent == found["kubelet"].parent
    assert found.missing(["etcd", "pause"]) == ["etcd", "pause"]


def test_without_go_the_missing_program_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ToolMissing, match="go is not installed, and kubelet is built with it"):
        programs.build_programs(["kubelet"])


def test_an_answer_counts_once_and_only_with_its_own_payload() -> None:
    calls = Calls(sent={"a": b"1", "b": b"2"})

    calls.take("a", b"1")
    calls.take("a", b"1")
    calls.take("b", b"1")

    assert calls.open == 0
    assert [entry[0] for entry in calls.wrong] == ["a", "b"]
