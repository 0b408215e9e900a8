"""The Kubernetes API over HTTPS, as far as the tests speak it."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from devtools.ports import LOOPBACK

#: A Kubernetes object as JSON; its shape is the API's business.
Object = dict[str, Any]

_REQUEST_LIMIT_S = 30.0
_KUBECTL_LIMIT_S = 120


class KubeError(Exception):
    """The API server refused a request, or kubectl did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kube:
    """One user's way to the API server. Thread-safe: each request has its own connection."""

    port: int
    ca: Path
    token: str
    kubectl: Path
    kubeconfig: Path

    def get(self, path: str) -> Object:
        """Return what is at ``path``; raises :class:`KubeError` for any status but 2xx."""
        connection = http.client.HTTPSConnection(
            LOOPBACK,
            self.port,
            timeout=_REQUEST_LIMIT_S,
            context=ssl.create_default_context(cafile=str(self.ca)),
        )
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            answer: Object = json.loads(response.read())
        if response.status >= 300:
            raise KubeError(f"GET {path}: {response.status} {answer.get('message', answer)}")
        return answer

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it printed; raises :class:`KubeError` with its complaint."""
        done = subprocess.run(
            [self.kubectl, "--kubeconfig", self.kubeconfig, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_KUBECTL_LIMIT_S,
            check=False,
        )
        if done.returncode != 0:
            raise KubeError(done.stderr.strip())
        return done.stdout

    def apply(self, documents: Sequence[Object]) -> str:
        """Apply ``documents`` on the server's side, taking over fields that others hold."""
        text = yaml.safe_dump_all(documents)
        return self.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
