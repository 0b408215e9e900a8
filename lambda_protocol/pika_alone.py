"""Imports pika without its adapters: they are a quarter of it, one needs asyncio, none is used."""

from __future__ import annotations

import importlib
import sys
import types
from typing import Final

_ADAPTERS: Final = "pika.adapters"
_WORKFLOW: Final = f"{_ADAPTERS}.utils.connection_workflow"
#: What pika's own module imports of them, and from where.
_NAMES: Final = {
    "BaseConnection": _ADAPTERS,
    "BlockingConnection": _ADAPTERS,
    "SelectConnection": _ADAPTERS,
    "AMQPConnectionWorkflow": _WORKFLOW,
}


def import_pika_alone() -> None:
    """Import pika, which is not imported yet; an adapter loads when something else uses it."""
    stubs = {name: types.ModuleType(name) for name in (_ADAPTERS, f"{_ADAPTERS}.utils", _WORKFLOW)}
    for name, owner in _NAMES.items():
        setattr(stubs[owner], name, None)
    sys.modules |= stubs
    try:
        pika = importlib.import_module("pika")
    finally:
        for name in stubs:
            del sys.modules[name]
    for name in ("adapters", *_NAMES):
        delattr(pika, name)
    pika.__getattr__ = _load  # type: ignore[method-assign]


def _load(name: str) -> object:
    """Return an adapter, as pika's own module would have it."""
    if name == "adapters":
        return importlib.import_module(_ADAPTERS)
    if name not in _NAMES:
        raise AttributeError(f"module 'pika' has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name]), name)
