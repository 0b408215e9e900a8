"""One authority and its certificates, by openssl; they live as long as the lab."""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_DAYS = "2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate and its key, in PEM."""

    certificate: Path
    key: Path


class Authority:
    """Signs what the lab's programs show each other, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ca = folder / "ca.crt"
        self._openssl(
            *("req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-days", _DAYS, "-subj", "/CN=lab", "-keyout", "ca.key", "-out", "ca.crt"),
        )

    def sign(self, name: str, *, hosts: Sequence[str] = ()) -> Certificate:
        """Return a certificate for ``name``; ``hosts`` are what it answers to besides."""
        names = ",".join(_subject_name(host) for host in ("127.0.0.1", "localhost", *hosts))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(
            f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n"
            "keyUsage=digitalSignature\nbasicConstraints=CA:FALSE\n"
        )
        self.key(name)
        self._openssl(
            *("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr")
        )
        self._openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", _DAYS, "-extfile", extensions.name),
            *("-out", f"{name}.crt"),
        )
        return Certificate(certificate=self.folder / f"{name}.crt", key=self.folder / f"{name}.key")

    def key(self, name: str) -> Path:
        """Return a fresh private key."""
        self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
        return self.folder / f"{name}.key"

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=20
        )


def _subject_name(host: str) -> str:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return f"DNS:{host}"
    return f"IP:{host}"
