"""Notebook widgets for a lake; they use only the public names of `lakehouse`.

`%load_ext lakehouse_widgets` makes `Grid` the display of every result.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakehouse_widgets.grid import Grid
    from lakehouse_widgets.showing import load_ipython_extension, unload_ipython_extension

_LAZY = {
    "Grid": "lakehouse_widgets.grid",
    "load_ipython_extension": "lakehouse_widgets.showing",
    "unload_ipython_extension": "lakehouse_widgets.showing",
}

__all__ = ["Grid", "load_ipython_extension", "unload_ipython_extension"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'lakehouse_widgets' has no attribute '{name}'")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
