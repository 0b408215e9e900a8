"""What kind does, done to the one node: create, delete, and tell of a cluster.

The program ``stand_ins/kind`` asks over a Unix socket, so that the node belongs to the tests.
"""

from __future__ import annotations

import argparse
import json
import socketserver
import threading
from pathlib import Path
from typing import Any, Final

import yaml

from devtools.kind_cluster.names import CHECKOUT
from tests.acceptance.node.node import NAME, Node

_VERSION: Final = "kind version 0.32.0\n"
_PERIOD: Final = "horizontal-pod-autoscaler-sync-period"


class Kind:
    """Answers commands of kind, one at a time, until it is stopped. Thread-safe."""

    def __init__(self, node: Node, socket: Path, kubeconfig: Path) -> None:
        self._node = node
        self._kubeconfig = kubeconfig
        self._lock = threading.Lock()
        self._server = socketserver.ThreadingUnixStreamServer(str(socket), self._handler())
        threading.Thread(target=self._server.serve_forever, name="kind", daemon=True).start()

    def stop(self) -> None:
        """Delete the cluster, and answer no more."""
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            self._node.stop()

    def answer(self, words: list[str]) -> str:
        """Do what ``kind WORDS`` does, and return what it prints."""
        if words == ["--version"]:
            return _VERSION
        parser = argparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("command", nargs=2)
        for option in ("name", "config", "image", "wait"):
            parser.add_argument(f"--{option}")
        asked = parser.parse_args(words)
        with self._lock:
            match asked.command:
                case ["get", "nodes"]:
                    return f"{NAME}\n" if self._node.is_running else ""
                case ["get", "kubeconfig"]:
                    return self._node.kubeconfig
                case ["create", "cluster"]:
                    self._create(yaml.safe_load((CHECKOUT / asked.config).read_text()))
                    return ""
                case ["delete", "cluster"]:
                    self._node.stop()
                    self._kubeconfig.unlink(missing_ok=True)
                    return ""
                case other:
                    raise ValueError(f"kind {other} is not known here")

    def _create(self, config: Any) -> None:
        if self._node.is_running:
            raise ValueError("the cluster is there already")
        mappings = [each for node in config["nodes"] for each in node.get("extraPortMappings", [])]
        patches = [
            patch["value"]
            for each in config["kubeadmConfigPatchesJSON6902"]
            for patch in yaml.safe_load(each["patch"])
        ]
        (period,) = [int(each["value"].removesuffix("s")) for each in patches
                     if each["name"] == _PERIOD]  # fmt: skip
        settings = [yaml.safe_load(each) for each in config["kubeadmConfigPatches"]]
        (kubelet,) = [each for each in settings if each["kind"] == "KubeletConfiguration"]
        self._node.start(
            {each["hostPort"]: each["containerPort"] for each in mappings},
            hpa_sync_s=period,
            kubelet=kubelet,
        )
        self._kubeconfig.touch(mode=0o600)
        self._kubeconfig.write_text(self._node.kubeconfig)

    def _handler(self) -> type[socketserver.BaseRequestHandler]:
        kind = self

        class Command(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                words = json.loads(self.rfile.readline())
                said = {"out": "", "err": "", "status": 0}
                try:
                    said["out"] = kind.answer(words)
                except Exception as error:
                    said |= {"err": f"ERROR: {error}\n", "status": 1}
                self.wfile.write(json.dumps(said).encode())

        return Command
