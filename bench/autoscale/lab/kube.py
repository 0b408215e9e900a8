"""The Kubernetes API over HTTPS, as far as the lab speaks it."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from devtools.ports import LOOPBACK

#: A Kubernetes object as JSON; its shape is the API's business.
Object = dict[str, Any]

_REQUEST_LIMIT_S = 30.0
_KUBECTL_LIMIT_S = 120
_WATCH_S = 3600


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
        return self._request("GET", path)

    def create(self, path: str, body: Object) -> Object:
        """Create an object in the collection ``path``."""
        return self._request("POST", path, body)

    def merge(self, path: str, body: Object) -> Object:
        """Change an object by a JSON merge patch."""
        return self._request("PATCH", path, body, "application/merge-patch+json")

    def delete(self, path: str, *, grace_s: int | None = None) -> None:
        """Delete an object; ``grace_s`` 0 removes a pod's record at once, as a kubelet does."""
        body = {} if grace_s is None else {"gracePeriodSeconds": grace_s}
        self._request("DELETE", path, body)

    def watch(self, path: str) -> Iterator[tuple[str, Object]]:
        """Yield what is in the collection ``path``, then each change, until the server ends it."""
        found = self.get(path)
        for item in found.get("items", []):
            yield "ADDED", item
        version = found["metadata"]["resourceVersion"]
        connection = self._connect(timeout_s=_WATCH_S)
        with contextlib.closing(connection):
            query = f"watch=1&resourceVersion={version}&timeoutSeconds={_WATCH_S}"
            query = f"{'&' if '?' in path else '?'}{query}"
            connection.request("GET", path + query, headers=self._headers())
            for line in connection.getresponse():
                event = json.loads(line)
                yield event["type"], event["object"]

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

    def _connect(self, timeout_s: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            LOOPBACK,
            self.port,
            timeout=timeout_s,
            context=ssl.create_default_context(cafile=str(self.ca)),
        )

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}

    def _request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        headers = {**self._headers(), "Content-Type": content_type}
        with contextlib.closing(self._connect(_REQUEST_LIMIT_S)) as connection:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, headers)
            response = connection.getresponse()
            answer: Object = json.loads(response.read())
        if response.status >= 300:
            raise KubeError(f"{method} {path}: {response.status} {answer.get('message', answer)}")
        return answer
