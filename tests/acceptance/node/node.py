"""A Kubernetes node with its control plane: containerd, kubelet, kube-proxy, without Docker.

It has what a node of kind has, its network too: each pod is behind a link of its own (CNI's ptp),
and kube-proxy leads Services to pods. Everything is of the version that k8s/versions names, but for
containerd and runc, which are Debian's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import yaml

from devtools.ports import LOOPBACK, free_ports
from devtools.processes import BackgroundProcess
from devtools.progress import wait_until
from tests.acceptance.node.control_plane import ControlPlane, NodeAddress
from tests.acceptance.node.images import PAUSE
from tests.acceptance.node.kube import Kube, KubeError
from tests.acceptance.node.names import NameServer
from tests.acceptance.node.programs import Programs
from tests.acceptance.node.relays import Relays

NAME: Final = "lambda-control-plane"  #: what kind calls it
ADDRESS: Final = "10.99.0.1"
_POD_RANGE: Final = "10.244.0.0/24"
_READY_S: Final = 60.0
_STOP_S: Final = 20.0
_LOG_CHARACTERS: Final = 3000
_CERTS: Final = Path("/etc/containerd/certs.d")

#: The five nodes of kind have five times the processors. This one node is to take as many pods,
#: so they ask for less.
_FEWER_PROCESSORS: Final = """\
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: fewer-processors}
spec:
  matchConstraints:
    resourceRules:
      - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}
  matchConditions:
    - name: asks-for-processors
      expression: >-
        object.spec.containers[0].?resources.?requests.?cpu.hasValue()
  reinvocationPolicy: Never
  failurePolicy: Fail
  mutations:
    - patchType: JSONPatch
      jsonPatch:
        expression: >-
          [JSONPatch{op: "add", path: "/spec/containers/0/resources/requests/cpu", value: "10m"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: fewer-processors}
spec: {policyName: fewer-processors}
"""
#: kind has a provisioner, which makes a folder for each claim.
_STORAGE: Final = """\
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: data-0}
spec:
  storageClassName: standard
  capacity: {storage: 8Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  hostPath: {path: %s}
"""


def mounts_image_volumes() -> bool:
    """Return whether containerd mounts images as volumes. Source: containerd 2.1's notes."""
    said = subprocess.run(["containerd", "--version"], check=True, capture_output=True, text=True)
    found = re.search(r" v?(\d+)\.(\d+)\.", said.stdout)
    return found is not None and (int(found[1]), int(found[2])) >= (2, 1)


class Node:
    """Starts and stops a cluster of one node in a folder. One thread.

    It needs the namespaces of ``machine`` for itself. ``mirror`` is the registry that stands for
    every one of the internet's.
    """

    def __init__(self, folder: Path, programs: Programs, *, cgroup: str, mirror: str) -> None:
        self.programs = programs
        self.kubeconfig = ""  #: as kind writes it
        self._folder = folder
        self._cgroup = cgroup
        self._mirror = mirror
        self._running = ExitStack()
        self._plane: ControlPlane | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped since."""
        return self._plane is not None

    @property
    def kube(self) -> Kube:
        """The API server, as an administrator sees it."""
        assert self._plane is not None
        return self._plane.user("admin")

    def start(
        self, ports: Mapping[int, int], *, hpa_sync_s: int, kubelet: Mapping[str, object]
    ) -> None:
        """Start everything and wait until pods can be.

        ``ports``: the machine's -> the node's. ``kubelet`` is what its configuration says besides.
        """
        self._folder.mkdir(parents=True)
        try:
            self._start(ports, hpa_sync_s, kubelet)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop kubelet, pods, containerd and control plane; the last that started goes first."""
        self._running.close()
        self._plane = None
        for mount in reversed(_mounts_below(self._folder, Path("/run"))):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)

    def crictl(self, *words: str) -> str:
        """Run containerd's own client on the containers of pods."""
        command = ["ctr", f"--address={self._socket}", "--namespace=k8s.io", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def _start(
        self, ports: Mapping[int, int], hpa_sync_s: int, kubelet_settings: Mapping[str, object]
    ) -> None:
        _network_up()
        self._running.callback(_network_down)
        self._write_hosts()
        containerd = self._spawn(
            "containerd", "containerd", f"--config={self._containerd_config()}"
        )
        self._wait("containerd", self._socket.exists, containerd)
        plane = self._running.enter_context(
            ControlPlane(
                self.programs,
                self._folder / "kubernetes",
                hpa_sync_s=hpa_sync_s,
                node=NodeAddress(NAME, ADDRESS),
            )
        )
        self._plane = plane
        self.kubeconfig = yaml.safe_dump(_kubeconfig(plane))
        names = NameServer(ADDRESS, self.kube)
        self._running.callback(names.stop)
        self._running.callback(self._end_containers)
        kubelet = self._spawn(
            "kubelet",
            self.programs["kubelet"],
            f"--config={self._kubelet_config(kubelet_settings)}",
            f"--kubeconfig={plane.folder / 'kubelet.kubeconfig'}",
            f"--hostname-override={NAME}",
            f"--node-ip={ADDRESS}",
            f"--root-dir={self._folder / 'kubelet'}",
            f"--cert-dir={self._folder / 'kubelet-certificates'}",
        )
        proxy = self._proxy_config()
        self._spawn("kube-proxy", self.programs["kube-proxy"], f"--config={proxy}")
        (self._folder / "data").mkdir()
        (self._folder / "data").chmod(0o777)
        self._wait("the node", self._is_ready, kubelet)
        for text in (_STORAGE % (self._folder / "data"), _FEWER_PROCESSORS):
            self.kube.run("apply", "--filename=-", stdin=text)
        relays = Relays(ADDRESS, ports)
        self._running.callback(relays.stop)

    @property
    def _socket(self) -> Path:
        return self._folder / "containerd.sock"

    def _spawn(self, name: str, *command: str | Path) -> BackgroundProcess:
        process = BackgroundProcess.spawn(
            command,
            env={"PATH": os.environ["PATH"], "HOME": str(self._folder)},
            cwd=self._folder,
            log=self._folder / f"{name}.log",
        )
        self._running.callback(process.stop, _STOP_S)
        return process

    def _wait(self, what: str, is_ready: Any, process: BackgroundProcess) -> None:
        if wait_until(lambda: not process.is_alive() or is_ready(), _READY_S) and is_ready():
            return
        logs = [self._folder / f"{name}.log" for name in ("containerd", "kubelet", "kube-proxy")]
        ends = [
            f"{log.name}:\n{log.read_text()[-_LOG_CHARACTERS:]}" for log in logs if log.exists()
        ]
        raise AssertionError("\n".join([f"{what} did not become ready", *ends]))

    def _is_ready(self) -> bool:
        with suppress(KubeError):
            self.kube.run("wait", "--for=condition=Ready", f"node/{NAME}", "--timeout=1s")
            return True
        return False

    def _end_containers(self) -> None:
        """Kill what runs in pods: the kubelet, which would start it again, has ended."""
        with suppress(subprocess.CalledProcessError):
            for name in self.crictl("tasks", "list", "--quiet").split():
                with suppress(subprocess.CalledProcessError):
                    self.crictl("tasks", "kill", "--signal=SIGKILL", "--all", name)
                    self.crictl("tasks", "delete", "--force", name)
            for name in self.crictl("containers", "list", "--quiet").split():
                with suppress(subprocess.CalledProcessError):
                    self.crictl("containers", "delete", name)

    def _write_hosts(self) -> None:
        """Write what a node of kind knows: its name, and where images come from."""
        with Path("/etc/hosts").open("a") as hosts:
            hosts.write(f"{ADDRESS} {NAME}\n")
        (_CERTS / "_default").mkdir(parents=True, exist_ok=True)
        (_CERTS / "_default" / "hosts.toml").write_text(f'[host."http://{self._mirror}"]\n')
        (self._folder / "resolv.conf").write_text("")

    def _containerd_config(self) -> Path:
        network = self._folder / "network"
        network.mkdir()
        ptp = {
            "type": "ptp",
            "ipMasq": False,
            "ipam": {
                "type": "host-local",
                "dataDir": str(self._folder / "addresses"),
                "ranges": [[{"subnet": _POD_RANGE}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        (network / "10-ptp.conflist").write_text(
            json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [ptp]})
        )
        file = self._folder / "containerd.toml"
        file.write_text(
            f"""\
version = 2
root = "{self._folder / "containerd"}"
state = "{self._folder / "containerd-state"}"
[grpc]
address = "{self._socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{network}"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{_CERTS}"
"""
        )
        return file

    def _kubelet_config(self, settings: Mapping[str, object]) -> Path:
        return self._write(
            "kubelet",
            {
                "address": ADDRESS,
                "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
                "authorization": {"mode": "AlwaysAllow"},  # the network is private
                "cgroupDriver": "cgroupfs",
                "cgroupRoot": f"/{self._cgroup}",
                "clusterDNS": [ADDRESS],
                "clusterDomain": "cluster.local",
                "containerRuntimeEndpoint": f"unix://{self._socket}",
                "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%"},
                "failCgroupV1": False,
                "failSwapOn": False,
                "imageGCHighThresholdPercent": 100,
                "imageGCLowThresholdPercent": 99,
                "makeIPTablesUtilChains": False,
                "podLogsDir": str(self._folder / "logs"),
                "resolvConf": str(self._folder / "resolv.conf"),
                "serializeImagePulls": False,
                "volumePluginDir": str(self._folder / "volume-plugins"),
                **settings,
            },
        )

    def _proxy_config(self) -> Path:
        health, metrics = free_ports(2)
        assert self._plane is not None
        return self._write(
            "kube-proxy",
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "mode": "nftables",
                "clientConnection": {
                    "kubeconfig": str(self._plane.folder / "kube-proxy.kubeconfig")
                },
                "clusterCIDR": _POD_RANGE,
                # The limits of the machine's connections are not a namespace's to change.
                "conntrack": {
                    **{"maxPerCore": 0, "min": 0},
                    **{"tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
                },
                "healthzBindAddress": f"{LOOPBACK}:{health}",
                "metricsBindAddress": f"{LOOPBACK}:{metrics}",
                "hostnameOverride": NAME,
            },
        )

    def _write(self, name: str, config: Mapping[str, object]) -> Path:
        file = self._folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(config))
        return file


def _kubeconfig(plane: ControlPlane) -> dict[str, object]:
    """Return the administrator's, with its names as kind gives them."""
    text = (plane.folder / "admin.kubeconfig").read_text()
    config: dict[str, Any] = yaml.safe_load(text)
    config["contexts"][0]["name"] = config["current-context"] = "kind-lambda"
    return config


def _network_up() -> None:
    """Give the namespace an address of the node, and a way for what has no other."""
    for words in (
        "link set lo up",
        "link add node0 type veth peer name node1",
        "link set node1 up",
        f"address add {ADDRESS}/24 dev node0",
        "link set node0 up",
        "route add default dev node0",
    ):
        subprocess.run(["ip", *words.split()], check=True, capture_output=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _network_down() -> None:
    """Remove the node's address, the links of pods that were killed, and kube-proxy's rules."""
    for namespace in Path("/run/netns").glob("cni-*"):
        subprocess.run(["umount", "--lazy", namespace], check=False, capture_output=True)
        namespace.unlink(missing_ok=True)
    subprocess.run(["ip", "link", "delete", "node0"], check=False, capture_output=True)
    subprocess.run(["nft", "flush", "ruleset"], check=False, capture_output=True)


def _mounts_below(*folders: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    return [each for each in points if any(each.startswith(f"{folder}/") for folder in folders)]
