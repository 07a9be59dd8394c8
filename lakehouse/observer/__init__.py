"""What ran, and what came of it: events, kept in a ring in memory and in a journal on the disk (ADR-005)."""

from lakehouse.observer.model import Data, Event, Problem

__all__ = ["Data", "Event", "Problem"]
