"""Charts as SVG that stands in the page: its text has the page's colour, light or dark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lakehouse import LakehouseError

if TYPE_CHECKING:
    from lakehouse import Result

MOST = 5_000
"""Rows that are drawn as they are."""
PALETTE = ["#4c8bbf", "#dd8a2e", "#4f9d69", "#d65f5f", "#9a72c4", "#b8992a", "#3fa3b0", "#8b929a"]
"""Colours that can be told from white and from black, three to one."""
_LAID, _DRAWN = 14, 12
"""Letters in pixels: laid out larger than they are drawn, for the viewer's font may be wider than the server's."""
_TEXT = {"labelColor": "currentColor", "titleColor": "currentColor", "titleFontWeight": "normal"}
_SIZES = {"labelFontSize": _LAID, "titleFontSize": _LAID}
LOOK: dict[str, Any] = {
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {**_TEXT, **_SIZES, "labelLimit": 200, "gridColor": "#8884", "domainColor": "#8888", "tickColor": "#8888"},
    "legend": {**_TEXT, **_SIZES, "orient": "top"},
    "title": {"color": "currentColor", "anchor": "start"},
    "range": {"category": PALETTE},
    "mark": {"color": PALETTE[0]},
    "text": {"color": "currentColor"},
}


def drawn(result: Result, spec: Mapping[str, Any], size: Mapping[str, Any]) -> tuple[str, int]:
    """The rows of a result drawn as a Vega-Lite spec says, and how many there are.

    Raises:
        LakehouseError: there are too many.
    """
    rows = result.records(MOST + 1)
    if len(rows) > MOST:
        raise LakehouseError(
            f"there are more than {MOST:,} rows to draw", hint="group them in the query, or leave out the spec"
        )
    values = [{name: _plain(value) for name, value in row.items()} for row in rows]
    return _svg({**size, **spec, "data": {"values": values}}), len(values)


def plotted(plot: Any, size: Mapping[str, Any]) -> tuple[str, int]:
    """What `Result.plot` gave, and how many marks it has."""
    return _svg({**plot.spec, **size}), len(plot.values)


def _svg(spec: dict[str, Any]) -> str:
    import vl_convert

    look = {"config": LOOK, "background": "transparent"}
    fit = {"autosize": {"type": "fit", "contains": "padding"}}
    svg = str(vl_convert.vegalite_to_svg(json.dumps({**fit, **spec, **look})))
    return svg.replace(f'font-size="{_LAID}px"', f'font-size="{_DRAWN}px"')


def _plain(value: Any) -> Any:
    from decimal import Decimal

    if isinstance(value, Decimal):
        return float(value)
    return value if value is None or isinstance(value, int | float | str) else str(value)
