"""The picture module: WebAssembly that turns a JPEG or PNG into a greyscale PNG.

The module (``greyscale.c``) imports nothing, so whatever a picture makes it do, it can reach only
the memory that it is given here, and that is limited.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from wasmtime import Engine, Func, Instance, Memory, Module, Store, Trap

#: A picture may have so many pixels. The header tells, so a larger one costs nothing.
MAX_PIXELS: Final = 25_000_000
#: What the module may use: enough for so many pixels of 16-bit RGB and alpha in a PNG, unless it
#: is interlaced.
MEMORY_BYTES: Final = 512 * 1024 * 1024


class PictureError(ValueError):
    """The picture cannot be converted; the text says why, and repeats nothing of the picture."""


class DecoderStopped(PictureError):
    """The module ended in a trap: a bug of the decoder, which the sandbox held."""


class ModuleMissing(ImportError):
    """There is no picture module. An ImportError, which awslambdaric reports as one line."""


class PictureModule:
    """The compiled module. Thread-safe.

    Compiling takes about 50 ms, and is done once. An instance takes less than 0.1 ms, so each
    picture has its own: a picture that breaks its instance breaks nothing else.
    """

    def __init__(
        self, path: Path, *, max_pixels: int = MAX_PIXELS, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        if not path.is_file():
            raise ModuleMissing(
                f"there is no picture module at {path}; "
                f"build it: make -C {Path(__file__).parent} OUT={path}"
            )
        self._engine = Engine()
        self._module = Module.from_file(self._engine, str(path))
        self._max_pixels = max_pixels
        self._memory_bytes = memory_bytes

    def greyscale(self, picture: bytes) -> bytes:
        """Return the greyscale PNG of a JPEG or PNG; alpha is kept."""
        with contextlib.closing(Store(self._engine)) as store:
            store.set_limits(memory_size=self._memory_bytes)
            try:
                return self._convert(_Call(store, Instance(store, self._module, [])), picture)
            except Trap as trap:
                code = trap.trap_code.name if trap.trap_code is not None else "no code"
                raise DecoderStopped(f"its decoder stopped in a trap ({code})") from trap

    def _convert(self, call: _Call, picture: bytes) -> bytes:
        address = call.number("alloc", len(picture))
        if not address:
            raise PictureError(f"its {len(picture):,} bytes do not fit into memory")
        call.memory.write(call.store, picture, address)

        if not call.number("measure", address, len(picture)):
            raise PictureError(call.error())
        width, height = call.number("width"), call.number("height")
        if width * height > self._max_pixels:
            raise PictureError(
                f"it has {width:,} x {height:,} pixels, more than {self._max_pixels:,}"
            )
        if not call.number("convert", address, len(picture)):
            raise PictureError(call.error())
        start = call.number("result")
        return bytes(call.memory.read(call.store, start, start + call.number("result_length")))


class _Call:
    """An instance of the module, for one picture. One thread."""

    def __init__(self, store: Store, instance: Instance) -> None:
        self.store = store
        self._exports = instance.exports(store)
        memory = self._exports["memory"]
        assert isinstance(memory, Memory)
        self.memory = memory

    def number(self, name: str, *arguments: int) -> int:
        """Call an exported function; addresses and lengths are unsigned."""
        function = self._exports[name]
        assert isinstance(function, Func)
        return int(function(self.store, *arguments)) & 0xFFFF_FFFF

    def error(self) -> str:
        """Return why the last function failed."""
        start = self.number("error")
        text = bytes(self.memory.read(self.store, start, start + 200))
        return text.partition(b"\0")[0].decode("ascii", "replace")
