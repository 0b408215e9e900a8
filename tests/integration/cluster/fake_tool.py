"""Stands for kind, kubectl and docker: writes down how it was called, and answers by rules.

Beside it are ``rules.json``, of which the first that fits answers, and ``calls.jsonl``. A rule has
``match``, a pattern for the command line, and may have ``out``, ``err``, ``rc``, ``sleep``.
"""

from __future__ import annotations

import json
import re
import select
import sys
import time
from pathlib import Path


def main() -> int:
    folder = Path(__file__).resolve().parent
    line = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    has_input = select.select([sys.stdin], [], [], 0)[0]
    calls = folder / "calls.jsonl"
    call = {"line": line, "stdin": sys.stdin.read() if has_input else "", "cwd": str(Path.cwd())}
    with calls.open("a") as file:
        file.write(json.dumps(call) + "\n")
    for rule in json.loads((folder / "rules.json").read_text()):
        if re.search(rule["match"], line):
            time.sleep(rule.get("sleep", 0))
            sys.stdout.write(rule.get("out", ""))
            sys.stderr.write(rule.get("err", ""))
            return int(rule.get("rc", 0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
