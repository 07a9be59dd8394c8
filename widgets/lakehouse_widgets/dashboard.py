"""Numbers, figures and grids of fixed queries, and filters that act on all of them."""

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
from lakehouse_widgets.grid import Grid
from lakehouse_widgets.pages import MessageInvalid

if TYPE_CHECKING:
    from lakehouse import Lakehouse, Result

_HERE = Path(__file__).parent
_PARAMETER = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|\$(\w+)", re.DOTALL)


class Card(anywidget.AnyWidget):  # type: ignore[misc]
    """The frame of a panel on the page; it sends nothing."""

    _esm = _HERE / "card.js"
    _css = _HERE / "card.css"
    kind = traitlets.Unicode().tag(sync=True)
    state = traitlets.Unicode("loading").tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)
    text = traitlets.Unicode("").tag(sync=True)
    svg = traitlets.Unicode("").tag(sync=True)


class Panel:
    """One part of a dashboard.

    Args:
        name: what it is called, and its title.
        sql: its query; `$name` stands for a filter's value.
    """

    kind = "head"

    def __init__(self, name: str, sql: str) -> None:
        self.name = name
        self.sql = sql
        self.card = Card(kind=self.kind, title=name)
        self.widget: ipywidgets.Widget = self.card
        self._dashboard: Dashboard | None = None

    def data(self) -> Result:
        """The rows it shows, with the filters as they are."""
        if self._dashboard is None:
            raise LakehouseError(f"the panel '{self.name}' is in no dashboard")
        return self._dashboard.ask(self.sql)

    def show(self, result: Result) -> str:
        """Show a result; the state the panel is in then."""
        raise NotImplementedError

    def refresh(self, stale: Any) -> None:
        """Ask and show, unless `stale()` says that the filters have changed meanwhile."""
        self.card.state = "loading"
        try:
            result = self.data()
            state = self.card.state if stale() else self.show(result)
        except LakehouseError as error:
            self.card.text, state = str(error), "error"
        except Exception:
            self.card.text, state = "this could not be shown", "error"
        if not stale():
            self.card.state = state


class Number(Panel):
    """A tile with the one value of a query.

    Args:
        name: its title.
        sql: gives one row of one column.
        unit: stands behind the value.
    """

    kind = "number"

    def __init__(self, name: str, sql: str, *, unit: str = "") -> None:
        super().__init__(name, sql)
        self.unit = unit

    def show(self, result: Result) -> str:
        row = result.fetchone()
        if row is None or row[0] is None:
            return "empty"
        value = row[0]
        text = f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if isinstance(value, float) else str(value)
        self.card.text = f"{text} {self.unit}".strip()
        return "ready"


class Figure(Panel):
    """A chart.

    Args:
        name: its title.
        sql: gives what is drawn.
        options: what `Result.plot` takes.
    """

    kind = "figure"

    def __init__(self, name: str, sql: str, **options: Any) -> None:
        super().__init__(name, sql)
        self.options = options

    def show(self, result: Result) -> str:
        plot = result.plot(**self.options)
        self.card.svg = plot.svg()
        return "ready" if plot.values else "empty"


class Rows(Panel):
    """A grid.

    Args:
        name: its title.
        sql: gives its rows.
        height: in pixels.
    """

    def __init__(self, name: str, sql: str, *, height: int = 320) -> None:
        super().__init__(name, sql)
        self.widget = ipywidgets.VBox([self.card])
        self.grid: Grid | None = None
        self._height = height

    def show(self, result: Result) -> str:
        if self.grid is None:
            self.grid = Grid(result, height=self._height)
            self.widget.children = [self.card, self.grid]
        else:
            self.grid.show(result)
        self.card.text = ""
        return "ready"


class Controls(anywidget.AnyWidget):  # type: ignore[misc]
    """The filters on the page; it sends a filter's name and value."""

    _esm = _HERE / "dashboard.js"
    _css = _HERE / "dashboard.css"
    title = traitlets.Unicode().tag(sync=True)
    filters = traitlets.List().tag(sync=True)
    message = traitlets.Unicode("").tag(sync=True)


class Dashboard(ipywidgets.VBox):  # type: ignore[misc]
    """Panels in rows under a title and filters.

    The queries are fixed in the kernel; the page sends the name of a filter and a value that the filter checks. So a
    dashboard may be given to viewers who must not run SQL.

    Args:
        lake: where the queries run.
        title: stands at the top.
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
        self.controls = Controls(title=title, filters=[one.described() for one in filters])
        self.controls.on_msg(self._heard)
        self._asked = self._shown = 0
        self._lock, self._working = threading.Lock(), False
        super().__init__([self.controls, *(self._row(row) for row in rows)])
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

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._shown == self._asked:
                    self._working = False
                    return
                asked = self._asked
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
            return
        self.controls.message = ""
        self.refresh()

    def _parameters(self) -> dict[str, Any]:
        values = self._values
        return {k: v for name, one in self._filters.items() for k, v in one.parameters(values[name]).items()}

    def _row(self, panels: Sequence[Panel]) -> ipywidgets.Widget:
        for panel in panels:
            panel.widget.layout.flex = "1 1 280px"
            panel.widget.layout.min_width = "0"
        return ipywidgets.HBox(
            [panel.widget for panel in panels], layout={"flex_flow": "row wrap", "grid_gap": "8px", "margin": "4px 0"}
        )


def _named(sql: str) -> set[str]:
    """The names behind `$` in a query, but in texts and comments."""
    return {match[1] for match in _PARAMETER.finditer(sql) if match[1]}
