"""Every image has a version, and it is the one of the table in ``k8s/versions``."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Final

from tests.acceptance.k8s.manifests import K8S, Cluster, Pod, at, load

_REFERENCE: Final = re.compile(
    r"(?P<name>[^@]+?)(?::(?P<tag>[\w][\w.-]*))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def images_are_pinned(cluster: Cluster) -> Iterator[str]:
    for pod in cluster.pods:
        for image in images_of(pod):
            _, tag, digest = split(image)
            if digest is None and tag in (None, "latest"):
                yield f"{pod.owner}: {image} may be another tomorrow"


def images_are_those_of_the_table(cluster: Cluster) -> Iterator[str]:
    for pod in cluster.pods:
        for image in images_of(pod):
            if image not in table():
                yield f"{pod.owner}: {image} is not in k8s/versions"


def versions_are_those_of_the_images(cluster: Cluster) -> Iterator[str]:
    """The label tells a user what runs."""
    for pod in cluster.pods:
        image = pod.containers[0]["image"]
        version = str(split(image)[1]).removeprefix("v").partition("-")[0]
        for place, labels in (("it", pod.owner.labels), ("its pods", pod.labels)):
            said = labels.get("app.kubernetes.io/version", "").removeprefix("v")
            if said != version and not pod.owner.is_foreign:
                yield f"{pod.owner} runs {image}, and the label of {place} says {said!r}"


def images_of(pod: Pod) -> list[str]:
    """Return the images of a pod's containers and volumes."""
    volumes = [at(volume, "image.reference") for volume in pod.spec.get("volumes", [])]
    return [*(each["image"] for each in pod.all_containers), *filter(None, volumes)]


def split(image: str) -> tuple[str, str | None, str | None]:
    """Return the name, tag and digest of an image."""
    found = _REFERENCE.fullmatch(image)
    assert found is not None, image
    return found["name"], found["tag"], found["digest"]


def name_of(image: str) -> str:
    """Return an image's name without its version."""
    return split(image)[0]


@functools.cache
def table() -> set[str]:
    """Return the images of ``k8s/versions``, as a pod names them."""
    (component,) = load((K8S / "versions" / "kustomization.yaml").read_text())
    references = set()
    for each in component["images"]:
        tag = f":{each['newTag']}" if "newTag" in each else ""
        digest = f"@{each['digest']}" if "digest" in each else ""
        references.add(f"{each.get('newName', each['name'])}{tag}{digest}")
    return references


CHECKS: Final = (
    images_are_pinned,
    images_are_those_of_the_table,
    versions_are_those_of_the_images,
)
