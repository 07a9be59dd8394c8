"""Live progress of a run, in a terminal and in a notebook."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from lakehouse.observer.model import Event

_SHOWN = 30  # the newest events that fit a screen
_STYLES = {"done": "green", "skipped": "cyan", "failed": "red", "timeout": "red", "interrupted": "red"}


class Shown:
    """`with Shown(name, count) as progress:` is a callable for `lake.workflows.run(progress=…)`.

    Args:
        name: of the workflow.
        count: its nodes.
        console: where it is shown; None: the terminal, or the notebook's cell.
    """

    def __init__(self, name: str, count: int, console: Console | None = None) -> None:
        self._name, self._count = name, count
        self._events: list[Event] = []
        self._going: dict[str | None, tuple[Event, float]] = {}
        self._counts: Counter[str] = Counter()
        self._started = time.monotonic()
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=4)

    def __enter__(self) -> Shown:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def begun(self, event: Event) -> None:
        """A node runs now, or waits for its next attempt."""
        self._going[event.node] = event, time.monotonic()
        self._live.refresh()

    def __call__(self, event: Event) -> None:
        self._going.pop(event.node, None)
        self._counts[event.status] += 1
        self._events = [*self._events[1 - _SHOWN :], event]
        self._live.refresh()

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False, show_header=False)
        for event in self._events:
            told = f"{event.error.type}: {event.error.message}" if event.error else event.reason or ""
            seconds = "" if event.elapsed is None else f"{event.elapsed:.2f} s"
            status = Text(event.status.replace("_", " "), _STYLES.get(event.status, ""))
            table.add_row(
                Text(event.node or ""), Text(event.mode or ""), status, seconds, Text(told.split("\n")[0][:100])
            )
        for event, since in [*self._going.values()][:_SHOWN]:
            status = Text("waits" if event.reason else "runs", "yellow")
            seconds = f"{time.monotonic() - since:.0f} s"
            attempt = f"attempt {event.attempt}" if event.attempt > 1 else ""
            told = event.reason or attempt
            table.add_row(Text(event.node or ""), Text(event.mode or ""), status, seconds, Text(told[:100]))
        done = sum(self._counts.values())
        if len(self._going) > _SHOWN:
            table.add_row("…", "", Text(f"{len(self._going) - _SHOWN:,} more run", "yellow"))
        counts = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in sorted(self._counts.items()))
        head = f"{self._name}: {done} of {self._count} nodes in {time.monotonic() - self._started:.1f} s"
        return Group(table, Text(f"{head}{f' ({counts})' if counts else ''}", "bold"))
