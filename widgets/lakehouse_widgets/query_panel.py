"""A place to write SQL, run it, stop it, and see what comes: rows, a chart, and what was asked before.

It is the one widget that takes SQL from the page. So it is only for whoever may run code in this kernel anyway, and
is not made where viewers are.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets

from lakehouse import Completer, Lakehouse, LakehouseError, Result
from lakehouse_widgets import editor
from lakehouse_widgets.chart import Chart
from lakehouse_widgets.grid import Grid
from lakehouse_widgets.look import styled
from lakehouse_widgets.pages import MessageInvalid, number_of, text_of
from lakehouse_widgets.worker import Worker

SQL_CHARACTERS = 1_000_000
"""Longer texts from the page are refused."""
HISTORY = 50
SUGGESTIONS = 100
KINDS = ("bar", "line", "area", "point", "hist")
AGGREGATES = ("sum", "mean", "median", "min", "max", "count")

_HERE = Path(__file__).parent
_STEP = 0.2  # seconds between looks at a query under way
_VIEWERS = "LAKEHOUSE_READ_ONLY"  # what `lakehouse dashboards` starts the kernels of viewers with


class PanelRefused(LakehouseError):
    """A panel for SQL was to be made where people are who must not run SQL."""

    code = "panel_refused"


class Editor(anywidget.AnyWidget):  # type: ignore[misc]
    """The text and the buttons on the page."""

    _esm = _HERE / "query_panel.js"
    _css = styled("query_panel.css")
    sql = traitlets.Unicode("").tag(sync=True)
    state = traitlets.Unicode("idle").tag(sync=True)
    """`idle`, `running` or `cancelling`."""
    progress = traitlets.Float(-1.0).tag(sync=True)
    """Percent; below 0: not known."""
    seconds = traitlets.Float(0.0).tag(sync=True)
    note = traitlets.Dict().tag(sync=True)
    """What came of the last query: `kind` (`done` or `error`), `text`, `hint`."""
    columns = traitlets.List().tag(sync=True)
    """Of the rows that can be drawn."""
    view = traitlets.Unicode("rows").tag(sync=True)
    kinds = traitlets.List(list(KINDS)).tag(sync=True)
    aggregates = traitlets.List(list(AGGREGATES)).tag(sync=True)


class QueryPanel(ipywidgets.VBox):  # type: ignore[misc]
    """Write SQL with highlighting and completion, run and cancel it, and look at its rows, as a chart too.

    Queries of a panel run one after the other in a thread of its own, so the kernel goes on, and what one query makes
    for its session (temporary tables, settings) the next one has.

    Args:
        lake: where the SQL runs.
        sql: what stands in the editor at first.
        height: of the rows in pixels.

    Raises:
        PanelRefused: the kernel is one of a dashboard, whose viewers must not run SQL.
        LakehouseError: it is not an open lake.
    """

    def __init__(self, lake: Lakehouse, sql: str = "", *, height: int = 420) -> None:
        _refuse_viewers(os.environ)
        if not isinstance(lake, Lakehouse):
            raise LakehouseError(
                f"a panel takes an open lake, not {type(lake).__name__}", hint="lakehouse.open() gives one"
            )
        self.result: Result | None = None
        """What the last query gave that has rows."""
        self.grid: Grid | None = None
        self.chart: Chart | None = None
        self._lake, self._height = lake, height
        self._completer = Completer(lake)
        self._queries, self._errands = Worker("lakehouse-panel"), Worker("lakehouse-panel-errands")
        self._lock = threading.Lock()
        self._running = self._cancelled = False
        self._ended = threading.Event()
        self.editor = Editor(sql=sql)
        self.editor.on_msg(self._heard)
        super().__init__([self.editor])

    def run(self, sql: str) -> None:
        """Run SQL as the page does; `editor.note` and `result` have what comes of it.

        Raises:
            MessageInvalid: a query is running.
        """
        with self._lock:
            if self._running:
                raise MessageInvalid("a query is running", hint="cancel it first")
            self._running, self._cancelled, self._ended = True, False, threading.Event()
        with self.editor.hold_sync():
            self.editor.state, self.editor.progress, self.editor.seconds, self.editor.note = "running", -1.0, 0.0, {}
        self._queries.do(lambda: self._run(sql))

    def cancel(self) -> None:
        """Stop the query under way, if there is one."""
        with self._lock:
            if not self._running:
                return
            self._cancelled = True
            self.editor.state = "cancelling"
            self._stop()  # under the lock: the next query is none of those meant

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until no query is under way; whether that is so after so many seconds (None: for as long as it takes)."""
        return not self._running or self._ended.wait(seconds)

    def close(self) -> None:
        """Stop what runs, and take the panel from the page."""
        if "_lock" not in self.__dict__:
            return  # it was refused, and is let go of
        self.cancel()
        self._queries.close()
        self._errands.close()
        for child in self.children:
            child.close()
        super().close()

    def _heard(self, _: Any, content: Any, __: Any) -> None:
        try:
            kind = content.get("kind") if isinstance(content, dict) else None
            if not isinstance(kind, str) or kind not in _MESSAGES:
                raise MessageInvalid("a panel is sent SQL to run or to complete, and what to show")
            _MESSAGES[kind](self, content)
        except LakehouseError as error:
            self._say(error)

    def _asked_to_run(self, content: Mapping[str, Any]) -> None:
        sql = _text(content, "sql")
        self.editor.sql = sql
        self.run(sql)

    def _asked_to_complete(self, content: Mapping[str, Any]) -> None:
        request, sql = number_of(content, "request"), _text(content, "sql")
        cursor = number_of(content, "cursor", len(sql))

        def work() -> None:
            try:
                found = self._completer.complete(sql, cursor)
                items = [{"text": one.text, "kind": one.kind} for one in found.items[:SUGGESTIONS]]
                start = found.start
            except Exception:  # of any kind: who types must never be stopped by a suggestion
                items, start = [], cursor
            self.editor.send({"kind": "complete", "request": request, "start": start, "items": items})

        self._errands.do(work)

    def _asked_for_history(self, content: Mapping[str, Any]) -> None:
        text = _text(content, "text") or None

        def work() -> None:
            found = [
                {
                    "sql": one.sql,
                    "status": one.status,
                    "when": one.started.isoformat(timespec="seconds"),
                    "seconds": one.elapsed,
                    "rows": one.rows,
                }
                for one in self._lake.queries(HISTORY, text=text)
            ]
            self.editor.send({"kind": "history", "queries": found})

        self._errands.do(lambda: self._told(work))

    def _asked_for_chart(self, content: Mapping[str, Any]) -> None:
        result = self.result
        if result is None:
            raise MessageInvalid("there are no rows to draw", hint="run a query first")
        spec: dict[str, Any] = {"kind": _word(content, "chart", KINDS)}
        for key in ("x", "y", "color"):
            if content.get(key) is not None:
                spec[key] = _word(content, key, result.columns)
        if content.get("aggregate") is not None:
            spec["aggregate"] = _word(content, "aggregate", AGGREGATES)

        def work() -> None:
            if self.chart is None:
                self.chart = Chart(result, spec)
            else:
                self.chart.show(result, spec)
            self.editor.note = {}
            self._show("chart")

        self._errands.do(lambda: self._told(work))

    def _asked_for_rows(self, _: Mapping[str, Any]) -> None:
        self._show("rows")

    def _asked_to_cancel(self, _: Mapping[str, Any]) -> None:
        self.cancel()

    def _asked_for_code(self, _: Mapping[str, Any]) -> None:
        self.editor.send({"kind": "code"}, editor.scripts())

    def _run(self, sql: str) -> None:
        ended = self._ended
        threading.Thread(target=self._follow, args=(ended,), name="lakehouse-panel-progress", daemon=True).start()
        self._told(lambda: self._ask(sql))
        with self._lock, self.editor.hold_sync():
            self.editor.state, self.editor.progress = "idle", -1.0
            self._running = False
            ended.set()

    def _ask(self, sql: str) -> None:
        started = time.monotonic()
        result = self._lake.sql(sql)
        said = f"{time.monotonic() - started:.2f} s, snapshot {result.snapshot}"
        if result.is_receipt or not result.columns:
            self.editor.note = {"kind": "done", "text": f"{result!r} in {time.monotonic() - started:.2f} s"}
            return
        self.result = result
        if self.grid is None:
            self.grid = Grid(result, height=self._height)
        else:
            self.grid.show(result)
        with self.editor.hold_sync():
            self.editor.columns = [{"name": n, "type": t} for n, t in zip(result.columns, result.types, strict=True)]
            self.editor.note = {"kind": "done", "text": said}
        self._show("rows")

    def _show(self, view: str) -> None:
        below = self.chart if view == "chart" else self.grid
        self.children = [self.editor] if below is None else [self.editor, below]
        self.editor.view = view

    def _follow(self, ended: threading.Event) -> None:
        """Tell how far the query is, and stop it when that was asked for before it had begun."""
        started = time.monotonic()
        while not ended.wait(_STEP):
            with self._lock:
                if ended.is_set():
                    return
                if self._cancelled:
                    self._stop()
            mine = [one for one in self._lake.running() if one.thread == self._queries.ident]
            with self.editor.hold_sync():
                self.editor.seconds = round(time.monotonic() - started, 1)
                self.editor.progress = (mine[-1].progress or -1.0) if mine else -1.0

    def _stop(self) -> None:
        for one in self._lake.running():
            if one.thread == self._queries.ident:
                self._lake.cancel(one.query_id)

    def _told(self, work: Callable[[], None]) -> None:
        """Do something in a thread, and show what is wrong with it."""
        try:
            work()
        except LakehouseError as error:
            self._say(error)
        except Exception as error:
            self._say(LakehouseError(f"{type(error).__name__}: {error}"))

    def _say(self, error: LakehouseError) -> None:
        self.editor.note = {"kind": "error", "text": error.message, "hint": error.hint, "code": error.code}


_MESSAGES: dict[str, Callable[[QueryPanel, Mapping[str, Any]], None]] = {
    "run": QueryPanel._asked_to_run,
    "cancel": QueryPanel._asked_to_cancel,
    "complete": QueryPanel._asked_to_complete,
    "history": QueryPanel._asked_for_history,
    "chart": QueryPanel._asked_for_chart,
    "rows": QueryPanel._asked_for_rows,
    "code": QueryPanel._asked_for_code,
}


def _refuse_viewers(environ: Mapping[str, str]) -> None:
    voila = any(name.startswith("VOILA_") for name in environ) or environ.get("SERVER_SOFTWARE", "").startswith("voila")
    if environ.get(_VIEWERS) or voila:
        raise PanelRefused(
            "a query panel runs whatever SQL the page sends, and viewers of a dashboard must not run SQL",
            hint="show fixed queries with filters: Dashboard(lake, title, rows=…)",
        )


def _text(content: Mapping[str, Any], key: str) -> str:
    return text_of(content, key, SQL_CHARACTERS)


def _word(content: Mapping[str, Any], key: str, known: Any) -> str:
    value = content.get(key)
    if not isinstance(value, str) or value not in known:
        raise MessageInvalid(f"'{key}' is one of {', '.join(known)}"[:500])
    return value
