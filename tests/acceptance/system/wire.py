"""A wire between a client and this machine itself that can let nothing through, not even refusals.

What the kernel sends into a tun device for :attr:`Wire.far` comes back out of it as if the other
end had sent it to :attr:`Wire.near`. Source and destination are exchanged, and so are those of the
answers. The checksums stay right: they do not depend on that order.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import threading
from typing import Final

_TUNSETIFF: Final = 0x400454CA  # Source: linux/if_tun.h
_IFF_TUN_WITHOUT_HEADER: Final = 0x1001
_IPV4: Final = 4
#: How often it is looked whether the wire is over, milliseconds.
_LOOK_MS: Final = 100
_SOURCE, _DESTINATION, _REST = slice(12, 16), slice(16, 20), slice(20, None)  # of IPv4


class Wire:
    """One network interface of our own. Raises ``OSError`` where none can be made. Thread-safe."""

    #: The ends, in a network that is for measurements. Source: RFC 2544, C.2.2.
    near: Final = "198.18.77.1"
    far: Final = "198.18.77.2"

    def __init__(self) -> None:
        self._device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            wanted = struct.pack("16sH22x", b"wire%d", _IFF_TUN_WITHOUT_HEADER)
            given = fcntl.ioctl(self._device, _TUNSETIFF, wanted)
            name = given[:16].rstrip(b"\0").decode()
            _ip("addr", "add", f"{self.near}/30", "dev", name)
            _ip("link", "set", name, "up")
        except BaseException:
            os.close(self._device)
            raise
        self._is_cut = self._is_over = False
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Let nothing through."""
        self._is_cut = True

    def mend(self) -> None:
        """Let everything through."""
        self._is_cut = False

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._device, select.POLLIN)
        while not self._is_over:
            if not poller.poll(_LOOK_MS):
                continue
            packet = os.read(self._device, 65_536)
            if packet[0] >> 4 == _IPV4 and not self._is_cut:
                swapped = packet[_DESTINATION] + packet[_SOURCE]
                os.write(self._device, packet[: _SOURCE.start] + swapped + packet[_REST])

    def close(self) -> None:
        """Remove the interface."""
        self._is_over = True
        self._thread.join()
        os.close(self._device)


def _ip(*words: str) -> None:
    try:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise OSError(error.stderr) from error
