"""The journal of writes over HTTP: who asked for what, when, and what came of it. Tokens and contents are not in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from lakehouse.errors import JournalError
from lakehouse.journal import Journal
from lakehouse.records import Entry

FILE = Path("server", "writes.jsonl")
"""In the lake folder, where `doctor` looks at every journal and `backup` copies it."""


class Audit:
    """One journal for all servers of a lake.

    Args:
        folder: the lake folder; nothing is written while there is no lake.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._journal = Journal(folder / FILE)

    def note(self, **facts: Any) -> None:
        """Append a write, durably: where it can be written, it stands there before its answer goes out.

        Raises:
            JournalError, DiskFull: it could not be written.
        """
        if self._folder.is_dir():
            try:
                self._journal.path.parent.mkdir(exist_ok=True)
            except OSError as error:
                raise JournalError(f"{self._journal.path.parent} cannot be made: {error.strerror}") from None
            self._journal.append(facts)

    def newest(self, limit: int) -> list[dict[str, Any]]:
        """The last writes, newest first, as far as they can be read."""
        found: list[dict[str, Any]] = []
        for one in self._journal.read():
            if isinstance(one, Entry):
                found.append({"time": one.time, **msgspec.json.decode(one.data)})
                del found[:-limit]
        return found[::-1]
