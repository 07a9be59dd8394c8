"""`lake.observer`: what ran, in a ring in memory and in a journal that all processes share (ADR-005)."""

from __future__ import annotations

from pathlib import Path

from lakehouse.observer.model import Event, Receipt


class Observer:
    """Takes events; see `record`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def record(self, event: Event) -> Receipt:
        """Take an event."""
        raise NotImplementedError
