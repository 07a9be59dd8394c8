"""What a load says of itself: the receipt, and the note that every commit keeps, from which it is known again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from lakehouse.catalog.catalog import Catalog
from lakehouse.catalog.metadata import Relation, Snapshot
from lakehouse.catalog.names import quote, shown
from lakehouse.catalog.notes import ANEW, replaced
from lakehouse.errors import TableNotFound
from lakehouse.ingest import rejected
from lakehouse.ingest.rejected import REJECTS

Mode = Literal["append", "replace", "upsert"]
Contract = Literal["evolve", "freeze", "quarantine"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a load wrote."""

    table: str
    """`schema.table`, or the bare name in the schema `main`."""
    rows: int
    """Rows that were written (by the first load, when this is a duplicate)."""
    snapshot: int
    """The snapshot that holds them."""
    sha256: str
    """Hash of the source's content; empty for a retry, which has no source."""
    duplicate: bool
    """True: the same content was there already and nothing was written."""
    source: str = ""
    mode: str = "append"
    elapsed: float = 0.0
    """Seconds."""
    inserted: int = 0
    """Rows that are new in the table."""
    updated: int = 0
    """Rows that took the place of one with the same key."""
    deduplicated: int = 0
    """Rows of the source that were left out because a later one has the same key."""
    rejected: int = 0
    """Rows that did not fit and stand in `<table>__rejects` instead."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows went where."""

    inserted: int = 0
    updated: int = 0
    deduplicated: int = 0
    rejected: int = 0

    @property
    def rows(self) -> int:
        """Rows that were written to the table."""
        return self.inserted + self.updated


@dataclass(frozen=True, slots=True)
class Target:
    """Where a load goes, and how."""

    schema: str
    name: str
    mode: str
    key: tuple[str, ...] = ()
    contract: str | None = None
    options: str = ""
    """Fingerprint of format, reader options and key: other options may mean other rows."""

    @property
    def full_name(self) -> str:
        """The table's name as people write it."""
        return shown(self.schema, self.name)

    @property
    def rejects(self) -> str:
        """The name of the table of its rejected rows, in the same schema."""
        return self.name + REJECTS


def fingerprint(format: str, options: Mapping[str, Any], key: tuple[str, ...]) -> str:
    """A short hash of all that decides which rows a content becomes."""
    parts = [format, options, *([[name.lower() for name in key]] if key else [])]
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def loads(catalog: Catalog, target: Target) -> Iterator[tuple[int, dict[str, Any]]]:
    """Snapshot and note of the loads that made what is in the table now, newest first.

    A table is known by its id: it keeps its loads when it is renamed, and one of the same name that was
    dropped and made again has none.
    """
    if relation := _find(catalog, target.schema, target.name):
        yield from _loads(catalog, relation, target)
    if rejects := rejected.of(catalog, target.schema, target.name):
        for snapshot in catalog.notes(rejects):
            note = _decoded(snapshot.note)
            if _deleted(snapshot, rejects.id) and note.get("operation") != "retry":
                return
            # A load of which every row was rejected has left the table itself alone.
            if note.get("operation") == "ingest" and note.get("rows") == 0:
                yield snapshot.id, note


def earlier(catalog: Catalog, target: Target, digest: str) -> Receipt | None:
    """The receipt of an earlier load of the same content into the same table in the same way."""
    for snapshot, note in loads(catalog, target):
        same = (note.get("sha256"), note.get("options"), note.get("mode"))
        if same == (digest, target.options, target.mode):
            return _receipt(target, snapshot, note)
    return None


def named(catalog: Catalog, target: Target, name: str) -> Receipt | None:
    """The receipt of the load that was given this name, whatever became of its rows."""
    relations = [_find(catalog, target.schema, target.name), rejected.of(catalog, target.schema, target.name)]
    while relations:
        if (relation := relations.pop()) is None:
            continue
        for snapshot in catalog.notes(relation):
            note = _decoded(snapshot.note)
            if note.get("once") == name:
                return _receipt(target, snapshot.id, note)
            if (before := replaced(note, relation)) is not None:
                relations.append(replace(relation, id=before))
    return None


def _receipt(target: Target, snapshot: int, note: Mapping[str, Any]) -> Receipt:
    """What the note of an earlier load tells."""
    counts = {name: int(note.get(name, 0)) for name in Counts.__slots__}
    counts["inserted"] = int(note.get("inserted", note["rows"]))  # older notes have the sum only
    return Receipt(
        target.full_name,
        int(note["rows"]),
        snapshot,
        str(note["sha256"]),
        True,
        str(note["source"]),
        target.mode,
        **counts,
    )


def _loads(
    catalog: Catalog, relation: Relation, target: Target, until: int | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    for snapshot in catalog.notes(relation):
        note = _decoded(snapshot.note)
        gone = until is not None and snapshot.id > until  # a rollback took it away
        if note.get("operation") in ANEW and "version" in note:
            until = until if gone else int(note["version"])
            if (before := replaced(note, relation)) is not None:
                yield from _loads(catalog, replace(relation, id=before), target, until)
                return
            continue
        if gone:
            continue
        if _deleted(snapshot, relation.id):
            return
        done = reversed(note.get("parts", [])) if note.get("operation") == "publish" else [note]
        for one in done:
            # The commit itself is about this table, whatever it was called then; its parts may be about others.
            here = one is note or one.get("table") == target.full_name
            loaded = here and one.get("operation") == "ingest"
            if loaded:
                yield snapshot.id, one
            if target.mode != "append" or (loaded and one.get("mode") == "replace"):
                return  # what came before is gone; and a table that was changed since is not what was loaded
        if (before := replaced(note, relation)) is not None:  # a branch made it anew
            yield from _loads(catalog, replace(relation, id=before), target, until)
            return


def _find(catalog: Catalog, schema: str, name: str) -> Relation | None:
    try:
        return catalog.find(quote(schema, name))
    except TableNotFound:
        return None


def _deleted(snapshot: Snapshot, table: int) -> bool:
    """Whether a commit took rows out of a table; an update, which puts as many in, does not."""
    changes = set(snapshot.changes.split(","))
    if f"inline_flush:{table}" in changes:
        return False  # rows that moved from the catalog into a file
    if not changes & {f"deleted_from_table:{table}", f"inlined_delete:{table}"}:
        return False
    return not changes & {f"inserted_into_table:{table}", f"inlined_insert:{table}"}


def _decoded(note: str | None) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(note or "{}")
    except msgspec.DecodeError:
        return {}
    return value if isinstance(value, dict) else {}
