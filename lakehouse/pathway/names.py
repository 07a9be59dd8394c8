"""Which of many uids are taken, told without bringing the index up to date for each five thousand of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from lakehouse.journal import Journal
from lakehouse.records import Fault, Position

if TYPE_CHECKING:
    from lakehouse.pathway.index import Index


class Names:
    """The uids of a memory: those in the index, and those that the journal has told of since.

    Args:
        journal: the truth.
        index: of it; brought up to date once, when this is made.
    """

    def __init__(self, journal: Journal, index: Index) -> None:
        self._journal = journal
        self._index = index
        self._since = self._read = Position()
        self._later: set[str] = set()
        self._begin()

    def taken(self, uids: Sequence[str], end: Position) -> str | None:
        """One of some uids that is taken, for who holds the journal.

        Args:
            uids: any.
            end: of the journal.
        """
        known, found = self._index.named(uids)
        # The index was deleted, and is being made again; or the journal was compacted and is to be read anew.
        if known.generation != end.generation or known.seq < self._since.seq or self._read.generation != end.generation:
            self._begin()
            known, found = self._index.named(uids)
        if self._read.offset != end.offset:
            self._tell(end)
        return found or next((uid for uid in uids if uid in self._later), None)

    def added(self, uids: Sequence[str], end: Position) -> None:
        """These were written, up to the end of the journal."""
        self._later.update(uids)
        self._read = end

    def _begin(self) -> None:
        self._index.catch_up()
        self._since = self._read = self._index.end
        self._later.clear()

    def _tell(self, end: Position) -> None:
        """What others have written meanwhile."""
        for found in self._journal.read(self._read):
            if isinstance(found, Fault):
                continue
            with suppress(ValueError, AttributeError, TypeError):  # what is no event the index cannot apply either
                record = msgspec.json.decode(found.data)
                events = record.get("batch", [record])
                added = (event for event in events if isinstance(event, dict) and event.get("op") == "add")
                self._later.update(str(event.get("uid")) for event in added)
        self._read = end
