"""rapid whose poller may not wait: ``strict_rapid.py COMMAND...``.

What would block raises in the thread ``http``, and says so on standard error.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from rapid.__main__ import main

#: What the tests look for.
COMPLAINT = "the poller would wait"


def _is_poller() -> bool:
    return threading.current_thread().name == "http"


def _complain() -> None:
    sys.stderr.write(f"{COMPLAINT}\n{''.join(traceback.format_stack(limit=12))}\n")
    raise AssertionError(COMPLAINT)


def _strict(owner: Any, name: str, may: Callable[..., bool]) -> None:
    """Let ``owner.name`` complain in the poller's thread unless ``may`` says it does not wait."""
    whole = getattr(owner, name)

    def guarded(*args: Any, **kwargs: Any) -> Any:
        if _is_poller() and not may(*args, **kwargs):
            _complain()
        return whole(*args, **kwargs)

    setattr(owner, name, guarded)


def _is_nonblocking(sock: socket.socket, *args: Any, **_: Any) -> bool:
    flags = args[-1] if args and isinstance(args[-1], int) else 0
    return bool(flags & socket.MSG_DONTWAIT) or sock.gettimeout() == 0.0


def _never(*_: Any, **__: Any) -> bool:
    return False


def _starts_a_thread(*_: Any, **__: Any) -> bool:
    return sys._getframe(2).f_code is threading.Thread.start.__code__


def forbid_waits() -> None:
    """Let what waits complain in the poller's thread, in this process from now on."""
    for method in ("accept", "connect", "recv", "recv_into", "send", "sendall", "sendmsg"):
        _strict(socket.socket, method, _is_nonblocking)
    _strict(select, "select", lambda *args: len(args) == 4 and args[3] == 0)
    _strict(time, "sleep", _never)
    _strict(os, "fork", _never)
    _strict(os, "waitpid", lambda _pid, options: bool(options & os.WNOHANG))
    _strict(threading.Event, "wait", _starts_a_thread)
    _strict(threading.Condition, "wait", lambda *_: sys._getframe(2).f_code.co_name == "wait")
    _strict(threading.Thread, "join", _never)


if __name__ == "__main__":
    forbid_waits()
    sys.exit(main(sys.argv[1:], os.environ))
