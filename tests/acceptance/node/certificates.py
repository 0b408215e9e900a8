"""One authority and its certificates, in PEM files; they live as long as the control plane."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate and its key, in PEM."""

    certificate: Path
    key: Path


class Authority:
    """Signs what the programs of Kubernetes show each other, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._authority = trustme.CA()
        self.ca = folder / "ca.crt"
        self._authority.cert_pem.write_to_path(str(self.ca))

    def sign(self, name: str, *hosts: str) -> Certificate:
        """Return a certificate for ``name``; ``hosts`` are what it answers to besides."""
        signed = self._authority.issue_cert("127.0.0.1", "localhost", *hosts, common_name=name)
        files = Certificate(
            certificate=self._folder / f"{name}.crt", key=self._folder / f"{name}.key"
        )
        signed.cert_chain_pems[0].write_to_path(str(files.certificate))
        signed.private_key_pem.write_to_path(str(files.key))
        return files
