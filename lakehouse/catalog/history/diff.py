"""What differs between two snapshots: `lake.diff(a, b)`."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.catalog.attach import Database
from lakehouse.catalog.history.definition import Definition, Definitions, changed_ids, differences
from lakehouse.catalog.history.revert import touched
from lakehouse.catalog.history.rollback import between, count_changes, made_anew
from lakehouse.catalog.metadata import Relation, Snapshot, Version
from lakehouse.catalog.names import shown
from lakehouse.errors import LakehouseError
from lakehouse.wording import counted

if TYPE_CHECKING:
    from lakehouse.catalog.catalog import Catalog

_CHEAP = 1_000_000  # rows in the files to look at
_Counts = tuple[int | None, int | None, int | None]


@dataclass(frozen=True, slots=True)
class TableDiff:
    """A table that is in both snapshots and differs."""

    name: str
    """At the later snapshot."""
    was: str | None
    """What it was called at the earlier one; None: the same."""
    columns: tuple[str, ...]
    """What changed of its columns, a line for each."""
    rows_before: int
    rows_after: int
    inserted: int | None
    """Rows that the commits between put in; None: too many to count, or some of those commits have expired."""
    updated: int | None
    deleted: int | None
    described: bool
    """Whether a comment, the partitioning or the sort order is another."""


@dataclass(frozen=True, slots=True)
class Diff:
    """What differs between two snapshots."""

    start: int
    end: int
    schemas_added: tuple[str, ...]
    schemas_dropped: tuple[str, ...]
    added: dict[str, int]
    """Tables that are only in the later one, with their rows."""
    dropped: dict[str, int]
    """Tables that are only in the earlier one, with their rows."""
    changed: tuple[TableDiff, ...]
    views_added: tuple[str, ...]
    views_dropped: tuple[str, ...]
    views_changed: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return any(getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("start", "end"))

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain dictionaries and lists."""
        return dataclasses.asdict(self)

    def __repr__(self) -> str:
        lines = [f"snapshot {self.start} → {self.end}"]
        for mark, what, names in (
            ("+", "schema", self.schemas_added),
            ("-", "schema", self.schemas_dropped),
            ("+", "view", self.views_added),
            ("-", "view", self.views_dropped),
            ("~", "view", self.views_changed),
        ):
            lines += [f"{mark} {what} {name}" for name in names]
        lines += [f"+ table {name}: {counted(rows, 'row')}" for name, rows in self.added.items()]
        lines += [f"- table {name}: {counted(rows, 'row')}" for name, rows in self.dropped.items()]
        for table in self.changed:
            lines += _drawn(table)
        return "\n".join(lines) if len(lines) > 1 else f"{lines[0]}: nothing differs"


def diff(catalog: Catalog, database: Database, a: Version, b: Version | None) -> Diff:
    """See `Lakehouse.diff`."""
    metadata = catalog.metadata
    start = catalog.resolve(a)
    end = metadata.current() if b is None else catalog.resolve(b)
    if start > end:
        raise LakehouseError(f"snapshot {start} comes after snapshot {end}", hint="give the older one first")
    before, after = Definitions(metadata, start), Definitions(metadata, end)
    made = between(catalog, start + 1, end)
    complete = len(made) == end - start  # what expired commits did is not known
    moved = {id for id, r in after.by_id.items() if id in before.by_id and (not complete or touched(made, r))}
    ids = changed_ids(before, after) | moved
    rows = [_rows(catalog, state, ids) for state in (before, after)]
    tables = []
    anew = _anew(catalog, before, after)
    for id in ids & before.by_id.keys() & after.by_id.keys():
        old, new = before.of(before.by_id[id]), after.of(after.by_id[id])
        if new.relation.kind == "view":
            continue
        counts = _changes(catalog, database, new, made if complete else []) if id in moved else (0, 0, 0)
        if old != new or rows[0][id] != rows[1][id] or any(count != 0 for count in counts):
            tables.append(_table(old, new, (rows[0][id], rows[1][id]), counts))
    for id, known in anew.items():
        old, new = before.of(before.by_id[known]), after.of(after.by_id[id])
        counts = _across(catalog, database, old, new, start, made if complete else [])
        tables.append(_table(_renumbered(catalog, old, new), new, (rows[0][known], rows[1][id]), counts))
    views = [_views(state) for state in (before, after)]
    return Diff(
        start=start,
        end=end,
        schemas_added=tuple(s for s in after.schemas if s not in before.schemas),
        schemas_dropped=tuple(s for s in before.schemas if s not in after.schemas),
        added=_only(after, {*before.by_id, *anew}, rows[1]),
        dropped=_only(before, {*after.by_id, *anew.values()}, rows[0]),
        changed=tuple(sorted(tables, key=lambda table: table.name)),
        views_added=tuple(sorted(views[1].keys() - views[0].keys())),
        views_dropped=tuple(sorted(views[0].keys() - views[1].keys())),
        views_changed=tuple(sorted(v for v in views[0].keys() & views[1].keys() if views[0][v] != views[1][v])),
    )


def _table(old: Definition, new: Definition, rows: tuple[int, int], counts: _Counts) -> TableDiff:
    was, name = _shown(old.relation), _shown(new.relation)
    said = [(d.relation.comment, {f.id: f.comment for f in d.fields if f.comment}, d.layout) for d in (old, new)]
    return TableDiff(
        name=name,
        was=was if was != name else None,
        columns=tuple(differences(old, new)),
        rows_before=rows[0],
        rows_after=rows[1],
        inserted=counts[0],
        updated=counts[1],
        deleted=counts[2],
        described=said[0] != said[1],
    )


def _rows(catalog: Catalog, state: Definitions, ids: set[int]) -> dict[int, int]:
    relations = [state.by_id[id] for id in ids if id in state.by_id and state.by_id[id].kind == "table"]
    return {id: rows for id, (rows, _) in catalog.counts(relations, state.snapshot).items()}


def _changes(catalog: Catalog, database: Database, definition: Definition, made: list[Snapshot]) -> _Counts:
    """How many rows the commits inserted, updated and deleted, if it costs little to count them."""
    if not made or not definition.plain:
        return (None, None, None)
    first, last = made[-1].id, made[0].id
    files = catalog.metadata.rows(
        "i",
        f"SELECT coalesce(sum(record_count), 0) FROM ducklake_data_file WHERE table_id = {definition.relation.id} AND"
        f" (begin_snapshot BETWEEN {first} AND {last} OR end_snapshot BETWEEN {first} AND {last})",
    )
    if files[0][0] > _CHEAP:
        return (None, None, None)
    kinds = sum(count_changes(database, definition, made).values(), Counter())
    return (kinds["insert"], kinds["update_postimage"], kinds["delete"])


def _anew(catalog: Catalog, before: Definitions, after: Definitions) -> dict[int, int]:
    """Tables that were made anew in between, with wider types, and the ids that they had before."""
    gone = before.by_id.keys() - after.by_id.keys()
    new = [r for id, r in after.by_id.items() if gone and id not in before.by_id and r.kind == "table"]
    found = {relation.id: catalog.known_as(relation, gone) for relation in new}
    return {id: known for id, known in found.items() if known is not None}


def _across(
    catalog: Catalog, database: Database, old: Definition, new: Definition, start: int, made: list[Snapshot]
) -> _Counts:
    """How many rows the commits changed of a table that one of them made anew, which itself changed none."""
    evolved, then = made_anew(catalog, new.relation, start)
    if then is None or then.id != old.relation.id:
        return (None, None, None)
    later = [s for s in made if s.id > evolved and touched([s], new.relation)]
    earlier = [s for s in made if s.id < evolved and touched([s], then)]
    last = Definitions(catalog.metadata, evolved - 1).of(then)
    one = _changes(catalog, database, new, later) if later else (0, 0, 0)
    other = _changes(catalog, database, last, earlier) if earlier else (0, 0, 0)
    inserted, updated, deleted = (None if a is None or b is None else a + b for a, b in zip(one, other, strict=True))
    return inserted, updated, deleted


def _renumbered(catalog: Catalog, old: Definition, new: Definition) -> Definition:
    """A table as it was, with the numbers that its columns got when it was made anew: they kept their names then."""
    born = min(snapshot.id for snapshot in catalog.table_snapshots(new.relation))
    first = {
        f.name: f.id for f in Definitions(catalog.metadata, born).of(catalog.find_by_id(new.relation, born)).fields
    }
    last = max(s.id for s in catalog.table_snapshots(old.relation) if s.id < born)
    names = {
        f.id: f.name for f in Definitions(catalog.metadata, last).of(catalog.find_by_id(old.relation, last)).fields
    }
    fields = tuple(dataclasses.replace(f, id=first.get(names.get(f.id, ""), -f.id)) for f in old.fields)
    return dataclasses.replace(old, fields=fields)


def _only(here: Definitions, there: Container[int], counts: dict[int, int]) -> dict[str, int]:
    found = [r for id, r in here.by_id.items() if id not in there and r.kind == "table"]
    return {_shown(r): counts[r.id] for r in sorted(found, key=_shown)}


def _views(state: Definitions) -> dict[str, tuple[str | None, str | None]]:
    """Query and comment of every view by name: one that is replaced is another view of the same name."""
    return {_shown(r): (r.sql, r.comment) for r in state.by_id.values() if r.kind == "view"}


def _drawn(table: TableDiff) -> list[str]:
    name = table.name if table.was is None else f"{table.was} → {table.name}"
    facts = []
    if table.rows_before != table.rows_after:
        facts.append(f"{table.rows_before:,} → {counted(table.rows_after, 'row')}")
    counts = (("inserted", table.inserted), ("updated", table.updated), ("deleted", table.deleted))
    facts += [f"{count:,} {what}" for what, count in counts if count]
    if table.described:
        facts.append("described or laid out anew")
    head = f"~ table {name}" + (f": {', '.join(facts)}" if facts else "")
    return [head, *(f"    {line}" for line in table.columns)]


def _shown(relation: Relation) -> str:
    return shown(relation.schema, relation.name)
