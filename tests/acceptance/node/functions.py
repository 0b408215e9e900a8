"""Functions of the tests: pods as our manifests make them, with a handler of our own in them."""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from devtools.kind_cluster.plan import path
from devtools.progress import wait_until
from tests.acceptance.node.kube import Object
from tests.acceptance.node.node import ADDRESS
from tests.acceptance.node.workplace import Workplace
from tests.http_listener import HttpListener
from tests.support import Answer, Client

_SERVER_PORT: Final = 8080
_CALL_S: Final = 100.0
_OVERLAY: Final = "k8s/overlays/max-concurrency"

#: Says to the recorder that it runs, sleeps, takes memory, and answers what it was given.
_HANDLER: Final = """\
import os
import time
import urllib.request

time.sleep(float(os.environ.get("INIT_S", "0")))

def handler(event, context):
    if "id" in event:
        urllib.request.urlopen(os.environ["RECORDER"] + "/" + event["id"], b"").close()
    block = bytearray(event.get("mebibytes", 0) * 2**20)
    block[::4096] = bytes([1]) * len(block[::4096])
    time.sleep(event.get("sleep", 0))
    return event
"""


def invoke(name: str, payload: object, *, is_event: bool = False) -> Answer:
    """Call a function through the Lambda Server, as a user does."""
    kind = "Event" if is_event else "RequestResponse"
    with Client(_SERVER_PORT, _CALL_S) as client:
        return client.post(path(name), json.dumps(payload).encode(), X_Amz_Invocation_Type=kind)


class Recorder(HttpListener):
    """Counts how often each id ran. Pods reach it at the node's address."""

    def __init__(self) -> None:
        super().__init__(host=ADDRESS)
        self.url = f"http://{ADDRESS}:{self.port}"

    @property
    def runs(self) -> Counter[str]:
        """How often each id ran so far."""
        return Counter(each.path[1:] for each in list(self.deliveries))


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Calls of one function, one after the other in each thread, until the block ends."""

    answers: dict[str, Answer] = field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def on(cls, name: str, *, callers: int, sleep_s: float = 0.0) -> Iterator[Load]:
        """Call until the block ends; the last answers are waited for."""
        load, ended = cls(), threading.Event()

        def call() -> None:
            while not ended.is_set():
                key = uuid.uuid4().hex
                load.answers[key] = invoke(name, {"id": key, "sleep": sleep_s})

        threads = [threading.Thread(target=call, daemon=True) for _ in range(callers)]
        for thread in threads:
            thread.start()
        try:
            yield load
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def wrong(self) -> dict[str, Answer]:
        """Return those that were not answered with their own payload."""
        return {
            key: answer
            for key, answer in self.answers.items()
            if answer.status != 200 or json.loads(answer.body).get("id") != key
        }


class Function:
    """A function of the cluster, by a Deployment that may be changed before it is applied."""

    def __init__(self, workplace: Workplace, name: str, recorder: Recorder) -> None:
        self.name = name
        self.workplace = workplace
        documents = yaml.safe_load_all(workplace.kubectl("kustomize", _OVERLAY))
        (self.deployment,) = [
            each for each in documents
            if each["kind"] == "Deployment" and each["metadata"]["name"] == "echo-lambda"
        ]  # fmt: skip
        labels = self.deployment["metadata"]["labels"]
        labels |= {"app.kubernetes.io/name": name, "app.kubernetes.io/instance": name}
        self.deployment["metadata"]["name"] = name
        self.spec["selector"]["matchLabels"] = {"app.kubernetes.io/name": name}
        self.spec["template"]["metadata"]["labels"] = labels
        self.container["args"] = ["probe.handler"]
        self.container["volumeMounts"].append(
            {"name": "code", "mountPath": "/var/task/probe.py", "subPath": "probe.py"}
        )
        self.pod["volumes"].append({"name": "code", "configMap": {"name": "probe"}})
        self.set_environ(RECORDER=recorder.url, RAPID_MAX_CONCURRENCY="4")

    @property
    def spec(self) -> Object:
        """The Deployment's."""
        spec: Object = self.deployment["spec"]
        return spec

    @property
    def pod(self) -> Object:
        """The pod's spec."""
        pod: Object = self.spec["template"]["spec"]
        return pod

    @property
    def container(self) -> Object:
        """The function's container."""
        container: Object = self.pod["containers"][0]
        return container

    def set_environ(self, **environ: str) -> None:
        """Set variables of the function's container."""
        kept = [each for each in self.container["env"] if each["name"] not in environ]
        new = [{"name": name, "value": value} for name, value in environ.items()]
        self.container["env"] = [*kept, *new]

    def apply(self, *, is_ready: bool = True) -> None:
        """Make the cluster have it, and wait until its pods are ready."""
        code = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "probe", "namespace": "lambda"},
            "data": {"probe.py": _HANDLER},
        }
        self.workplace.kube.apply([code, self.deployment])
        if is_ready:
            self.rolled_out()

    def rolled_out(self) -> None:
        """Wait until all its pods are new and ready."""
        self.kubectl("rollout", "status", f"deployment/{self.name}", "--timeout=400s")

    def scale(self, pods: int) -> None:
        """Have so many pods, and wait for them to be ready, or gone."""
        self.kubectl("scale", f"deployment/{self.name}", f"--replicas={pods}")
        self.rolled_out()
        assert wait_until(lambda: len(self.pods()) == pods, 120.0), self.pods()

    def pods(self) -> dict[str, Object]:
        """Return its pods by name."""
        selector = f"labelSelector=app.kubernetes.io%2Fname%3D{self.name}"
        found = self.workplace.kube.get(f"/api/v1/namespaces/lambda/pods?{selector}")["items"]
        return {pod["metadata"]["name"]: pod for pod in found}

    def statuses(self, kind: str = "containerStatuses") -> list[Mapping[str, Any]]:
        """Return what Kubernetes says of its containers."""
        pods = self.pods().values()
        return [status for pod in pods for status in pod["status"].get(kind, [])]

    def kubectl(self, *words: str) -> str:
        """Run kubectl in the functions' namespace."""
        return self.workplace.kubectl("--namespace=lambda", *words)

    def delete(self) -> None:
        """Remove it, with what scales it, and wait until its pods are gone."""
        if "keda.sh" in self.kubectl("api-versions"):
            self.kubectl("delete", "scaledobject", self.name, "--ignore-not-found")
        self.kubectl("delete", "deployment", self.name, "--ignore-not-found")
        assert wait_until(lambda: not self.pods(), 120.0), self.pods()


#: Makes a function by its name; ``pods`` says how many pods it starts with.
MakeFunction = Callable[..., Function]
