"""What the kernel killed in the control group of a process, for want of memory.

Source: the Linux kernel's "Control Group v2", Memory; "Memory Resource Controller" for version 1.
"""

from __future__ import annotations

import signal
import threading
from typing import Final

from lambda_protocol.memory_cgroup import MemoryCgroup
from rapid.processes import ExitStatus

#: A process that was killed with this share of the limit in use is taken for out of memory.
NEAR_LIMIT: Final = 0.9
#: The exit code of a shell whose command SIGKILL ended.
_SHELL_KILLED: Final = 128 + signal.SIGKILL


class OomWatch:
    """Tells which dead processes of one control group were out of memory. Thread-safe."""

    def __init__(self, cgroup: MemoryCgroup | None) -> None:
        """Count from now on; without a control group nothing is known."""
        self._cgroup = cgroup
        self._lock = threading.Lock()
        self._seen = (cgroup.oom_kills if cgroup else None) or 0  # guarded by _lock

    @property
    def limit_bytes(self) -> int | None:
        """What the processes may use together, or None."""
        return self._cgroup.limit_bytes if self._cgroup else None

    def is_out_of_memory(self, status: ExitStatus) -> bool:
        """Whether a process that we did not kill ended for want of memory; asked once for each."""
        if status.signal != signal.SIGKILL and status.code != _SHELL_KILLED:
            return False
        with self._lock:
            kills = (self._cgroup.oom_kills if self._cgroup else None) or 0
            if kills > self._seen:
                self._seen += 1
                return True
        # A daemon in user space, which the kernel does not count, or a kernel before 4.13.
        limit = self.limit_bytes
        return limit is not None and status.peak_memory_bytes >= NEAR_LIMIT * limit
