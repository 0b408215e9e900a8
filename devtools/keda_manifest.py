"""Write ``k8s/keda/keda.yaml`` from KEDA's own source: ``python -m devtools.keda_manifest``.

KEDA's release is its folder ``config/default``, built by kustomize. The same is done here with the
Go module of the version that ``k8s/versions`` names: Go checks the module against its public
checksum, so what is written is what was released. The texts of the CRDs, half of the file, are
left out. Needs Go and its module proxy; nobody needs it who does not change the version.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

from devtools.interrupts import exit_with
from devtools.kustomize import install_kustomize, render

ROOT: Final = Path(__file__).resolve().parent.parent
TARGET: Final = ROOT / "k8s" / "keda" / "keda.yaml"
MODULE: Final = "github.com/kedacore/keda/v2"
_IMAGE: Final = "ghcr.io/kedacore/keda"
_LIMIT_S: Final = 600.0


def main() -> int:
    """Write the file and return 0."""
    version = keda_version()
    module = json.loads(_output("go", "mod", "download", "-json", f"{MODULE}@v{version}"))
    install_kustomize()
    built = render(Path(module["Dir"]) / "config" / "default")
    objects = [each for each in yaml.safe_load_all(built) if each["kind"] != "Namespace"]
    for each in objects:
        if each["kind"] == "CustomResourceDefinition":
            _drop_texts(each)
        _set_version(each, version)
    head = (
        f"# KEDA {version}, from its source by `python -m devtools.keda_manifest`; do not edit.\n"
        f"# {MODULE} v{version} {module['Sum']}, Apache License 2.0.\n"
    )
    TARGET.write_text(head + yaml.safe_dump_all(objects, width=1000))
    print(f"  {TARGET.relative_to(ROOT)}: KEDA {version}, {len(objects)} objects")
    return 0


def keda_version() -> str:
    """Return the version of KEDA that ``k8s/versions`` names."""
    versions = yaml.safe_load((ROOT / "k8s" / "versions" / "kustomization.yaml").read_text())
    (tag,) = [image["newTag"] for image in versions["images"] if image["name"] == _IMAGE]
    return str(tag)


def _drop_texts(node: Any) -> None:
    """Remove the descriptions of a schema, but not a property of that name."""
    if isinstance(node, list):
        for each in node:
            _drop_texts(each)
    elif isinstance(node, dict):
        if isinstance(node.get("description"), str):
            del node["description"]
        for each in node.values():
            _drop_texts(each)


def _set_version(each: Any, version: str) -> None:
    """Say the version where the source says that it is to be filled in."""
    labels = each["metadata"].get("labels", {})
    if "app.kubernetes.io/version" in labels:
        labels["app.kubernetes.io/version"] = version


def _output(*command: str) -> str:
    # Outside the checkout: a go.mod of ours is not to change.
    done = subprocess.run(
        command, cwd="/", capture_output=True, text=True, timeout=_LIMIT_S, check=True
    )
    return done.stdout


if __name__ == "__main__":
    exit_with(main)
