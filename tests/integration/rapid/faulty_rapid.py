"""rapid with a fault: ``faulty_rapid.py MODULE:NAME CALLS COMMAND...``.

The first CALLS calls of the function or method raise; it does its work afterwards.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import operator
import os
import sys
from typing import Any

from rapid.__main__ import main


def break_down(where: str, calls: int) -> None:
    """Let the first calls of ``where`` fail."""
    module, _, path = where.partition(":")
    owner_path, _, name = path.rpartition(".")
    owner: Any = importlib.import_module(module)
    if owner_path:
        owner = operator.attrgetter(owner_path)(owner)
    whole = getattr(owner, name)
    number = itertools.count(1)

    @functools.wraps(whole)
    def broken(*args: Any, **kwargs: Any) -> Any:
        if next(number) <= calls:
            raise ZeroDivisionError("on purpose")
        return whole(*args, **kwargs)

    setattr(owner, name, broken)


if __name__ == "__main__":
    break_down(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:], os.environ))
