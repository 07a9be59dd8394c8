"""A thread of a widget's own: what it is given is done there one after the other, and the kernel goes on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

Work = Callable[[], None]


class Worker:
    """A thread that begins with its first work and ends with `close`.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._works: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def ident(self) -> int | None:
        """Of the thread; None before it began."""
        return None if self._thread is None else self._thread.ident

    def do(self, work: Work) -> None:
        """Have something done after everything that was given before; it must not raise."""
        if self._thread is None:
            self._thread = threading.Thread(target=_run, args=(self._works,), name=self._name, daemon=True)
            self._thread.start()
        self._works.put(work)

    def close(self) -> None:
        """End after what was given."""
        self._works.put(None)


def _run(works: queue.SimpleQueue[Work | None]) -> None:
    while (work := works.get()) is not None:
        work()
