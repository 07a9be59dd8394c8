"""Names given to snapshots, and tags on tables: small facts beside the catalog, in the lake's state file.

They are no part of any snapshot: a tag that is set today is there however old a snapshot is read. Tables are
known by their id in the catalog, so a tag stays with its table when that is renamed.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lakehouse.catalog.attach import Database
from lakehouse.catalog.metadata import Metadata, Version
from lakehouse.catalog.names import nearest
from lakehouse.catalog.writer import Writer
from lakehouse.errors import AlreadyExists, LakehouseError, LakeReadOnly, QueryError, SnapshotNotFound
from lakehouse.state import State

if TYPE_CHECKING:
    from collections.abc import Iterable

_LENGTH = 200  # characters of a name


class Tags:
    """The tags of one lake.

    Args:
        state: the state file, where they are kept.
        metadata: the catalog, which knows the snapshots.
        writer: whose lock keeps a snapshot from expiring while it is given a name.
        database: the opened lake, which may be read-only.
    """

    def __init__(self, state: State, metadata: Metadata, writer: Writer, database: Database) -> None:
        self._state = state
        self._metadata = metadata
        self._writer = writer
        self._database = database

    def snapshots(self) -> dict[str, int]:
        """Snapshot ids by name, sorted by name."""
        return {
            str(name): int(id) for name, id in self._state.read("SELECT name, snapshot FROM snapshot_tag ORDER BY 1")
        }

    def resolve(self, version: Version) -> int:
        """The snapshot id that an id, a name or a time means, tried in this order; no name looks like the others.

        Raises:
            SnapshotNotFound: it means none, or the snapshot that has the name is gone.
        """
        if not isinstance(version, str) or _is_number_or_time(version):
            return self._metadata.resolve(version)
        known = self.snapshots()
        name = version.strip()
        if name in known:
            return self._metadata.resolve(known[name])
        raise SnapshotNotFound(
            f"'{version}' is neither a snapshot id nor a time nor the name of a snapshot",
            hint=nearest(name, known) or "write 12, the name of a tagged snapshot, or 2026-01-31T18:00",
        )

    def tag_snapshot(self, name: str, version: Version | None, *, replace: bool) -> int:
        """Give a snapshot a name and return its id."""
        checked = _checked_snapshot_name(name)
        self._check("a snapshot is tagged")
        with self._writer.plain():
            snapshot = self._metadata.current() if version is None else self.resolve(version)
            with self._state.write() as state:
                found = state.execute("SELECT snapshot FROM snapshot_tag WHERE name = ?", (checked,)).fetchone()
                if found is not None and int(found[0]) != snapshot and not replace:
                    raise AlreadyExists(
                        f"the tag '{checked}' stands at snapshot {found[0]} already",
                        hint="give another name, or move it with replace=True",
                    )
                state.execute(
                    "INSERT OR REPLACE INTO snapshot_tag VALUES (?, ?, ?)",
                    (checked, snapshot, datetime.now(UTC).isoformat()),
                )
        return snapshot

    def untag_snapshot(self, name: str) -> int:
        """Take a name away from the snapshot that has it, and return that snapshot's id."""
        self._check("a tag is removed")
        with self._state.write() as state:
            found = state.execute("SELECT snapshot FROM snapshot_tag WHERE name = ?", (name,)).fetchone()
            if found is not None:
                state.execute("DELETE FROM snapshot_tag WHERE name = ?", (name,))
                return int(found[0])
        raise SnapshotNotFound(f"there is no tag '{name}'", hint=nearest(str(name), self.snapshots()))

    def of_table(self, table: int) -> dict[str, str]:
        """The tags of a table by key, sorted."""
        rows = self._state.read("SELECT key, value FROM table_tag WHERE table_id = ? ORDER BY key", (table,))
        return {str(key): str(value) for key, value in rows}

    def set_of_table(self, table: int, key: str, value: str | None) -> None:
        """Set a tag of a table; None removes it."""
        checked = _checked(key, "the key of a tag")
        if not isinstance(value, str | None):
            raise LakehouseError(f"a tag's value is text, not a {type(value).__name__}")
        self._check("a table is tagged")
        with self._state.write() as state:
            if value is None:
                state.execute("DELETE FROM table_tag WHERE table_id = ? AND key = ?", (table, checked))
            else:
                state.execute("INSERT OR REPLACE INTO table_tag VALUES (?, ?, ?)", (table, checked, value))

    def carry(self, tables: Iterable[tuple[int, int]]) -> None:
        """Give tables that were made anew (old id, new id) the tags that they had."""
        pairs = list(tables)
        if pairs and self._state.path.exists():
            with self._state.write() as state:
                for old, new in pairs:
                    state.execute(
                        "INSERT OR REPLACE INTO table_tag SELECT ?, key, value FROM table_tag WHERE table_id = ?",
                        (new, old),
                    )

    def _check(self, what: str) -> None:
        if self._database.read_only:
            raise LakeReadOnly(f"the lake {self._database.folder} is open for reading only")
        if self._writer.active is not None:
            raise QueryError(
                f"{what} at once, and would stay when the transaction is undone",
                hint="do it before or after lake.transaction()",
            )


def _checked(name: str, what: str) -> str:
    if not isinstance(name, str):
        raise LakehouseError(f"{what} is text, not a {type(name).__name__}")
    if not name or name != name.strip() or len(name) > _LENGTH or not name.isprintable():
        raise LakehouseError(
            f"{name[:40]!r} cannot be {what}",
            hint=f"1 to {_LENGTH} printable characters, no blanks around them",
        )
    return name


def _checked_snapshot_name(name: str) -> str:
    checked = _checked(name, "the name of a snapshot")
    if _is_number_or_time(checked):
        raise LakehouseError(
            f"'{checked}' cannot be the name of a snapshot: it reads as a number or a time",
            hint="a name such as 2026-q3 or before-migration",
        )
    return checked


def _is_number_or_time(text: str) -> bool:
    """Whether a version written as text means a snapshot id or a time, and so no name."""
    text = text.strip()
    try:
        return math.isfinite(float(text))
    except ValueError:
        pass
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
