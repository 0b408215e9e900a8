"""Find every module a program needs, and write them as C: ``freeze.py OUT MAIN ROOT...``.

Run by the interpreter that will load them, as the form of compiled code is its own. ``ROOT``s are
where modules are looked for, the first one's first. Writes ``frozen.c`` and the code into ``OUT``.
"""

from __future__ import annotations

import marshal
import modulefinder
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devtools.static.slim import slim
from devtools.static.slim.trees import PLAIN

#: Looked up by name at run time, where no import shows it.
_ENCODINGS: Final = (
    "ascii", "latin_1", "utf_8",
    "idna",  # every host name that is resolved
    "utf_8_sig", "utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_32_be", "utf_32_le",  # JSON
)  # fmt: skip
#: Imported somewhere, for what rapid never does; what would import it at run time gets ImportError.
_LEFT_OUT: Final = (
    "_pydatetime", "_pydecimal", "_pyio", "_pyrepl",  # there in C
    "bz2", "lzma",  # need libraries that are not here
    "ctypes", "multiprocessing",  # need a dynamic loader, or an interpreter to start
    "importlib.metadata", "importlib.resources", "sysconfig",  # need files
    "asyncio", "gevent", "tornado", "twisted",  # other ways to run pika
    "pika.adapters.gevent_connection", "pika.adapters.tornado_connection",
    "pika.adapters.twisted_connection", "prometheus_client.twisted",
    "doctest", "pdb", "pydoc", "pydoc_data", "test", "unittest",
    "curses", "sqlite3", "tkinter", "xml", "xmlrpc",
)  # fmt: skip
#: The interpreter has these frozen under names of their own.
_INTERPRETERS_OWN: Final = ("importlib._bootstrap", "importlib._bootstrap_external")


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A module to freeze."""

    name: str
    file: Path
    is_package: bool

    def code(self) -> bytes:
        """Return it compiled; a traceback will show the path below its root."""
        shown = self.name.replace(".", "/") + ("/__init__.py" if self.is_package else ".py")
        tree = slim(self.file.read_bytes(), is_package=self.is_package)
        return marshal.dumps(compile(tree, shown, "exec", dont_inherit=True))


def find(main: Path, roots: list[str]) -> Iterator[Module]:
    """Yield ``main`` and all that it, rapid and the interpreter itself may import."""
    finder = modulefinder.ModuleFinder(path=roots, excludes=list(_LEFT_OUT))
    finder.run_script(str(main))
    for name in ("rapid.__main__", *(f"encodings.{encoding}" for encoding in _ENCODINGS)):
        finder.import_hook(name)
    yield Module(name=PLAIN, file=Path(__file__).with_name("plain.py"), is_package=False)
    for name, module in sorted(finder.modules.items()):
        # The types that it is published with do not know these two.
        file: str | None = module.__file__  # type: ignore[attr-defined]
        path: list[str] | None = module.__path__  # type: ignore[attr-defined]
        if file is not None and name not in _INTERPRETERS_OWN:  # the others are in C
            yield Module(name=name, file=Path(file), is_package=path is not None)


def write(modules: list[Module], out: Path) -> None:
    """Write the code, and a table of it: ``frozen_modules``, as ``PyImport_FrozenModules`` is."""
    blobs, table = [], []
    for number, module in enumerate(modules):
        code = module.code()
        blob = out / f"{number}.code"
        blob.write_bytes(code)
        blobs.append(f'".balign 16\\nfrozen_{number}: .incbin \\"{blob}\\"\\n"')
        table.append(
            f'{{"{module.name}", frozen_{number}, {len(code)}, {int(module.is_package)}}},'
        )
    lines = [
        "#include <Python.h>",
        '__asm__(".pushsection .rodata\\n"',
        *blobs,
        '".popsection");',
        *(f"extern const unsigned char frozen_{number}[];" for number in range(len(modules))),
        "const struct _frozen frozen_modules[] = {",
        *table,
        "{NULL, NULL, 0, 0}};",
    ]
    (out / "frozen.c").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write(list(find(Path(sys.argv[2]), sys.argv[3:])), Path(sys.argv[1]))
