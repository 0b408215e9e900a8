"""How many connections the listeners take, so that descriptors are left for everything else."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from lambda_protocol.reserve import SIZE

logger = logging.getLogger(__name__)

#: Callers' connections, where the limit of open files allows for them.
INVOKE_API_CONNECTIONS: Final = 2048
#: Connections of one environment's runtime and extensions, and for each call at a time.
_RUNTIME_API_CONNECTIONS: Final = 128
_CONNECTIONS_PER_CALL: Final = 4
_FEWEST: Final = 16
#: The reserve's connections and the broker's, records' and subscribers', imports, control groups.
_OTHER: Final = 96 + SIZE
#: Of one environment besides: its listener, pipes, telemetry.
_PER_ENVIRONMENT: Final = 16


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The most connections that each listener takes."""

    invoke_api: int
    runtime_api: int  #: of one environment


def share_descriptors(
    limit: int, *, environments: int, calls_per_environment: int
) -> ConnectionLimits:
    """Return what ``limit`` open files allow for; logs a warning if they are too few.

    Environments get a quarter at most for their connections, callers a quarter at least.
    """
    wanted = _RUNTIME_API_CONNECTIONS + _CONNECTIONS_PER_CALL * calls_per_environment
    runtime_api = min(wanted, max(_FEWEST, limit // 4 // environments))
    left = limit - _OTHER - environments * (_PER_ENVIRONMENT + runtime_api)
    if left < limit // 4:
        logger.warning(
            "the limit of open files is low for the concurrency; raise the hard limit (ulimit -Hn)",
            extra={"limit": limit, "environments": environments},
        )
    invoke_api = max(left, limit // 4, _FEWEST)
    return ConnectionLimits(min(INVOKE_API_CONNECTIONS, invoke_api), runtime_api)
