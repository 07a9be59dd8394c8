"""How a result shows itself: a table of its first rows for any page, and a grid where somebody can use one."""

from __future__ import annotations

import html
import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakehouse.query.result import Result

_NUMERIC = ("INT", "DECIMAL", "DOUBLE", "FLOAT", "HUGEINT", "UINT", "BIGINT", "TINYINT", "SMALLINT", "UBIGINT")
# By name and not by import: the widgets stand above the lake, and a lake works without them.
_WIDGETS = "lakehouse_widgets.showing"


def table(names: Sequence[str], types: Sequence[str], rows: Sequence[tuple[Any, ...]], caption: str) -> str:
    """Rows as an HTML table that needs nothing of its page."""
    head = "".join(
        f'<th style="text-align:{_align(kind)}">{html.escape(name)}<br>'
        f'<small style="font-weight:normal;opacity:.8">{html.escape(kind.lower())}</small></th>'
        for name, kind in zip(names, types, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:{_align(k)}">{_cell(v)}</td>' for v, k in zip(row, types, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<p><small>{html.escape(caption)}</small></p>"
    )


def boxed(box: str, caption: str) -> str:
    """The table that DuckDB draws, with our caption instead of its count, which is that of the page."""
    lines = box.splitlines()
    while lines and not lines[-1].startswith("└"):
        lines.pop()
    if lines and "┴" not in lines[-1] and len(lines) > 1 and lines[-2].startswith("│") and " rows" in lines[-2]:
        lines = [*lines[:-2], lines[-1]]
    return "\n".join([*lines, caption])


def grid(result: Result) -> dict[str, Any]:
    """The result as a widget by MIME type; empty where nobody sits at the page, or no widgets are installed."""
    if not _attended():
        return {}
    try:
        showing = importlib.import_module(_WIDGETS)
    except ImportError:
        return {}
    shown: dict[str, Any] = showing.view(result)
    return shown


def _attended() -> bool:
    """Whether the cell being run was sent by a page that somebody sits at.

    Such a page lets cells ask for input (`allow_stdin` of Jupyter's `execute_request`); what runs notebooks by itself,
    as papermill, nbconvert, nbval and Voila do, does not, and would keep a widget that no kernel stands behind.
    """
    ipython = sys.modules.get("IPython")
    kernel = getattr(ipython.get_ipython(), "kernel", None) if ipython is not None else None
    if kernel is None:
        return False
    request = kernel.get_parent("shell") or {}
    return bool(request.get("content", {}).get("allow_stdin", False))


def _align(kind: str) -> str:
    return "right" if kind.startswith(_NUMERIC) and not kind.endswith("]") and kind != "INTERVAL" else "left"


def _cell(value: Any) -> str:
    if value is None:
        return '<span style="opacity:.45;font-style:italic">NULL</span>'
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.1f}"
    text = str(value)
    return html.escape(text if len(text) <= 200 else text[:199] + "…")
