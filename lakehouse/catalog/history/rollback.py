"""What commits did to a table, and going back to an older snapshot: a table, or the whole lake."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.catalog import faults
from lakehouse.catalog.attach import ALIAS, Database
from lakehouse.catalog.history.definition import Definition, Definitions, changed_ids, differences
from lakehouse.catalog.history.past import attached, exactly_read
from lakehouse.catalog.history.revert import Done, Revert, Source, touched
from lakehouse.catalog.metadata import Relation, Snapshot, Version
from lakehouse.catalog.names import literal, quote, shown
from lakehouse.catalog.notes import EVOLVE, PUBLISH, before, operation
from lakehouse.errors import LakehouseError, QueryError, SchemaMismatch

if TYPE_CHECKING:
    import pyarrow as pa

    from lakehouse.catalog.catalog import Catalog
    from lakehouse.catalog.writer import Transaction


@dataclass(frozen=True, slots=True)
class Change:
    """What one commit did to the rows of a table."""

    snapshot: Snapshot
    inserted: int | None
    """None: it cannot be told, as for a view."""
    updated: int | None
    deleted: int | None


_MARKS = ("snapshot_id", "rowid", "change_type")
_OUT = "change_type IN ('delete', 'update_preimage')"
_SAME = "OVER (PARTITION BY snapshot_id, rowid)"
# DuckLake calls the new half of an update `insert` where the old row stood in a file and the new one in the catalog.
_KIND = (
    f"CASE WHEN NOT (bool_or({_OUT}) {_SAME} AND bool_or(NOT ({_OUT})) {_SAME})"
    f" THEN if({_OUT}, 'delete', 'insert') WHEN {_OUT} THEN 'update_preimage' ELSE 'update_postimage' END"
)


_Part = tuple[int, "pa.Table"]
"""Changes of one of the tables that stood in one place, and the rollback that ended it; 0 for the last one."""


def changes(catalog: Catalog, database: Database, relation: Relation, start: Version, end: Version | None) -> pa.Table:
    """See `Table.changes`."""
    import pyarrow as pa

    first = catalog.resolve(start)
    last = catalog.metadata.current() if end is None else catalog.resolve(end)
    if first > last:
        raise LakehouseError(f"snapshot {first} comes after snapshot {last}", hint="give the older one first")
    if relation.kind == "view":
        raise QueryError(f"{shown(relation.schema, relation.name)} is a view", hint="ask for the changes of its tables")
    *older, (_, found) = _parts(catalog, database, relation, first, last)
    fitting = []
    for ended, part in older:
        try:
            fitting.append(_as_named(part, found.schema))
        except pa.ArrowException as error:
            raise QueryError(
                f"the rollback of snapshot {ended} gave {shown(relation.schema, relation.name)} other columns, and those"
                f" of today cannot hold what changed before it: {error}",
                hint=f"ask for what changed since, changes({ended + 1}), and before: at({ended - 1}).changes({first})",
            ) from None
    return pa.concat_tables([*fitting, found])


def _parts(catalog: Catalog, database: Database, relation: Relation, first: int, last: int) -> list[_Part]:
    """What `changes` gives, oldest first, each part with the columns that its own table had at its end."""
    metadata = catalog.metadata
    then = catalog.find_by_id(relation, last)
    definition = Definitions(metadata, last).of(then)
    if not definition.plain:
        raise QueryError(
            f"the changes of {shown(then.schema, then.name)} cannot be told apart: it has a column 'rowid' or"
            " 'snapshot_id', and DuckLake calls its own marks so",
            hint="rename the column; changes from then on can be asked for",
        )
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = [f.name for f in definition.fields]
    names = [f"c{number}" for number in range(len(columns))]
    made = between(catalog, first, last)
    evolved, old = made_anew(catalog, then, first)
    wanted = [id for id in _changing(made, then) if id != evolved]
    with exactly_read(database), closing(database.cursor()) as cursor, faults.translated():
        table = cursor.execute(
            f"SELECT snapshot_id, rowid, change_type, {', '.join(names)} FROM"
            f" {_changed(then, names, first if old is None else evolved, last)}"
            " ORDER BY snapshot_id, rowid, change_type DESC"
        ).to_arrow_table()
    kept = table.filter(pc.is_in(table["snapshot_id"], pa.array(wanted, table.schema.field("snapshot_id").type)))
    kept = kept.rename_columns([*_MARKS, *columns])
    if old is None:
        return [*_behind_rollback(catalog, database, then, first), (0, kept)]
    older = changes(catalog, database, old, first, max(s.id for s in made if s.id < evolved))
    return [(0, pa.concat_tables([_as_evolved(catalog, older, then, evolved, definition, kept.schema), kept]))]


def _behind_rollback(catalog: Catalog, database: Database, relation: Relation, first: int) -> list[_Part]:
    """What changed before a rollback put a table in the place of another: that one's changes, and then its end.

    All its rows were deleted then. Empty if there was no such rollback since `first`.
    """
    taken = _place_taken(catalog, relation)
    if taken is None or taken[0].id < first or operation(taken[0]) != "rollback" or taken[1].kind != "table":
        return []
    commit, old = taken
    names = [quote(field.name) for field in Definitions(catalog.metadata, commit.id - 1).of(old).fields]
    with exactly_read(database), closing(database.cursor()) as cursor, faults.translated():
        gone = cursor.execute(
            f"SELECT {commit.id}::BIGINT AS snapshot_id, rowid, 'delete' AS change_type, {', '.join(names)}"
            f" FROM {quote(ALIAS, old.schema, old.name)} AT (VERSION => {commit.id - 1}) ORDER BY rowid"
        ).to_arrow_table()
    before = _parts(catalog, database, old, first, commit.id - 1) if first < commit.id else []
    return [*((ended or commit.id, part) for ended, part in before), (commit.id, gone)]


def _as_named(changed: pa.Table, schema: pa.Schema) -> pa.Table:
    """Changes with the columns of another table: those of the same name (their case does not count), others empty.

    Raises:
        pa.ArrowException: a value does not fit its column.
    """
    import pyarrow as pa

    places = {name.lower(): number for number, name in enumerate(changed.column_names)}
    columns = [
        changed.column(places[field.name.lower()]).cast(field.type)
        if field.name.lower() in places
        else pa.nulls(len(changed), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def made_anew(catalog: Catalog, relation: Relation, first: int) -> tuple[int, Relation | None]:
    """The commit since `first` that made a table anew with wider types (else 0), and the table it was before."""
    for commit in catalog.notes(relation):
        if operation(commit) == EVOLVE and (id := before([commit], relation)) is not None:
            old = catalog.metadata.relation(id, commit.id - 1) if commit.id > first else None
            return (commit.id, old) if old is not None else (commit.id, None)
    return 0, None


def _as_evolved(
    catalog: Catalog, older: pa.Table, relation: Relation, evolved: int, now: Definition, schema: pa.Schema
) -> pa.Table:
    """Changes from before a table was made anew with wider types, with the columns it has now."""
    import pyarrow as pa

    then = catalog.find_by_id(relation, evolved)
    ids = [field.id for field in Definitions(catalog.metadata, evolved).of(then).fields]
    columns = [older.column(number).cast(schema.field(number).type) for number in range(len(_MARKS))]
    for number, field in enumerate(now.fields, len(_MARKS)):
        place = len(_MARKS) + ids.index(field.id) if field.id in ids else older.num_columns
        kind = schema.field(number).type
        columns.append(older.column(place).cast(kind) if place < older.num_columns else pa.nulls(len(older), kind))
    return pa.Table.from_arrays(columns, schema=schema)


def count_changes(database: Database, definition: Definition, made: list[Snapshot]) -> dict[int, Counter[str]]:
    """How many rows of a table some commits (newest first) changed, by snapshot and kind of change."""
    if not made:
        return {}
    names = [f"c{number}" for number in range(len(definition.fields))]
    changed = _changed(definition.relation, names, made[-1].id, made[0].id)
    counted: dict[int, Counter[str]] = {id: Counter() for id in _changing(made, definition.relation)}
    with exactly_read(database), closing(database.cursor()) as cursor, faults.translated():
        sql = f"SELECT snapshot_id, change_type, count(*) FROM {changed} GROUP BY ALL"
        for snapshot, kind, count in cursor.execute(sql).fetchall():
            if snapshot in counted:
                counted[snapshot][kind] = count
    return counted


def history(catalog: Catalog, database: Database, relation: Relation, limit: int | None) -> list[Change]:
    """See `Table.history`."""
    found: list[Change] = []
    made = catalog.table_snapshots(relation)
    while True:
        taken = _place_taken(catalog, relation)
        found += _counted(catalog, database, relation, made[: None if limit is None else limit - len(found)], taken)
        if taken is None or len(found) == limit:
            return found
        commit, relation = taken
        made = [snapshot for snapshot in catalog.table_snapshots(relation) if snapshot.id < commit.id]


def _place_taken(catalog: Catalog, relation: Relation) -> tuple[Snapshot, Relation] | None:
    """The commit that made a table anew, and the table in whose place it was put."""
    for commit in catalog.notes(relation):
        then = catalog.metadata.relation(relation.id, commit.id)  # none: this is the commit that dropped it
        if then is None or (id := before([commit], relation)) is None:
            continue
        older = catalog.metadata.relations(commit.id - 1).values()
        named = (r for r in older if (r.schema, r.name, r.kind) == (then.schema, then.name, then.kind))
        old = next(named, None) or catalog.metadata.relation(id, commit.id - 1)
        return None if old is None else (commit, old)
    return None


def _counted(
    catalog: Catalog,
    database: Database,
    relation: Relation,
    made: list[Snapshot],
    taken: tuple[Snapshot, Relation] | None,
) -> list[Change]:
    """What commits did to the rows of a table; a rollback that made it anew took out those of the table before, too."""
    then = catalog.metadata.relation(relation.id, made[0].id) if made else None
    definition = Definitions(catalog.metadata, made[0].id).of(then) if then and then.kind == "table" else None
    counted = count_changes(database, definition, made) if definition and definition.plain else None
    if counted is None:
        return [Change(snapshot, None, None, None) for snapshot in made]
    if taken is not None and any(snapshot.id == taken[0].id for snapshot in made):
        commit, old = taken
        counts = counted.setdefault(commit.id, Counter())
        if operation(commit) == "rollback":
            counts["delete"] += catalog.counts([old], commit.id - 1)[old.id][0]
        else:  # the same rows, with wider types; which a branch added to them cannot be told
            counts.clear()
    none: Counter[str] = Counter()
    found = [(snapshot, counted.get(snapshot.id, none)) for snapshot in made]
    unknown = taken[0].id if taken is not None and operation(taken[0]) == PUBLISH else None
    return [
        Change(s, None, None, None) if s.id == unknown else Change(s, n["insert"], n["update_postimage"], n["delete"])
        for s, n in found
    ]


def _changing(made: list[Snapshot], relation: Relation) -> list[int]:
    """Which commits changed rows of a table. DuckLake gives those of commits that only moved them as changed, too.

    The others are left out once all rows are there: a filter on `snapshot_id` in SQL is pushed into DuckLake's scan,
    which then loses deleted rows and lets those of other commits pass.
    """
    return [snapshot.id for snapshot in made if touched([snapshot], relation)]


def _changed(relation: Relation, names: list[str], first: int, last: int) -> str:
    """The rows of a table that commits changed, with its columns called `names`, as SQL after FROM."""
    place = f"{literal(ALIAS)}, {literal(relation.schema)}, {literal(relation.name)}, {first}, {last}"
    columns = ", ".join(names)
    return (
        f"(SELECT snapshot_id, rowid, {_KIND} AS change_type, {columns} FROM ducklake_table_changes({place})"
        f" AS given(snapshot_id, rowid, change_type, {columns}))"
    )


def rollback_table(
    catalog: Catalog, database: Database, relation: Relation, version: Version, *, allow_schema_change: bool
) -> int:
    """See `Table.rollback`."""
    if relation.kind == "view":
        raise QueryError(
            f"{shown(relation.schema, relation.name)} is a view", hint="roll its tables back, or make it again"
        )
    snapshot = catalog.resolve(version)
    metadata = catalog.metadata
    past = Definitions(metadata, snapshot)
    then = past.of(catalog.find_by_id(relation, snapshot))
    with attached(database, database.folder, snapshot) as alias:
        with catalog.writer.transaction("rollback", "rollback", version=snapshot) as transaction:
            present = Definitions(metadata, metadata.current())
            now = present.of(catalog.find_by_id(relation, present.snapshot))
            name = shown(now.relation.schema, now.relation.name)
            if now.shape != then.shape and not allow_schema_change:
                raise SchemaMismatch(
                    f"the columns of {name} have changed since snapshot {snapshot}:\n  "
                    + "\n  ".join(differences(then, now)),
                    hint="allow_schema_change=True makes the table anew with the columns it had",
                )
            transaction.message = f"rollback {name} to snapshot {snapshot}"
            revert = Revert(transaction, present, _source(past, alias))
            revert.table(now, then)
            note(transaction, revert.done)
    carry_tags(catalog, revert.done)
    return transaction.committed


def rollback_lake(catalog: Catalog, database: Database, version: Version) -> int:
    """See `Lakehouse.rollback`."""
    snapshot = catalog.resolve(version)
    metadata = catalog.metadata
    past = Definitions(metadata, snapshot)
    with attached(database, database.folder, snapshot) as alias:
        message = f"rollback the lake to snapshot {snapshot}"
        with catalog.writer.transaction("rollback", message, version=snapshot) as transaction:
            present = Definitions(metadata, metadata.current())
            since = between(catalog, snapshot + 1, present.snapshot)
            complete = len(since) == present.snapshot - snapshot  # what expired commits did is not known
            revert = Revert(transaction, present, _source(past, alias))
            changed = {id for id, r in present.by_id.items() if not complete or touched(since, r)}
            ids = changed | changed_ids(past, present)
            revert.everything(
                {id: relation for id, relation in present.by_id.items() if id in ids},
                {id: relation for id, relation in past.by_id.items() if id in ids},
                lambda relation: relation.id in changed,
                set(present.schemas) - set(past.schemas),
            )
            note(transaction, revert.done)
    carry_tags(catalog, revert.done)
    return transaction.committed


def _source(past: Definitions, alias: str) -> Source:
    """An older snapshot of the lake itself: a row is the same as long as no later commit wrote it."""
    return Source(
        alias,
        past,
        lambda here, _: (
            f"SELECT rowid FROM {quote(ALIAS, here.schema, here.name)} WHERE snapshot_id <= {past.snapshot}"
        ),
    )


def between(catalog: Catalog, first: int, last: int) -> list[Snapshot]:
    """The commits from one snapshot to another, both included, newest first; those that have expired are missing."""
    return catalog.metadata.snapshots(f"s.snapshot_id BETWEEN {first} AND {last}")


def note(transaction: Transaction, done: Done) -> None:
    """What was done, for whoever reads the commit's note."""
    facts: dict[str, Any] = {"created": done.created, "dropped": done.dropped, "anew": done.anew}
    transaction.note["tables"] = sorted({*done.created, *done.changed})
    transaction.note.update({key: value for key, value in facts.items() if value})


def carry_tags(catalog: Catalog, done: Done) -> None:
    """A table that was made anew has a new id: its tags go with it."""
    found = {shown(r.schema, r.name): r.id for r in catalog.metadata.relations(catalog.metadata.current()).values()}
    catalog.tags.carry((old, found[name]) for name, old in done.anew.items() if name in found)
