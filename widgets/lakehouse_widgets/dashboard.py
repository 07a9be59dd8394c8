"""Panels in rows under filters that act on all of them: fixed queries, and typed values from the page."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import ipywidgets
import traitlets

from lakehouse import LakehouseError
from lakehouse_widgets.filters import Filter
from lakehouse_widgets.look import styled
from lakehouse_widgets.pages import MessageInvalid
from lakehouse_widgets.panels import Panel
from lakehouse_widgets.still import still

if TYPE_CHECKING:
    from lakehouse import Lakehouse, Result

_HERE = Path(__file__).parent
_PARAMETER = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|\$(\w+)", re.DOTALL)


class Controls(anywidget.AnyWidget):  # type: ignore[misc]
    """The filters on the page; it sends a filter's name and value."""

    _esm = _HERE / "dashboard.js"
    _css = styled("dashboard.css")
    title = traitlets.Unicode().tag(sync=True)
    filters = traitlets.List().tag(sync=True)
    values = traitlets.Dict().tag(sync=True)
    """What the filters stand at, for the page to show; what a page says here is not read."""
    busy = traitlets.Bool(False).tag(sync=True)
    """Whether panels are being asked anew."""
    message = traitlets.Unicode("").tag(sync=True)


class Dashboard(ipywidgets.VBox):  # type: ignore[misc]
    """Panels in rows under a title and filters.

    The queries are fixed in the kernel; the page sends the name of a filter and a value that the filter checks. So a
    dashboard may be given to viewers who must not run SQL.

    Args:
        lake: where the queries run.
        title: stands at the top; empty: nothing does.
        filters: act on every panel whose query names them.
        rows: the panels, each row from left to right.

    Raises:
        LakehouseError: two panels or filters have one name, or a query names a value that no filter gives.
    """

    def __init__(
        self, lake: Lakehouse, title: str, *, filters: Sequence[Filter] = (), rows: Sequence[Sequence[Panel]] = ()
    ) -> None:
        self._lake = lake
        self._filters = {one.name: one for one in filters}
        self._values = {one.name: one.start() for one in filters}
        self.panels = {panel.name: panel for row in rows for panel in row}
        if len(self.panels) != sum(map(len, rows)) or len(self._filters) != len(filters):
            raise LakehouseError("each panel and each filter of a dashboard has a name of its own")
        for panel in self.panels.values():
            if missing := _named(panel.sql) - self._parameters().keys():
                raise LakehouseError(f"the panel '{panel.name}' names ${min(missing)}, which no filter gives")
            panel._dashboard = self
        self.controls = Controls(title=title, filters=[one.described() for one in filters], values=self._shown_values())
        self.controls.on_msg(self._heard)
        self.rows = [list(row) for row in rows]
        self._asked = self._shown = 0
        self._lock, self._working = threading.Lock(), False
        super().__init__([self.controls, *(self._row(row) for row in rows)])
        self.add_class("lw-board")
        self.refresh(wait=True)

    def __getitem__(self, name: str) -> Panel:
        return self.panels[name]

    @property
    def values(self) -> dict[str, Any]:
        """The value of each filter."""
        return dict(self._values)

    def ask(self, sql: str) -> Result:
        """The answer to a panel's query with the filters as they are."""
        values = self._parameters()
        return self._lake.sql(sql, {name: values[name] for name in _named(sql)} or None)

    def set(self, name: str, value: Any) -> None:
        """Give a filter a value, as the page does: texts, numbers, days as ISO texts.

        Raises:
            MessageInvalid: there is no such filter, or it cannot have this value.
        """
        if not isinstance(name, str) or name not in self._filters:
            raise MessageInvalid("there is no such filter")
        read = self._filters[name].read(value)
        self._values = {**self._values, name: read}
        self.controls.values = self._shown_values()

    def refresh(self, *, wait: bool = False) -> None:
        """Ask every query again; with `wait`, return when all are shown."""
        with self._lock:
            self._asked += 1
            if self._working and not wait:
                return
            self._working = True
        if wait:
            self._work()
        else:
            threading.Thread(target=self._work, name="lakehouse-dashboard", daemon=True).start()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return {**super()._repr_mimebundle_(**kwargs), "text/html": still(self)}

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._shown == self._asked:
                    self._working = self.controls.busy = False
                    return
                asked = self._asked
            self.controls.busy = True
            for panel in self.panels.values():
                if asked == self._asked:
                    panel.refresh(lambda asked=asked: asked != self._asked)
            self._shown = asked

    def _heard(self, _: Any, content: Any, __: Any) -> None:
        try:
            if not isinstance(content, dict) or content.get("kind") != "filter":
                raise MessageInvalid("a dashboard is sent the value of a filter")
            self.set(content.get("name", ""), content.get("value"))
        except MessageInvalid as error:
            self.controls.message = error.message
            self.controls.send({"kind": "values"})  # the page shows again what is in force
            return
        self.controls.message = ""
        self.refresh()

    def _parameters(self) -> dict[str, Any]:
        values = self._values
        return {k: v for name, one in self._filters.items() for k, v in one.parameters(values[name]).items()}

    def _shown_values(self) -> dict[str, Any]:
        return {name: one.shown(self._values[name]) for name, one in self._filters.items()}

    def _row(self, panels: Sequence[Panel]) -> ipywidgets.Widget:
        for panel in panels:
            panel.widget.layout.flex = f"1 1 {panel.basis}px"
            panel.widget.layout.min_width = "0"
        return ipywidgets.HBox([panel.widget for panel in panels], layout={"flex_flow": "row wrap", "grid_gap": "10px"})


def _named(sql: str) -> set[str]:
    """The names behind `$` in a query, but in texts and comments."""
    return {match[1] for match in _PARAMETER.finditer(sql) if match[1]}
