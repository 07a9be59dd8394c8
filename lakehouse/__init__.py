"""lakehouse: a transactional lake of tables on your own disk, queried with SQL from notebooks.

`lakehouse.open()` gives a `Lakehouse`; everything else hangs off it. Importing does nothing but
define names: heavy libraries load when a lake is opened.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    from lakehouse.catalog.metadata import Snapshot
    from lakehouse.catalog.table import Column, Table
    from lakehouse.client.lake import Client, connect
    from lakehouse.config import Settings
    from lakehouse.ingest.load import Receipt
    from lakehouse.lake import Lakehouse, open, restore
    from lakehouse.magics import load_ipython_extension
    from lakehouse.notebook.suggestions import Completer
    from lakehouse.query.result import Result

__version__ = "0.1.0"

_LAZY = {
    "Client": "lakehouse.client.lake",
    "Column": "lakehouse.catalog.table",
    "Completer": "lakehouse.notebook.suggestions",
    "Lakehouse": "lakehouse.lake",
    "Receipt": "lakehouse.ingest.load",
    "Result": "lakehouse.query.result",
    "Settings": "lakehouse.config",
    "Snapshot": "lakehouse.catalog.metadata",
    "Table": "lakehouse.catalog.table",
    "connect": "lakehouse.client.lake",
    "load_ipython_extension": "lakehouse.magics",
    "open": "lakehouse.lake",
    "restore": "lakehouse.lake",
    "unload_ipython_extension": "lakehouse.magics",
}

__all__ = [
    "Client",
    "Column",
    "Completer",
    "Lakehouse",
    "LakehouseError",
    "Receipt",
    "Result",
    "Settings",
    "Snapshot",
    "Table",
    "__version__",
    "connect",
    "load_ipython_extension",
    "open",
    "restore",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'lakehouse' has no attribute '{name}'")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
