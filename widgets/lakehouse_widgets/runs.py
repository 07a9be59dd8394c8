"""What ran in a lake: runs of workflows, failures first, and events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from lakehouse_widgets.explorer import (
    Check,
    Explorer,
    Item,
    Listed,
    Opened,
    Words,
    buttons,
    counted,
    cut,
    facts,
    link,
    place_of,
    sliced,
    status,
    table,
    text,
)
from lakehouse_widgets.filters import Filter
from lakehouse_widgets.pages import MessageInvalid

if TYPE_CHECKING:
    from lakehouse import Lakehouse

RUNS = 200
"""So many of the newest runs are looked at."""
_WORKFLOW, _FAILURES = "Workflow", "Failures only"
_LIVE, _QUIET = 1.5, 10.0  # seconds between two looks while something runs, and while nothing does
_EVENTS = 5_000
_ROWS = 500
_ORDER = {"failed": 0, "timeout": 0, "interrupted": 0, "cancelled": 1, "running": 2, "started": 2}


class RunMonitor(Explorer):
    """Runs of workflows, those that failed first, each with its nodes and their errors; and the events of the lake.

    It looks again by itself, more often while something runs. It reads only; parameters and what nodes printed are shown as they are.

    Args:
        lake: the lake, or one behind a server (`lakehouse.connect`).
        height: of list and details in pixels.
    """

    filters: ClassVar[Sequence[Filter]] = (Words(_WORKFLOW, "any"), Check(_FAILURES))
    fallback: ClassVar[Sequence[str]] = ("Workflow", "Status", "Started", "Took", "What failed")

    def __init__(self, lake: Lakehouse, *, height: int = 440) -> None:
        super().__init__(height=height)
        self._lake = lake
        self.label, self.hint = "Runs of the lake", "Choose a run or an event."

    def entries(self, under: str | None, after: str | None, count: int, values: Mapping[str, Any]) -> Listed:
        if under == "events":
            return self._events(after, count, values)
        if under is not None:
            raise MessageInvalid("entries stand under 'events'")
        workflow = values[_WORKFLOW] or None
        runs = self._lake.workflows.runs(workflow, limit=RUNS)
        running = sum(run.status == "running" for run in runs)
        failed = sum(_rank(run.status) == 0 for run in runs)
        shown = [run for run in _ordered(runs) if not values[_FAILURES] or _rank(run.status) == 0]
        items = [Item("events", "Events", "of all that ran", group=True), *map(_item, shown)]
        newest = f"the newest {RUNS} runs" if len(runs) == RUNS else counted(len(runs), "run")
        return sliced(
            items,
            after,
            count,
            said=f"{newest}: {failed:,} failed, {running:,} running",
            again=_LIVE if running else _QUIET,
            suggested={_WORKFLOW: sorted({*self._lake.workflows.names(), *(run.workflow for run in runs)})},
        )

    def opened(self, key: str, values: Mapping[str, Any]) -> Opened:
        kind, _, rest = key.partition(":")
        if kind == "run" and rest:
            return _run(self._lake.workflows.get(rest))
        first, _, second = rest.partition(":")
        if kind == "node" and second:
            return self._node(first, second)
        if kind == "event" and second:
            return self._event(first, second)
        if key == "events":
            said = "One event per thing that ran, the newest first, of all processes."
            return Opened("Events", [text("", said), *self._counts(values)])
        raise MessageInvalid("there are runs, nodes of runs, and events")

    def overview(self) -> tuple[str, list[Sequence[Any]]]:
        runs = _ordered(self._lake.workflows.runs(limit=RUNS))
        rows = [
            (run.workflow, run.status, run.started, _took(run), ", ".join(str(one.node) for one in run.failed))
            for run in runs
        ]
        return counted(len(runs), "run"), list(rows)

    def _events(self, after: str | None, count: int, values: Mapping[str, Any]) -> Listed:
        first = place_of(after)
        if first > _EVENTS:
            raise MessageInvalid(f"a page shows the newest {_EVENTS:,} events")
        found = self._lake.observer.events(
            workflow=values[_WORKFLOW] or None,
            success=False if values[_FAILURES] else None,
            limit=first + max(1, count) + 1,
        )[first:]
        following = str(first + count) if len(found) > count and first + count <= _EVENTS else None
        return Listed([_event_item(one) for one in found[:count]], following)

    def _counts(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        found = self._lake.observer.stats(workflow=values[_WORKFLOW] or None)
        found = sorted(found, key=lambda one: (-one.failures, -one.last_seen.timestamp()))
        heads = ("Workflow", "Node", "Mode", "Runs", "Failed", "Median s", "Last", "Last error")
        rows = [
            (one.workflow, one.node, one.mode, one.runs, one.failures, one.p50, status(one.last_status), _said(one.last_error))
            for one in found[:_ROWS]
        ]  # fmt: skip
        return [table("By node", heads, rows)] if rows else []

    def _node(self, run: str, node: str) -> Opened:
        found = self._lake.workflows.get(run)
        if node not in found.nodes:
            raise MessageInvalid("the run has no such node")
        event = found.events.get(node)
        parts = [
            facts(("Run", found.id), ("Workflow", found.workflow), ("Mode", found.nodes[node])),
            buttons({"label": "The whole run", "open": f"run:{run}"}),
        ]
        if event is not None:
            parts += _told(event)
        earlier = [one for one in found.attempts if one.node == node]
        if earlier:
            rows = [(str(one.attempt), status(one.status), one.elapsed, _said(one.error)) for one in earlier]
            parts.append(table("Earlier attempts", ("Attempt", "Status", "Seconds", "Error"), rows))
        printed = getattr(self._lake.workflows, "printed", None)  # a server does not tell it
        if printed is not None and (lines := printed(run, node)):
            parts.append(text("Printed", lines, code=True, end=True))
        return Opened(node, parts, again=_LIVE if found.status == "running" else None)

    def _event(self, place: str, id: str) -> Opened:
        if place == "memory":
            found = [one for one in self._lake.observer.ring() if one.id == id]
        else:
            found = self._lake.observer.events(since=place_of(place) - 1, oldest=True, limit=1)
        for event in found:
            if event.id == id:
                run = buttons({"label": "The whole run", "open": f"run:{event.run}"})
                owned = any(one.id == event.run for one in self._lake.workflows.runs(event.workflow, limit=RUNS))
                parts = [facts(("Workflow", event.workflow), ("Run", event.run), ("Mode", event.mode))]
                return Opened(_event_name(event), [*parts, *_told(event), *([run] if owned else [])])
        raise MessageInvalid("the event is not there any more")


def _run(run: Any) -> Opened:
    """A run with its nodes, those that failed first."""
    parts = [
        facts(
            ("Status", run.status),
            ("Started", run.started),
            ("Ended", run.ended),
            ("Took", _took(run)),
            ("Run", run.id),
            ("By", run.principal),
            ("Snapshot", str(run.snapshot)),
            ("Resumed", run.resumed or None),
        )
    ]
    if run.status in ("failed", "interrupted", "cancelled"):
        parts.append(text("", f"lake.workflows.resume('{run.id}') goes on from there."))
    rows = sorted(run.rows(), key=lambda row: _rank(row["status"]))
    cells = [
        (
            link(row["node"], f"node:{run.id}:{row['node']}"),
            status(row["status"]),
            row["error"],
            row["seconds"],
            row["mode"],
            row["outputs"],
        )
        for row in rows[:_ROWS]
    ]
    note = f"the first {_ROWS} of {len(rows):,}" if len(rows) > _ROWS else ""
    heads = ("Node", "Status", "Error or reason", "Seconds", "Mode", "Made")
    parts.append(table(counted(len(rows), "node"), heads, cells, note))
    if run.params:
        parts.append(text("Parameters", _json(dict(run.params)), code=True))
    return Opened(f"{run.workflow}, {run.status}", parts, again=_LIVE if run.status == "running" else None)


def _told(event: Any) -> list[dict[str, Any]]:
    """What an event says."""
    parts = [
        facts(
            ("Status", event.status),
            ("Reason", event.reason),
            ("Error", _said(event.error)),
            ("Where", event.error.where if event.error else None),
            ("Attempt", str(event.attempt)),
            ("Started", event.started),
            ("Seconds", event.elapsed),
            ("Recorded", event.recorded),
            ("By", event.principal),
        )
    ]
    if event.error and len(event.error.message) > 200:
        parts.append(text("The whole error", event.error.message, code=True))
    for title, data in (("Read", event.inputs), ("Made", event.outputs)):
        if data:
            rows = [(one.name, one.kind, one.snapshot and str(one.snapshot), one.rows) for one in data[:_ROWS]]
            parts.append(table(title, ("Name", "Kind", "Snapshot", "Rows"), rows))
    if event.fields:
        parts.append(text("More", _json(event.fields), code=True))
    return parts


def _item(run: Any) -> Item:
    ended = f"{len(run.events)} of {counted(len(run.nodes), 'node')}" if run.status == "running" else _took(run)
    failed = ", ".join(str(one.node) for one in run.failed[:3])
    return Item(f"run:{run.id}", run.workflow, " · ".join(filter(None, (failed, cut(run.started), ended))), run.status)


def _event_item(event: Any) -> Item:
    place = "memory" if event.seq is None else event.seq
    return Item(f"event:{place}:{event.id}", _event_name(event), cut(event.recorded), event.status)


def _event_name(event: Any) -> str:
    named = [name for name in (event.workflow, event.node) if name]
    return " / ".join(named) or cut(event.run)


def _ordered(runs: Sequence[Any]) -> list[Any]:
    """Failures, then what was cancelled, what runs, and the rest; of each the newest first, as they come."""
    return sorted(runs, key=lambda run: _rank(run.status))


def _rank(word: str) -> int:
    return _ORDER.get(word, 3)


def _took(run: Any) -> str:
    end = run.ended or (datetime.now(UTC) if run.status == "running" else None)
    return "" if end is None else f"{(end - run.started).total_seconds():,.1f} s"


def _said(error: Any) -> str:
    return f"{error.type}: {error.message}" if error else ""


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
