"""Posts records of asynchronous invocations to destinations by HTTP.

Imported only when there is such a destination: the client brings TLS, a tenth of the start time.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import queue
import ssl
import threading
import urllib.parse
from typing import Final

from lambda_protocol.address import Address
from lambda_protocol.http_client import BoundedConnection
from rapid.invocations.destinations import HttpDestination, OnDelivered

logger = logging.getLogger(__name__)

#: For a delivery from connecting to the end of its answer, seconds.
HTTP_TIMEOUT_S: Final = 5.0
#: Before each further try of a delivery, seconds.
HTTP_RETRY_DELAYS_S: Final = (0.5, 2.0)
#: Records that wait, and their bytes; beyond either a delivery has failed.
MAX_WAITING: Final = 1_000
MAX_WAITING_BYTES: Final = 64 * 1_048_576


class HttpSender:
    """Posts records, one after the other, from a thread of its own. Thread-safe."""

    def __init__(self) -> None:
        """Nothing runs before :meth:`start`."""
        self._records: queue.Queue[tuple[str, bytes, OnDelivered] | None]
        self._records = queue.Queue(MAX_WAITING)
        self._lock = threading.Lock()
        self._bytes = 0  # guarded by _lock: of records that wait, or are on their way
        self._thread = threading.Thread(target=self._run, name="http-destination", daemon=True)
        self._stopping = threading.Event()
        self._is_end_queued = False  # the stopping thread's

    def start(self) -> None:
        """Post from now on."""
        self._thread.start()

    def send(self, destination: HttpDestination, record: bytes, on_delivered: OnDelivered) -> None:
        """Post ``record`` soon; ``on_delivered`` hears what came of it."""
        try:
            self._put(destination.url, record, on_delivered)
        except queue.Full:
            logger.error("destination is too slow: record not delivered")
            on_delivered(False)

    def stop(self, limit_s: float) -> bool:
        """Try each that waits once; True if that is done within ``limit_s``. May be repeated."""
        self._stopping.set()
        if not self._is_end_queued:
            with contextlib.suppress(queue.Full):  # next time
                self._records.put_nowait(None)
                self._is_end_queued = True
        self._thread.join(limit_s)
        return not self._thread.is_alive()

    def _put(self, url: str, record: bytes, on_delivered: OnDelivered) -> None:
        with self._lock:
            if self._bytes + len(record) > MAX_WAITING_BYTES:
                raise queue.Full
            self._records.put_nowait((url, record, on_delivered))
            self._bytes += len(record)

    def _run(self) -> None:
        while (item := self._records.get()) is not None:
            url, record, on_delivered = item
            try:
                on_delivered(self._deliver(url, record))
            except Exception:
                logger.exception("destination failed")
            with self._lock:
                self._bytes -= len(record)
            del item, record, on_delivered  # the next one may be long in coming

    def _deliver(self, url: str, record: bytes) -> bool:
        for delay_s in (0.0, *HTTP_RETRY_DELAYS_S):
            if delay_s and self._stopping.wait(delay_s):
                return False
            try:
                status = _post(url, record)
            except (OSError, ValueError, http.client.HTTPException) as error:  # a bad host
                logger.warning("destination not reached", extra={"error": repr(error)})
                continue
            if status < 300:
                return True
            logger.warning("destination refuses the record", extra={"status": status})
        return False


def _post(url: str, record: bytes) -> int:
    """Post ``record`` and return the status; raises ``OSError`` or ``HTTPException``."""
    parts = urllib.parse.urlsplit(url)
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    connection = BoundedConnection(Address.of_url(url), tls=tls)
    connection.begin(HTTP_TIMEOUT_S)
    try:
        path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        connection.request("POST", path, record, {"Content-Type": "application/json"})
        return connection.read_status()
    finally:
        connection.close()
