"""What the executable is made of, as an SPDX document beside it: ``make sbom``."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from devtools.interrupts import exit_with
from devtools.static.__main__ import RESULT, cache_folder

#: Package → its licence, by the name that SPDX has for it.
LICENCES: Final = {
    "musl": "MIT",
    "zlib": "Zlib",
    "openssl": "Apache-2.0",
    "python3.13": "PSF-2.0",
    "python3-pika": "BSD-3-Clause",
    "python3-prometheus-client": "Apache-2.0",
    "python3-decorator": "BSD-2-Clause",
}


def main() -> int:
    """Write the document; return the exit code."""
    sources = cache_folder() / "sources"
    if not RESULT.exists() or not sources.exists():
        print(f"There is no {RESULT.name} yet: make rapid", file=sys.stderr)
        return 1
    file = RESULT.with_name(f"{RESULT.name}.spdx.json")
    file.write_text(json.dumps(document(RESULT, sources), indent=2) + "\n")
    print(f"  {file.name}: {len(LICENCES)} packages")
    return 0


def document(executable: Path, sources: Path) -> dict[str, object]:
    """Return the document about ``executable``, made of what is in the folder ``sources``."""
    digest = hashlib.sha256(executable.read_bytes()).hexdigest()
    told = subprocess.run([executable, "--version"], capture_output=True, text=True, check=True)
    version = told.stdout.split()[1]
    whole = _package(executable.name, version, "Apache-2.0", digest) | {"supplier": "NOASSERTION"}
    parts = []
    for name, licence in LICENCES.items():
        (file,) = (*sources.glob(f"{name}_*.dsc"), *sources.glob(f"{name}_*.deb"))
        version = file.name.split("_")[1].removesuffix(".dsc")
        parts.append(
            _package(name, version, licence, hashlib.sha256(file.read_bytes()).hexdigest())
        )
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": executable.name,
        "documentNamespace": f"urn:sha256:{digest}",
        "creationInfo": {
            "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: make sbom"],
        },
        "packages": [whole, *parts],
        "relationships": [
            _relationship("SPDXRef-DOCUMENT", "DESCRIBES", whole),
            *(_relationship(str(whole["SPDXID"]), "CONTAINS", part) for part in parts),
        ],
    }


def _package(name: str, version: str, licence: str, sha256: str) -> dict[str, object]:
    return {
        "SPDXID": f"SPDXRef-{name}",
        "name": name,
        "versionInfo": version,
        "supplier": "Organization: Debian",
        "downloadLocation": "NOASSERTION",
        "licenseConcluded": licence,
        "licenseDeclared": licence,
        "copyrightText": "NOASSERTION",
        "filesAnalyzed": False,
        "checksums": [{"algorithm": "SHA256", "checksumValue": sha256}],
    }


def _relationship(subject: str, kind: str, package: dict[str, object]) -> dict[str, object]:
    return {
        "spdxElementId": subject,
        "relationshipType": kind,
        "relatedSpdxElement": package["SPDXID"],
    }


if __name__ == "__main__":
    exit_with(main)
