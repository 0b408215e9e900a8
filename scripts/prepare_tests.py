"""Install what the tests need besides Python: a RabbitMQ server and curl."""

from __future__ import annotations

import os
import shutil
import sys

from scripts.apt import AptError, install
from scripts.rabbitmq_node import find_server


def main() -> int:
    """Install what is missing; return 0, or 1 in CI if something still is."""
    missing = [] if find_server() else ["rabbitmq-server"]
    if shutil.which("curl") is None:
        missing.append("curl")
    if not missing:
        print("  Test set-up: nothing to do, RabbitMQ and curl are installed")
        return 0
    try:
        install(missing, "by the tests")
    except AptError as error:
        print(f"  Test set-up: {error}", file=sys.stderr)
        if os.environ.get("CI") == "true":
            return 1
        print("  Test set-up: the tests that need them will be skipped", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
