"""The names that extensions know their sandbox by: ``sandbox`` and ``sandbox.localdomain``.

Records are delivered to 127.0.0.1 whatever the names mean; but an extension may listen on them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

NAMES: Final = ("sandbox.localdomain", "sandbox")


def add_sandbox_names(hosts: Path = Path("/etc/hosts")) -> bool:
    """Make the names known on this machine if they are not; False when that cannot be done."""
    try:
        text = hosts.read_text("utf-8", "replace")
    except OSError:
        text = ""
    known = {name for line in text.splitlines() for name in line.partition("#")[0].split()[1:]}
    missing = [name for name in NAMES if name not in known]
    if not missing:
        return True
    line = f"127.0.0.1 {' '.join(missing)}\n"
    try:
        with hosts.open("a") as file:  # a container's is mounted: it cannot be replaced
            file.write(line if text.endswith("\n") or not text else f"\n{line}")
    except OSError as error:
        logger.info("sandbox names not added", extra={"file": str(hosts), "error": error.strerror})
        return False
    return True
