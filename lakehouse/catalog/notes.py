"""The notes of commits, kept in the state file when their snapshots expire.

A note says what a commit did: which file was loaded, which query ran. Whether a file was loaded before, and where
a table came from, must be known also when nobody can read the lake as of that commit any more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from lakehouse.catalog.metadata import Metadata, Relation, Snapshot
from lakehouse.catalog.names import literal, shown
from lakehouse.state import State

COMPACT = "compact"
"""The operation of commits that only lay the same rows down in other files."""
EVOLVE = "evolve"
"""The operation of commits that made a table anew with wider types: the same rows, under another id."""
PUBLISH = "publish"
"""The operation of commits that brought what a branch did into the lake."""
ANEW = ("rollback", EVOLVE, PUBLISH)
"""The operations of commits that may make a table anew; but for a publish, as an older snapshot (`version`) has it."""


def keep(state: State, snapshots: Iterable[Snapshot]) -> None:
    """Copy the notes of snapshots that are about to expire."""
    rows = [(s.id, s.time.isoformat(), s.author, s.message, s.note, s.changes) for s in snapshots]
    with state.write() as connection:
        connection.executemany("INSERT OR REPLACE INTO note VALUES (?, ?, ?, ?, ?, ?)", rows)


def expired(state: State, text: str = "", live: Iterable[int] = ()) -> list[Snapshot]:
    """The commits whose snapshots are gone, newest first.

    Args:
        state: the state file.
        text: only those whose changes contain this.
        live: ids of snapshots that are still there: copied, but not expired after all.
    """
    there = set(live)
    rows = state.read(
        "SELECT snapshot, time, author, message, changes, note FROM note WHERE instr(changes, ?) > 0 OR ? = ''"
        " ORDER BY snapshot DESC",
        (text, text),
    )
    return [
        Snapshot(r[0], datetime.fromisoformat(r[1]), r[2], r[3], r[4] or "", r[5]) for r in rows if r[0] not in there
    ]


def marked(metadata: Metadata, state: State, mark: str, after: int = 0) -> Snapshot | None:
    """The commit with this `mark` in its note, also if its snapshot has expired; None when there is none.

    Args:
        metadata: the catalog.
        state: the state file.
        mark: the name, of letters and digits, that somebody gave to what was to be committed.
        after: only commits newer than this snapshot.
    """
    found = metadata.snapshots(f"s.snapshot_id > {after} AND c.commit_extra_info LIKE {literal(f'%{mark}%')}")
    found = [*found, *(s for s in expired(state) if s.id > after and s.note is not None and mark in s.note)]
    return next((s for s in found if _decoded(s).get("mark") == mark), None)  # SQL may have such a text in it as well


def of_table(metadata: Metadata, state: State, relation: Relation, live: list[Snapshot]) -> list[Snapshot]:
    """The commits that changed what is in a table, newest first; see `Catalog.notes`."""
    pattern = re.compile(rf"(?:^|,)[a-z_]+:{relation.id}(?:,|$)")
    ids = {snapshot.id for snapshot in live}
    gone = [s for s in expired(state, f":{relation.id}", ids) if pattern.search(s.changes)]
    newest = metadata.current()
    return [s for s in [*live, *gone] if s.id <= newest and operation(s) != COMPACT]


def before(commits: Iterable[Snapshot], relation: Relation) -> int | None:
    """The id that a table had before a commit made it anew; None when none did."""
    for snapshot in commits:
        if (id := replaced(_decoded(snapshot), relation)) is not None:
            return id
    return None


def replaced(note: dict[str, Any], relation: Relation) -> int | None:
    """The id that a table had before the commit with this note, which is one of the table's, made it anew."""
    made = note.get("anew", {})
    evolved = note.get("operation") == EVOLVE and made  # then it is this one, whatever it was called
    id = next(iter(made.values())) if evolved else made.get(shown(relation.schema, relation.name))
    return id if note.get("operation") in ANEW and isinstance(id, int) and id < relation.id else None


def operation(snapshot: Snapshot) -> str | None:
    """The one word in the note that says what a commit did; None when another program made it."""
    found = _decoded(snapshot).get("operation")
    return found if isinstance(found, str) else None


def _decoded(snapshot: Snapshot) -> dict[str, Any]:
    try:
        note = msgspec.json.decode(snapshot.note or "{}")
    except msgspec.DecodeError:
        return {}
    return note if isinstance(note, dict) else {}
