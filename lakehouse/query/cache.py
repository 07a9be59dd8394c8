"""Results that can be given again: the same query, parameters and snapshot give the same rows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from lakehouse.query.result import Rows

_PLAIN = (bool, int, float, str, bytes, Decimal, date, datetime, time, timedelta, UUID, type(None))


class ResultCache:
    """The newest results by key, least recently used out first.

    Args:
        capacity: bytes to keep at most; 0 keeps nothing.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, Rows] = OrderedDict()

    def get(self, key: Hashable) -> Rows | None:
        """The rows kept under a key, or None."""
        with self._lock:
            rows = self._entries.get(key)
            if rows is not None:
                self._entries.move_to_end(key)
            return rows

    def put(self, key: Hashable, rows: Rows) -> None:
        """Keep rows under a key if they fit."""
        if rows.table.nbytes > self._capacity:
            return
        with self._lock:
            if old := self._entries.pop(key, None):
                self._held -= old.table.nbytes
            self._entries[key] = rows
            self._held += rows.table.nbytes
            while self._held > self._capacity:
                self._held -= self._entries.popitem(last=False)[1].table.nbytes


def key_of(text: str, parameters: Any, snapshot: int, limit: int | None) -> Hashable | None:
    """The cache key of a query, or None when a parameter is not a plain value."""
    items = parameters.items() if isinstance(parameters, Mapping) else enumerate(parameters or ())
    pairs = [(str(name), type(value), value) for name, value in items]
    if not all(kind in _PLAIN for _, kind, _ in pairs):
        return None
    # By their repr: 0.0 equals -0.0 and Decimal("1.0") equals Decimal("1.00"), but they give different rows.
    return (text, tuple(sorted((name, kind.__name__, repr(value)) for name, kind, value in pairs)), snapshot, limit)
