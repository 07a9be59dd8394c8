"""Which uids are taken, told without bringing the index up to date for each write that names one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from lakehouse.journal import Journal
from lakehouse.records import Fault, Position

if TYPE_CHECKING:
    from lakehouse.pathway.index import Index

MOST = 200_000
"""Names that are kept in memory between two writes; when there are more, the index is brought up to date instead."""


class Names:
    """The uids of a memory: those in the index, and those that the journal has told of since.

    Args:
        journal: the truth.
        index: of it; brought up to date when this is first asked, and when it has fallen far behind.
    """

    def __init__(self, journal: Journal, index: Index) -> None:
        self._journal = journal
        self._index = index
        self._since = self._read = Position()
        self._later: set[str] = set()
        self._begun = False

    def taken(self, uids: Sequence[str], end: Position) -> str | None:
        """One of some uids that is taken, for who holds the journal.

        Args:
            uids: any.
            end: of the journal.
        """
        if not self._begun:
            self._begin()
        known, found = self._index.named(uids)
        if known.generation == self._read.generation and known.seq >= self._read.seq:
            self._since = self._read = known  # somebody who reads has brought the index up to date
            self._later.clear()
        # The index was deleted, and is being made again; or the journal was compacted, or is another, and is to be
        # read anew.
        if (
            known.generation != end.generation
            or known.seq < self._since.seq
            or self._read.generation != end.generation
            or self._read.seq > end.seq
            or (self._read != end and not self._tell(end))
        ):
            self._begin()
            known, found = self._index.named(uids)
            self._tell(end)
        return found or next((uid for uid in uids if uid in self._later), None)

    def added(self, uids: Sequence[str], end: Position) -> None:
        """These were written, up to the end of the journal."""
        self._later.update(uids)
        self._read = end

    def rest(self) -> None:
        """Let go of many names: the index tells them when the next one is asked for."""
        if len(self._later) > MOST:
            self._begun = False
            self._later.clear()

    def _begin(self) -> None:
        self._index.catch_up()
        self._since = self._read = self._index.end
        self._later.clear()
        self._begun = True

    def _tell(self, end: Position) -> bool:
        """What others have written meanwhile; False: it does not follow what was read before."""
        first = True
        for found in self._journal.read(self._read):
            if isinstance(found, Fault):
                continue
            if first and not found.chained:
                return False
            first = False
            with suppress(ValueError, AttributeError, TypeError):  # what is no event the index cannot apply either
                record = msgspec.json.decode(found.data)
                events = record.get("batch", [record])
                added = (event for event in events if isinstance(event, dict) and event.get("op") == "add")
                self._later.update(str(event.get("uid")) for event in added)
        self._read = end
        return True
