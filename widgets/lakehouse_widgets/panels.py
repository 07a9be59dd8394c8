"""The panels of a dashboard: a number, a figure, the rows themselves; each is one query, fixed in the kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import ipywidgets
import traitlets

from lakehouse import LakehouseError
from lakehouse_widgets.drawing import drawn, plotted
from lakehouse_widgets.grid import Grid
from lakehouse_widgets.look import styled

if TYPE_CHECKING:
    from lakehouse import Result
    from lakehouse_widgets.dashboard import Dashboard

Finding = Callable[[list[dict[str, Any]]], str]
"""What rows say, in one sentence: given the first thousand of them as dictionaries, and there is at least one."""

_HERE = Path(__file__).parent
_READ = 1_000


class Card(anywidget.AnyWidget):  # type: ignore[misc]
    """The frame of a panel on the page; it sends nothing."""

    _esm = _HERE / "card.js"
    _css = styled("card.css")
    kind = traitlets.Unicode().tag(sync=True)
    state = traitlets.Unicode("loading").tag(sync=True)
    """`loading`, `ready`, `empty` or `error`."""
    name = traitlets.Unicode("").tag(sync=True)
    """Of the panel; stands above a title that is not it."""
    title = traitlets.Unicode().tag(sync=True)
    text = traitlets.Unicode("").tag(sync=True)
    svg = traitlets.Unicode("").tag(sync=True)


class Panel:
    """One part of a dashboard.

    Args:
        name: what it is called, and its title.
        sql: its query; `$name` stands for a filter's value.
        finding: gives a better title: what the rows say.
    """

    kind = "head"
    basis = 320
    """The width in pixels under which the next panel goes below."""
    below = 0
    """The height in pixels of what stands under the card."""

    def __init__(self, name: str, sql: str, *, finding: Finding | None = None) -> None:
        self.name = name
        self.sql = sql
        self.finding = finding
        self.card = Card(kind=self.kind, name=name, title=name)
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

    def refresh(self, stale: Callable[[], bool]) -> None:
        """Ask and show, unless `stale()` says that the filters have changed meanwhile."""
        self.card.state = "loading"
        title = self.name
        try:
            result = self.data()
            state = self.card.state if stale() else self.show(result)
            if self.finding is not None and state == "ready":
                rows = result.records(_READ)
                title = self.finding(rows) if rows else title
        except LakehouseError as error:
            self.card.text, state = str(error), "error"
        except Exception:
            self.card.text, state = "This could not be shown.", "error"
        if not stale():
            self.card.title, self.card.state = title, state


class Number(Panel):
    """A tile with the one value of a query.

    Args:
        name: its title.
        sql: gives one row; its first column is the value.
        unit: stands behind the value.
        digits: behind the decimal point; None: none for whole numbers, one for others.
        finding: gives a better title: what the row says.
    """

    kind = "number"
    basis = 150

    def __init__(
        self, name: str, sql: str, *, unit: str = "", digits: int | None = None, finding: Finding | None = None
    ) -> None:
        super().__init__(name, sql, finding=finding)
        self.unit = unit
        self.digits = digits

    def show(self, result: Result) -> str:
        row = result.fetchone()
        if row is None or row[0] is None or (isinstance(row[0], float) and not math.isfinite(row[0])):
            return "empty"
        self.card.text = f"{self._text(row[0])} {self.unit}".strip()
        return "ready"

    def _text(self, value: Any) -> str:
        from decimal import Decimal

        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            return str(value)
        digits = self.digits if self.digits is not None else 0 if isinstance(value, int) else 1
        return f"{value:,.{digits}f}"


class Figure(Panel):
    """A chart: what `Result.plot` makes of the rows, or a drawing of them that is described in Vega-Lite.

    Args:
        name: its title.
        sql: gives what is drawn.
        spec: in Vega-Lite, without its data: mark, encoding and so on (of an Altair chart: `chart.to_dict()`). The
            rows are drawn as they are, five thousand of them at most. None: `Result.plot` reduces and draws them.
        width: of the drawing in pixels; it is scaled to the room there is.
        height: of the drawing in pixels.
        finding: gives a better title: what the rows say.
        **options: what `Result.plot` takes, without a spec.
    """

    kind = "figure"

    def __init__(
        self,
        name: str,
        sql: str,
        spec: Mapping[str, Any] | None = None,
        *,
        width: int = 440,
        height: int = 220,
        finding: Finding | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name, sql, finding=finding)
        if spec is not None and options:
            raise LakehouseError(f"the figure '{name}' has a spec and options", hint="the options are for Result.plot")
        self.spec = spec
        self.options = options
        self._size = {"width": width, "height": height}

    def show(self, result: Result) -> str:
        if self.spec is None:
            self.card.svg, marks = plotted(result.plot(**self.options), self._size)
        else:
            self.card.svg, marks = drawn(result, self.spec, self._size)
        return "ready" if marks else "empty"


class Rows(Panel):
    """A grid.

    Args:
        name: its title.
        sql: gives its rows.
        height: in pixels.
        finding: gives a better title: what the first rows say.
    """

    def __init__(self, name: str, sql: str, *, height: int = 320, finding: Finding | None = None) -> None:
        super().__init__(name, sql, finding=finding)
        self.widget = ipywidgets.VBox([self.card])
        self.grid: Grid | None = None
        self.below = height

    def show(self, result: Result) -> str:
        if self.grid is None:
            self.grid = Grid(result, height=self.below)
            self.widget.children = [self.card, self.grid]
        else:
            self.grid.show(result)
        self.card.text = ""
        return "ready"
