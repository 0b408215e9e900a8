"""The images of the node: those of this project, and those of the programs beside them.

No image can be pulled here. RabbitMQ is Debian's, KEDA and the registry are built from their Go
modules, and a server that answers 200 stands in for the rest.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from devtools.kind_cluster.manifests import Manifests
from devtools.kind_cluster.names import CHECKOUT
from devtools.static.sources import RELEASE
from lambda_protocol import __version__
from tests.acceptance.containers.engine import Images
from tests.acceptance.node.programs import KEDA, Programs

#: What containerd runs first in every pod.
PAUSE: Final = "registry.k8s.io/pause:3.10"

#: Our images, as ``make docker`` calls them -> Dockerfile and folder below the checkout.
_OWN: Final = {
    "lambda-runtime-api-daemon": ("docker/Dockerfile-daemon", "."),
    "lambda-server": ("docker/Dockerfile-server", "."),
    "echo-lambda": ("examples/echo-lambda/Dockerfile", "examples/echo-lambda"),
    "image-greyscale-lambda": ("examples/image-greyscale/Dockerfile", "examples/image-greyscale"),
}
_REGISTRY: Final = """\
FROM scratch
COPY registry /registry
COPY config.yml /etc/distribution/config.yml
ENTRYPOINT ["/registry", "serve", "/etc/distribution/config.yml"]
"""
_REGISTRY_CONFIG: Final = """\
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/registry}}
http: {addr: ":5000"}
"""
_PROGRAM: Final = """\
FROM scratch
COPY program /%s
USER 65532:65532
ENTRYPOINT ["/%s"]
"""
_STAND_IN: Final = """\
FROM scratch
COPY program /stand-in
ENV PORT=%d TLS=%s
ENTRYPOINT ["/stand-in"]
"""
# As in the official image, the programs are those that do not insist on the system's user.
_RABBITMQ: Final = f"""\
FROM docker.io/library/debian:{RELEASE}-slim
RUN printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d \\
    && apt-get update \\
    && apt-get install --yes --no-install-recommends rabbitmq-server \\
    && rm -rf /var/lib/apt/lists/* /var/lib/rabbitmq /var/log/rabbitmq \\
    && mkdir -p /etc/rabbitmq/conf.d /var/lib/rabbitmq /var/log/rabbitmq \\
    && chmod 777 /etc/rabbitmq /var/lib/rabbitmq /var/log/rabbitmq
ENV PATH=/usr/lib/rabbitmq/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
    HOME=/var/lib/rabbitmq LANG=C.UTF-8 RABBITMQ_LOGS=- RABBITMQ_CONF_ENV_FILE=/dev/null
USER 999:999
CMD ["rabbitmq-server"]
"""
#: Port and whether by TLS, of each server whose image cannot be had.
_STAND_INS: Final = {
    "registry.k8s.io/metrics-server/metrics-server": (10250, True),
    "prom/prometheus": (9090, False),
    "registry.k8s.io/prometheus-adapter/prometheus-adapter": (6443, True),
    "kubernetesui/dashboard": (8443, True),
    "kubernetesui/metrics-scraper": (8000, False),
    "ghcr.io/headlamp-k8s/headlamp": (4466, False),
}
#: Program of KEDA -> its image, and the name that KEDA's manifest starts it by.
_KEDA: Final = {
    "keda-operator": ("ghcr.io/kedacore/keda", "keda"),
    "keda-adapter": ("ghcr.io/kedacore/keda-metrics-apiserver", "keda-adapter"),
    "keda-webhooks": ("ghcr.io/kedacore/keda-admission-webhooks", "keda-admission-webhooks"),
}


def storage() -> Path:
    """Return where buildah keeps the images, those of ``make container-check`` among them."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lambda-containers"


def build_images(images: Images, programs: Programs, *, has_keda: bool) -> None:
    """Build every image; what has not changed is in buildah's cache. Raises ``CommandError``."""
    for name, (dockerfile, context) in _OWN.items():
        arguments = {"PGO": "0"} if name == "lambda-runtime-api-daemon" else {}
        images.build(name, CHECKOUT / dockerfile, CHECKOUT / context, **arguments)
        images.tag(name, f"{name}:{__version__}")
    for name, (text, files) in _recipes(programs, has_keda=has_keda).items():
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            for copied, source in files.items():
                shutil.copy(source, folder / copied)
            (folder / "config.yml").write_text(_REGISTRY_CONFIG)
            (folder / "Dockerfile").write_text(text)
            images.build(mirrored(name), folder / "Dockerfile", folder)


def mirrored_images(*, has_keda: bool) -> list[str]:
    """Return the names, as pods ask for them, of all images but our own."""
    programs = [name for name, _ in _KEDA.values()] if has_keda else []
    names = ["registry", "rabbitmq", *_STAND_INS, *programs]
    images = Manifests.read(CHECKOUT).images
    return [PAUSE, *(images[name] for name in names)]


def mirrored(image: str) -> str:
    """Return a name without its registry: the node's mirror has it by that."""
    first, slash, rest = image.partition("/")
    if not slash:
        return f"library/{image}"
    return rest if "." in first else image


def _recipes(programs: Programs, *, has_keda: bool) -> dict[str, tuple[str, dict[str, Path]]]:
    """Return for each image its Dockerfile, and the files in the folder beside it."""
    images = Manifests.read(CHECKOUT).images
    recipes: dict[str, tuple[str, dict[str, Path]]] = {
        PAUSE: (_PROGRAM % ("pause", "pause"), {"program": programs["pause"]}),
        images["registry"]: (_REGISTRY, {"registry": programs["registry"]}),
        images["rabbitmq"]: (_RABBITMQ, {}),
    }
    for name, (port, has_tls) in _STAND_INS.items():
        text = _STAND_IN % (port, "yes" if has_tls else "")
        recipes[images[name]] = (text, {"program": programs["stand-in"]})
    for program in KEDA if has_keda else ():
        name, command = _KEDA[program]
        recipes[images[name]] = (_PROGRAM % (command, command), {"program": programs[program]})
    return recipes
