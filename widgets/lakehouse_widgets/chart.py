"""A chart of a result, reduced by DuckDB in the kernel and drawn as SVG: nothing is loaded to show it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from lakehouse_widgets.look import styled

if TYPE_CHECKING:
    from lakehouse import Result

_HERE = Path(__file__).parent


class Chart(anywidget.AnyWidget):  # type: ignore[misc]
    """What `Result.plot` draws, with the value of each mark under the pointer.

    Args:
        result: what a query gave; of any size.
        spec: what `Result.plot` takes: kind, x, y, color, aggregate, title. None: bars of the first column.

    Raises:
        LakehouseError: the result cannot be drawn so.
    """

    _esm = _HERE / "card.js"
    _css = styled("card.css")
    kind = traitlets.Unicode("figure").tag(sync=True)
    state = traitlets.Unicode("ready").tag(sync=True)
    title = traitlets.Unicode("").tag(sync=True)
    text = traitlets.Unicode("").tag(sync=True)
    svg = traitlets.Unicode("").tag(sync=True)

    def __init__(self, result: Result, spec: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.show(result, spec)

    def show(self, result: Result, spec: Mapping[str, Any] | None = None) -> None:
        """Draw another result."""
        self.plot = result.plot(**(spec or {}))
        self.svg, self.state = self.plot.svg(), "ready" if self.plot.values else "empty"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle, metadata = super()._repr_mimebundle_(**kwargs)
        return {**bundle, "image/svg+xml": self.svg}, metadata
