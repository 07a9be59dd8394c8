"""Notebook widgets for a lake; they use only the public names of `lakehouse`.

A result of more rows than a page shows itself as a `Grid`; `%load_ext lakehouse_widgets` makes it so for every result.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakehouse_widgets.catalog import CatalogBrowser
    from lakehouse_widgets.chart import Chart
    from lakehouse_widgets.dashboard import Dashboard
    from lakehouse_widgets.filters import DateRange, MultiSelect, Range, Select
    from lakehouse_widgets.grid import Grid
    from lakehouse_widgets.panels import Figure, Number, Rows
    from lakehouse_widgets.pathways import PathwayExplorer
    from lakehouse_widgets.query_panel import QueryPanel
    from lakehouse_widgets.runs import RunMonitor
    from lakehouse_widgets.showing import load_ipython_extension, unload_ipython_extension

_LAZY = {
    "CatalogBrowser": "lakehouse_widgets.catalog",
    "Chart": "lakehouse_widgets.chart",
    "Dashboard": "lakehouse_widgets.dashboard",
    "DateRange": "lakehouse_widgets.filters",
    "Figure": "lakehouse_widgets.panels",
    "Grid": "lakehouse_widgets.grid",
    "MultiSelect": "lakehouse_widgets.filters",
    "Number": "lakehouse_widgets.panels",
    "PathwayExplorer": "lakehouse_widgets.pathways",
    "QueryPanel": "lakehouse_widgets.query_panel",
    "Range": "lakehouse_widgets.filters",
    "Rows": "lakehouse_widgets.panels",
    "RunMonitor": "lakehouse_widgets.runs",
    "Select": "lakehouse_widgets.filters",
    "load_ipython_extension": "lakehouse_widgets.showing",
    "unload_ipython_extension": "lakehouse_widgets.showing",
}

__all__ = [
    "CatalogBrowser",
    "Chart",
    "Dashboard",
    "DateRange",
    "Figure",
    "Grid",
    "MultiSelect",
    "Number",
    "PathwayExplorer",
    "QueryPanel",
    "Range",
    "Rows",
    "RunMonitor",
    "Select",
    "load_ipython_extension",
    "unload_ipython_extension",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'lakehouse_widgets' has no attribute '{name}'")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
