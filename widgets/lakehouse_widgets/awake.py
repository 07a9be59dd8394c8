"""How many grids of a process hold their rows at once."""

from __future__ import annotations

import threading
import weakref
from typing import Protocol

MOST_AWAKE = 32
"""Those used longest ago let go of their rows, and read them again when they are asked."""


class Rests(Protocol):
    """What can let go of its rows."""

    def rest(self) -> None: ...


class Awake:
    """Who holds rows now, whoever was used last at the end; it keeps nobody alive."""

    def __init__(self) -> None:
        self._held: dict[int, weakref.ref[Rests]] = {}
        self._lock = threading.Lock()

    def used(self, one: Rests) -> None:
        """Move to the end; the first ones go to rest when there are too many."""
        with self._lock:
            self._held.pop(id(one), None)
            self._held = {key: held for key, held in self._held.items() if held() is not None}
            self._held[id(one)] = weakref.ref(one)
            first = [self._held.pop(key)() for key in list(self._held)[:-MOST_AWAKE]]
        for old in first:
            if old is not None:
                old.rest()
