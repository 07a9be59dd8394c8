"""A table one can scroll, order, filter and copy, however many rows it has."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from lakehouse import LakehouseError
from lakehouse_widgets.look import styled
from lakehouse_widgets.pages import OPERATORS, PAGE_ROWS, MessageInvalid, Overtaken, Pages, View, number_of, view_of

if TYPE_CHECKING:
    from lakehouse import Result

_HERE = Path(__file__).parent


class Grid(anywidget.AnyWidget):  # type: ignore[misc]
    """The rows of a result, read window by window from the kernel.

    The page sends typed messages only: a number of the question, a first row and a count, and columns, directions,
    operators and values to order and filter by. A new question makes those before it stale: they are not answered.

    Args:
        result: what a query gave.
        height: of the grid in pixels.
    """

    _esm = _HERE / "grid.js"
    _css = styled("grid.css")
    columns = traitlets.List().tag(sync=True)
    operators = traitlets.List(list(OPERATORS)).tag(sync=True)
    snapshot = traitlets.Int().tag(sync=True)
    height = traitlets.Int(420).tag(sync=True)
    version = traitlets.Int(0).tag(sync=True)
    """Goes up when other rows are shown."""

    def __init__(self, result: Result, *, height: int = 420) -> None:
        super().__init__(height=height)
        self._newest: dict[str, tuple[int, Any]] = {}
        self._working = False
        self._lock = threading.Lock()
        self.show(result)
        self.on_msg(self._heard)

    def show(self, result: Result) -> None:
        """Show the rows of another result."""
        self.result = result
        if before := getattr(self, "_pages", None):
            before.stop()
        self._pages = Pages(result)
        self.columns = [{"name": n, "type": t} for n, t in zip(self._pages.names, self._pages.types, strict=True)]
        self.snapshot = result.snapshot
        self.version += 1

    def answer(self, content: Any) -> tuple[dict[str, Any], list[bytes]]:
        """What a message from the page is answered: rows, a file, or what is wrong with it; never an exception."""
        request = content.get("request") if isinstance(content, dict) else None
        try:
            kind = content.get("kind") if isinstance(content, dict) else None
            if kind not in ("rows", "export"):
                raise MessageInvalid("a grid is asked for rows or an export")
            request = number_of(content, "request")
            view = view_of(content, self._pages.names)
            if kind == "export":
                return {"kind": "export", "request": request}, [self._pages.csv(view)]
            first = number_of(content, "first")
            total, rows = self._pages.page(view, first, number_of(content, "count", PAGE_ROWS))
            return {"kind": "rows", "request": request, "first": first, "total": total, "rows": rows}, []
        except LakehouseError as error:
            told = {"message": error.message, "hint": error.hint, "code": error.code}
        except Exception:
            told = {"message": "the rows could not be read", "hint": None, "code": "internal"}
        return {"kind": "error", "request": request if isinstance(request, int) else None, **told}, []

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        shown = super()._repr_mimebundle_(**kwargs)
        if shown is None:
            return None
        # The first rows as a table, for pages without widgets.
        return {**shown[0], "text/html": self.result._repr_html_() or ""}, shown[1]

    def close(self) -> None:
        """Take the grid from the page and let go of its rows."""
        super().close()
        self._pages.stop()

    def _heard(self, _: Any, content: Any, __: Any) -> None:
        # Rows of a large result take seconds to come at first: the kernel goes on meanwhile.
        kind = "export" if isinstance(content, dict) and content.get("kind") == "export" else "rows"
        with self._lock:
            self._newest[kind] = (self.version, content)
            if self._working:
                if kind == "rows" and (view := self._view(content)) is not None:
                    self._pages.wanted(view)
                return
            self._working = True
        threading.Thread(target=self._work, name="lakehouse-grid", daemon=True).start()

    def _view(self, content: Any) -> View | None:
        try:
            return view_of(content, self._pages.names)
        except (MessageInvalid, AttributeError):
            return None  # it will be told when it is answered

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._newest:
                    self._working = False
                    return
                version, content = self._newest.pop(next(iter(self._newest)))
            answer, buffers = self.answer(content)
            if version == self.version and answer.get("code") != Overtaken.code:
                self.send(answer, buffers)
