"""Applies every directory of k8s/ to a real API server, and lists what it refuses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.autoscale.lab.control_plane import ControlPlane
from bench.autoscale.lab.kube import Kube, KubeError, Object
from bench.autoscale.lab.programs import Programs

_CHECKOUT = Path(__file__).parents[3]
_SETTLE_S = 12.0  # for the controllers to try each pod


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What the API server said no to, or warned of, and where it stands."""

    folder: str
    what: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What became of the manifests."""

    folders: int  #: directories applied
    pods: int  #: made by the controllers
    refusals: list[Refusal]


def check_admission(programs: Programs, folder: Path) -> Admission:
    """Apply each directory for real: so controllers make its pods, which Pod Security judges."""
    with ControlPlane(programs, folder) as plane:
        admin = plane.user("admin")
        folders = kustomizations(_CHECKOUT)
        first = ["k8s/namespaces", "k8s/keda"]  # what the others stand in or are made of
        refusals = [*_apply(admin, first), *_apply(admin, folders), *_refused_pods(admin)]
        pods = len(admin.get("/api/v1/pods")["items"])
        return Admission(folders=len(folders), pods=pods, refusals=refusals)


def kustomizations(checkout: Path) -> list[str]:
    """Return the directories of k8s/ that can be applied: kustomizations, no components."""
    folders = []
    for file in sorted(checkout.glob("k8s/**/kustomization.yaml")):
        if yaml.safe_load(file.read_text()).get("kind") != "Component":
            folders.append(str(file.parent.relative_to(checkout)))
    return folders


def render_admission(found: Admission) -> str:
    """Return what was refused, as Markdown."""
    about = f"{found.folders} directories applied, {found.pods} pods made."
    if not found.refusals:
        return f"{about} Nothing was refused."
    rows = [f"| {r.folder} | {r.what} | {r.message} |" for r in found.refusals]
    head = ["| directory | what | the API server says |", "|---|---|---|"]
    return "\n".join([about, "", *head, *rows])


def _apply(admin: Kube, folders: list[str]) -> Iterator[Refusal]:
    for folder in folders:
        try:
            text = admin.run("kustomize", str(_CHECKOUT / folder))
        except KubeError as error:
            yield Refusal(folder=folder, what="kustomize", message=str(error))
            continue
        for document in yaml.safe_load_all(text):
            for how in (["--dry-run=server", "--warnings-as-errors"], []):
                message = _try_to_apply(admin, document, how)
                if message is not None:
                    yield Refusal(folder=folder, what=_name(document), message=message)
                    break


def _try_to_apply(admin: Kube, document: Object, how: list[str]) -> str | None:
    """Apply one document; a wait lets a CRD that came before be served."""
    arguments = ["apply", "--server-side", "--force-conflicts", "--validate=strict", *how]
    for is_last in (False, True):
        try:
            admin.run(*arguments, "-f", "-", stdin=yaml.safe_dump(document))
        except KubeError as error:
            if is_last or "no matches for kind" not in str(error):
                return " ".join(str(error).split())
            time.sleep(2)
        else:
            return None
    return None


def _refused_pods(admin: Kube) -> Iterator[Refusal]:
    """Yield what controllers were told when they made pods. Waits for them to have tried."""
    time.sleep(_SETTLE_S)
    for event in admin.get("/api/v1/events?limit=500")["items"]:
        if event["reason"] in ("FailedCreate", "FailedUpdate"):
            owner = event["involvedObject"]
            what = f"pod of {owner['kind']} {owner.get('namespace', '')}/{owner['name']}"
            yield Refusal(folder="", what=what, message=" ".join(event["message"].split()))


def _name(document: Object) -> str:
    metadata = document["metadata"]
    namespace = f"{metadata['namespace']}/" if "namespace" in metadata else ""
    return f"{document['kind']} {namespace}{metadata['name']}"
