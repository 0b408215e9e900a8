"""The name server of the cluster: Services and their pods, read from the API server each time."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
from typing import Final

from tests.acceptance.node.kube import Kube, KubeError

_SUFFIX: Final = ".svc.cluster.local"
_A: Final = 1
_HAS_ANSWER, _NO_SUCH_NAME = 0x8580, 0x8583  #: flags of an authoritative answer. RFC 1035
_TTL_S: Final = 1


class NameServer:
    """Answers what pods ask, over UDP. A thread for each question."""

    def __init__(self, address: str, kube: Kube) -> None:
        self._server = socketserver.ThreadingUDPServer((address, 53), _handler(kube))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="names", daemon=True).start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


def look_up(kube: Kube, name: str) -> list[str]:
    """Return the addresses of ``[POD.]SERVICE.NAMESPACE.svc.cluster.local``."""
    *pod, service, namespace = name.removesuffix(_SUFFIX).split(".")
    collection = f"/api/v1/namespaces/{namespace}/services"
    found = kube.get(f"{collection}/{service}")["spec"]
    if found.get("clusterIP") not in (None, "None") and not pod:
        return [found["clusterIP"]]
    slices = kube.get(
        f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        f"?labelSelector=kubernetes.io/service-name%3D{service}"
    )
    return [
        address
        for each in slices["items"]
        for endpoint in each["endpoints"] or []
        for address in endpoint["addresses"]
        if not pod or endpoint.get("hostname") == pod[0]
    ]


def _handler(kube: Kube) -> type[socketserver.BaseRequestHandler]:
    class Question(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, reply = self.request
            assert isinstance(reply, socket.socket)
            with contextlib.suppress(OSError, IndexError):
                reply.sendto(_answer(kube, data), self.client_address)

    return Question


def _answer(kube: Kube, query: bytes) -> bytes:
    """Return the answer to a query with one question. Source: RFC 1035, 4.1."""
    labels, position = [], 12
    while length := query[position]:
        labels.append(query[position + 1 : position + 1 + length].decode(errors="replace"))
        position += 1 + length
    question = query[12 : position + 5]
    name, (kind,) = (
        ".".join(labels).lower(),
        struct.unpack("!H", query[position + 1 : position + 3]),
    )
    addresses: list[str] = []
    flags = _NO_SUCH_NAME
    if name.endswith(_SUFFIX):
        with contextlib.suppress(KubeError, OSError, ValueError):
            addresses = look_up(kube, name)
            flags = _HAS_ANSWER if addresses else _NO_SUCH_NAME
    if kind != _A:
        addresses = []
    header = query[:2] + struct.pack("!HHHHH", flags, 1, len(addresses), 0, 0)
    records = [
        struct.pack("!HHHIH", 0xC00C, _A, 1, _TTL_S, 4) + socket.inet_aton(address)
        for address in addresses
    ]
    return b"".join([header, question, *records])
