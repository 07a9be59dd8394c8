"""How a result becomes a grid in a notebook, with its HTML beside for where no widget lives.

Results ask for `view` themselves where somebody sits at the page; `%load_ext lakehouse_widgets` makes every result a
grid, however few rows it has and whoever runs the cell.
"""

from __future__ import annotations

from typing import Any

from lakehouse_widgets.grid import Grid

_WIDGET = "application/vnd.jupyter.widget-view+json"
_HEIGHT, _FEW = 420, 12  # pixels; fewer rows than this need less
_PLACE = ("lakehouse.query.result", "Result")


def load_ipython_extension(ipython: Any) -> None:
    """Make a grid the display of results in an IPython session."""
    ipython.display_formatter.mimebundle_formatter.for_type_by_name(*_PLACE, _shown)


def unload_ipython_extension(ipython: Any) -> None:
    """Results show their HTML again."""
    formatter = ipython.display_formatter.mimebundle_formatter
    for kind in [kind for kind, shown in formatter.type_printers.items() if shown is _shown]:
        formatter.pop(kind)
    formatter.deferred_printers.pop(_PLACE, None)


def view(result: Any) -> dict[str, Any]:
    """A grid of the result, by MIME type."""
    rows = result.page(_FEW + 1)
    height = _HEIGHT if len(rows) > _FEW else 92 + 24 * len(rows)
    return {_WIDGET: Grid(result, height=height)._repr_mimebundle_()[0][_WIDGET]}


def _shown(result: Any) -> dict[str, Any] | None:
    if result.is_receipt or not result.columns:
        return None
    # IPython asks the other formatters for what is missing: text and HTML stand beside the widget.
    return view(result)
