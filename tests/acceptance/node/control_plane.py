"""etcd, API server, controller manager and scheduler, as processes of this machine."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import trustme
import yaml

from devtools.ports import LOOPBACK, free_ports
from devtools.processes import BackgroundProcess
from devtools.progress import wait_until
from tests.acceptance.node.kube import Kube, KubeError
from tests.acceptance.node.programs import Programs

_READY_LIMIT_S = 90.0
_STOP_LIMIT_S = 15.0
_LOG_CHARACTERS = 3000

#: Who the programs are to the API server: user, groups. RBAC says what each may do.
_USERS = {
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", ""),
}
_CONTROLLERS = "*,-node-ipam-controller,-node-route-controller"
#: The first address of the services' range: the API server is there for pods.
_SERVICE_RANGE, _API_SERVICE = "10.96.0.0/16", "10.96.0.1"


class NodeAddress(NamedTuple):
    """A node, and the address at which its kubelet meets the API server."""

    name: str
    address: str


class ProgramFailed(Exception):
    """A program did not get ready; the message holds the end of its output."""


class ControlPlane:
    """A Kubernetes control plane in a folder; a context manager that leaves no process.

    It authorizes by RBAC and runs each controller as its own service account, as kubeadm's does.
    ``hpa_sync_s`` is how often a HorizontalPodAutoscaler is looked at; Kubernetes' default is 15.
    """

    def __init__(
        self, programs: Programs, folder: Path, *, hpa_sync_s: int, node: NodeAddress
    ) -> None:
        self.programs = programs
        self.folder = folder
        self._node = node
        self._users = {**_USERS, "kubelet": (f"system:node:{node.name}", "system:nodes")}
        folder.mkdir(parents=True, exist_ok=True)
        self._authority = trustme.CA()
        self.ca = folder / "ca.crt"
        self._authority.cert_pem.write_to_path(str(self.ca))
        self._accounts = self._sign("service-accounts")[1]  # only its key counts
        self._hpa_sync_s = hpa_sync_s
        self._etcd, self._etcd_peer, self._api, self._manager, self._scheduler = free_ports(5)
        self._tokens = {name: secrets.token_hex(16) for name in self._users}
        self._processes = ExitStack()

    def user(self, name: str) -> Kube:
        """Return the API as one of the users sees it."""
        return Kube(
            port=self._api,
            ca=self.ca,
            token=self._tokens[name],
            kubectl=self.programs["kubectl"],
            kubeconfig=self.folder / f"{name}.kubeconfig",
        )

    def spawn(self, name: str, *flags: str, environ: dict[str, str] | None = None) -> None:
        """Start one of the programs; it ends with the control plane, the last one first."""
        process = BackgroundProcess.spawn(
            [self.programs[name], *flags],
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **(environ or {})},
            cwd=self.folder,
            log=self.folder / f"{name}.log",
        )
        self._processes.callback(process.stop, _STOP_LIMIT_S)

    def wait(self, what: str, is_ready: Callable[[], bool], *, log: str) -> None:
        """Wait until ``is_ready()``; raises ProgramFailed with the end of the program's log."""
        if not wait_until(is_ready, _READY_LIMIT_S):
            output = (self.folder / f"{log}.log").read_text(errors="replace")[-_LOG_CHARACTERS:]
            raise ProgramFailed(f"{what} is not ready; the end of {log}'s output:\n{output}")

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._processes.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._processes.close()

    def _start(self) -> None:
        self._write_kubeconfigs()
        client, peer = (f"http://{LOOPBACK}:{port}" for port in (self._etcd, self._etcd_peer))
        self.spawn(
            "etcd",
            *_flags(
                name="node",
                data_dir=self.folder / "etcd",
                listen_client_urls=client,
                advertise_client_urls=client,
                listen_peer_urls=peer,
                initial_advertise_peer_urls=peer,
                initial_cluster=f"node={peer}",
                unsafe_no_fsync="true",
            ),
        )
        self.spawn("kube-apiserver", *self._api_server_flags(client))
        admin = self.user("admin")
        self.wait("the API server", lambda: _answers(admin, "/readyz"), log="kube-apiserver")
        self._start_controllers()
        self.wait(
            "the controller manager",
            lambda: _answers(admin, "/api/v1/namespaces/default/serviceaccounts/default"),
            log="kube-controller-manager",
        )

    def _sign(self, name: str, *hosts: str) -> tuple[Path, Path]:
        """Return the files of a certificate and its key; it answers to ``hosts`` besides."""
        signed = self._authority.issue_cert("127.0.0.1", "localhost", *hosts, common_name=name)
        certificate, key = (self.folder / f"{name}.{suffix}" for suffix in ("crt", "key"))
        signed.cert_chain_pems[0].write_to_path(str(certificate))
        signed.private_key_pem.write_to_path(str(key))
        return certificate, key

    def _api_server_flags(self, etcd: str) -> Sequence[str]:
        address = self._node.address
        hosts = ("kubernetes.default.svc", _API_SERVICE, address)
        certificate, key = self._sign("kube-apiserver", *hosts)
        proxy_certificate, proxy_key = self._sign("front-proxy")
        tokens = self.folder / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text(
            "".join(
                f'{self._tokens[name]},{user},{user},"{groups}"\n'
                for name, (user, groups) in self._users.items()
            )
        )
        return _flags(
            etcd_servers=etcd,
            bind_address="0.0.0.0",
            advertise_address=address,
            kubelet_preferred_address_types="InternalIP",  # else logs and exec ask a name server
            secure_port=self._api,
            authorization_mode="Node,RBAC",
            token_auth_file=tokens,
            client_ca_file=self.ca,
            tls_cert_file=certificate,
            tls_private_key_file=key,
            service_cluster_ip_range=_SERVICE_RANGE,
            service_account_issuer="https://kubernetes.default.svc",
            service_account_key_file=self._accounts,
            service_account_signing_key_file=self._accounts,
            requestheader_client_ca_file=self.ca,
            requestheader_allowed_names="front-proxy",
            requestheader_extra_headers_prefix="X-Remote-Extra-",
            requestheader_group_headers="X-Remote-Group",
            requestheader_username_headers="X-Remote-User",
            proxy_client_cert_file=proxy_certificate,
            proxy_client_key_file=proxy_key,
        )

    def _start_controllers(self) -> None:
        self.spawn(
            "kube-controller-manager",
            *_flags(
                kubeconfig=self.folder / "controller-manager.kubeconfig",
                bind_address=LOOPBACK,
                secure_port=self._manager,
                controllers=_CONTROLLERS,
                leader_elect="false",
                horizontal_pod_autoscaler_sync_period=f"{self._hpa_sync_s}s",
                use_service_account_credentials="true",
                root_ca_file=self.ca,
                service_account_private_key_file=self._accounts,
            ),
        )
        self.spawn(
            "kube-scheduler",
            *_flags(
                kubeconfig=self.folder / "scheduler.kubeconfig",
                bind_address=LOOPBACK,
                secure_port=self._scheduler,
                leader_elect="false",
            ),
        )

    def _write_kubeconfigs(self) -> None:
        for name, token in self._tokens.items():
            cluster = {
                "server": f"https://{LOOPBACK}:{self._api}",
                "certificate-authority": str(self.ca),
            }
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "node", "cluster": cluster}],
                "users": [{"name": name, "user": {"token": token}}],
                "contexts": [{"name": "node", "context": {"cluster": "node", "user": name}}],
                "current-context": "node",
            }
            file = self.folder / f"{name}.kubeconfig"
            file.touch(mode=0o600)
            file.write_text(yaml.safe_dump(config))


def _flags(**flags: object) -> Sequence[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]


def _answers(kube: Kube, path: str) -> bool:
    try:
        kube.get(path)
    except json.JSONDecodeError:
        return True  # /readyz says ok, which is no JSON
    except (KubeError, OSError):
        return False
    return True
