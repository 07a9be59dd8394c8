"""`lake.catalog`: schemas, tables, views and snapshots by name."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import duckdb

from lakehouse.arguments import arguments_told
from lakehouse.catalog import faults, notes
from lakehouse.catalog import search as searching
from lakehouse.catalog.attach import ALIAS, Database
from lakehouse.catalog.history import rollback as history
from lakehouse.catalog.history.tags import Tags
from lakehouse.catalog.lineage.commits import dropped
from lakehouse.catalog.lineage.graph import Direction, Lineage, lineage
from lakehouse.catalog.metadata import Metadata, Relation, Snapshot, Version
from lakehouse.catalog.names import nearest, quote, shown, split
from lakehouse.catalog.search import Hit
from lakehouse.catalog.table import Table
from lakehouse.catalog.writer import Writer
from lakehouse.errors import LakehouseError, QueryError, SchemaNotFound, TableNotFound
from lakehouse.state import State

if TYPE_CHECKING:
    import pyarrow as pa

_COUNT_BATCH = 100  # tables counted in one query


@arguments_told
class Catalog:
    """What there is in the lake, now or at the snapshot it is pinned to.

    Inside `lake.transaction()` it tells what was committed before; the changes it makes belong to that transaction,
    and the snapshot that they return is the newest one before it.
    """

    def __init__(self, database: Database, metadata: Metadata, writer: Writer, state: State) -> None:
        self._database = database
        self.metadata = metadata
        self.writer = writer
        self.state = state
        self.tags = Tags(state, metadata, writer, database)

    def schemas(self) -> list[str]:
        """The names of all schemas, sorted."""
        return self.metadata.schemas(self.metadata.current())

    def schema(self, name: str) -> str:
        """The name of a schema as it was created.

        Raises:
            SchemaNotFound: there is no schema of that name.
        """
        known = {schema.lower(): schema for schema in self.schemas()}
        if found := known.get(name.lower()):
            return found
        raise SchemaNotFound(
            f"there is no schema '{name}'",
            hint=nearest(name, known.values()) or f"create it first: CREATE SCHEMA {quote(name)}",
        )

    def create_schema(self, name: str, *, if_not_exists: bool = False) -> int:
        """Create a schema and return the snapshot that was made.

        Raises:
            AlreadyExists: there is one of that name.
        """
        clause = "IF NOT EXISTS " if if_not_exists else ""
        return self._ddl(f"CREATE SCHEMA {clause}{quote(ALIAS, name)}", f"create schema {name}")

    def tables(self, schema: str | None = None) -> list[Table]:
        """All tables, or those of one schema, sorted by name.

        Raises:
            SchemaNotFound: there is no schema of that name.
        """
        return self._list("table", schema)

    def views(self, schema: str | None = None) -> list[Table]:
        """All views, or those of one schema, sorted by name."""
        return self._list("view", schema)

    def table(self, name: str) -> Table:
        """The table or view called `table` or `schema.table`.

        Raises:
            TableNotFound: there is none; the hint offers the nearest names.
        """
        return Table(self, self.find(name))

    def create_view(self, name: str, sql: str, *, replace: bool = False) -> Table:
        """Keep a query as a view.

        Raises:
            AlreadyExists: the name is taken and `replace` is off.
            QueryError: it is not one query, or does not run on this lake; or a transaction is open.
        """
        schema, view = split(name)
        verb = "CREATE OR REPLACE VIEW" if replace else "CREATE VIEW"
        if self.writer.active is not None:
            raise QueryError(
                "a view that create_view makes is there only after a commit",
                hint="inside lake.transaction() use lake.sql('CREATE VIEW …')",
            )
        self._ddl(f"{verb} {quote(ALIAS, schema, view)} AS {_query(sql)}", f"create view {name}")
        return self.table(name)

    def drop(self, name: str, *, if_exists: bool = False) -> int:
        """Drop a table or view (older snapshots keep it) and return the snapshot that was made."""
        try:
            relation = self.find(name)
        except TableNotFound:
            if if_exists:
                return self.metadata.current()
            raise
        target = quote(ALIAS, relation.schema, relation.name)
        return self._ddl(f"DROP {relation.kind.upper()} {target}", f"drop {name}")

    def snapshots(self, limit: int | None = None) -> list[Snapshot]:
        """The commits of the lake, newest first."""
        return self.metadata.snapshots(limit=limit)

    def current_snapshot(self) -> Snapshot:
        """The snapshot that reads see now."""
        return self.metadata.snapshots(f"s.snapshot_id = {self.metadata.current()}")[0]

    def resolve(self, version: Version) -> int:
        """The snapshot id that an id, the name of a tagged snapshot, or a time means."""
        return self.tags.resolve(version)

    def tag_snapshot(self, name: str, version: Version | None = None, *, replace: bool = False) -> int:
        """Give a snapshot a name, which then stands for it wherever a version is asked for; returns its id.

        Args:
            name: the name; it must not read as a number or a time.
            version: the snapshot; None: the newest.
            replace: move the name if another snapshot has it.

        Raises:
            AlreadyExists: another snapshot has that name and `replace` is off.
            LakeReadOnly: the lake is read-only or pinned.
        """
        return self.tags.tag_snapshot(name, version, replace=replace)

    def untag_snapshot(self, name: str) -> int:
        """Take a name away from its snapshot, whose id is returned.

        Raises:
            SnapshotNotFound: no snapshot has that name.
        """
        return self.tags.untag_snapshot(name)

    def snapshot_tags(self) -> dict[str, int]:
        """The ids of the tagged snapshots by name."""
        return self.tags.snapshots()

    def changes(self, relation: Relation, start: Version, end: Version | None) -> pa.Table:
        """What commits did to the rows of a table; see `Table.changes`."""
        return history.changes(self, self._database, relation, start, end)

    def history(self, relation: Relation, limit: int | None) -> list[history.Change]:
        """The commits that changed a table; see `Table.history`."""
        return history.history(self, self._database, relation, limit)

    def rollback(self, relation: Relation, version: Version, *, allow_schema_change: bool) -> int:
        """Give a table the rows it had; see `Table.rollback`."""
        return history.rollback_table(self, self._database, relation, version, allow_schema_change=allow_schema_change)

    def search(self, text: str, limit: int | None = None) -> list[Hit]:
        """Tables, views and schemas in which every word of a text is found, the best first.

        Searched are names, schemas, columns, comments, tags and the queries of views, in any case; when nothing
        has all the words, names nearly like them count too. Each hit says what matched.
        """
        return searching.search(self, text, limit)

    def lineage(self, name: str, direction: Direction = "both", depth: int | None = None) -> Lineage:
        """Where the rows of a table or view came from and what was made from it, also of one that was dropped.

        Args:
            name: `table` or `schema.table`; of what was dropped the last name it had.
            direction: `up`, `down` or `both`; see `Table.lineage`.
            depth: how many steps to go; None: as far as it goes.

        Raises:
            TableNotFound: there is none, nor was there one that the catalog remembers.
        """
        try:
            return self.table(name).lineage(direction, depth)
        except TableNotFound:
            version = self.metadata.current()
            relation = dropped(self, name, version)
            if relation is None:
                raise
        return lineage(self, relation, version, direction, depth)

    def find(self, name: str, snapshot: int | None = None) -> Relation:
        """The catalog entry of a table or view by name."""
        schema, table = split(name)
        relations = self.metadata.relations(self.metadata.current() if snapshot is None else snapshot)
        if found := relations.get((schema.lower(), table.lower())):
            return found
        names = [shown(r.schema, r.name) for r in relations.values()]
        at = "" if snapshot is None else f" at snapshot {snapshot}"
        raise TableNotFound(f"there is no table or view '{name}'{at}", hint=self.suggest(name, names))

    @staticmethod
    def suggest(name: str, names: Iterable[str]) -> str:
        """What to try instead of a table name that is not there."""
        known = list(names)
        if not known:
            return "the lake is empty: load something with lakehouse ingest"
        return nearest(name, known) or "lakehouse tables lists what there is"

    def find_by_id(self, relation: Relation, snapshot: int) -> Relation:
        """The entry of the same table at another snapshot, whatever it was called then."""
        if found := self.metadata.relation(relation.id, snapshot):
            return found
        if (before := notes.before(self.notes(relation), relation)) is not None:  # a rollback made it anew
            return self.find_by_id(replace(relation, id=before), snapshot)
        raise TableNotFound(
            f"{relation.kind} '{relation.name}' is not there at snapshot {snapshot}",
            hint="it was made later, or dropped, or another has its name now: ask lake.catalog.table() for that one",
        )

    def known_as(self, relation: Relation, ids: Container[int]) -> int | None:
        """Which of some ids a table had before it was made anew, perhaps more than once; None when it had none."""
        here: int | None = relation.id
        while here is not None and here not in ids:
            older = replace(relation, id=here)
            here = notes.before(self.notes(older), older)
        return here

    def table_snapshots(self, relation: Relation) -> list[Snapshot]:
        """Snapshots whose changes name the table by id, and the one that created it."""
        kind = "view" if relation.kind == "view" else "table"
        born = self.metadata.rows(
            "i", f"SELECT coalesce(min(begin_snapshot), -1) FROM ducklake_{kind} WHERE {kind}_id = {relation.id}"
        )  # none: all its snapshots have expired
        pattern = re.compile(rf"(?:^|,)[a-z_]+:{relation.id}(?:,|$)")
        found = self.metadata.snapshots(f"c.changes_made LIKE '%:{relation.id}%' OR s.snapshot_id = {born[0][0]}")
        return [s for s in found if s.id == born[0][0] or pattern.search(s.changes)]

    def notes(self, relation: Relation) -> list[Snapshot]:
        """The commits that changed what is in a table, newest first, also those whose snapshots have expired.

        Compacting, which changes no row, is left out.
        """
        return notes.of_table(self.metadata, self.state, relation, self.table_snapshots(relation))

    def marked(self, mark: str, after: int = 0) -> Snapshot | None:
        """The commit newer than a snapshot that carries a mark; None when there is none."""
        return notes.marked(self.metadata, self.state, mark, after)

    def describe(self, relation: Relation, snapshot: int | None = None) -> list[tuple[str, str]]:
        """Names and DuckDB types of the columns of a table or view.

        Raises:
            QueryError: a view's query no longer runs, or it is a past view, which only a pinned lake can read.
        """
        self.check_present(relation, snapshot)
        target = quote(ALIAS, relation.schema, relation.name)
        if snapshot is not None and relation.kind == "table":
            target += f" AT (VERSION => {snapshot})"
        with faults.translated():
            rows = self._database.cursor().execute(f"DESCRIBE SELECT * FROM {target}").fetchall()
        return [(row[0], row[1]) for row in rows]

    def sizes(self, tables: list[Table]) -> dict[str, tuple[int, int]]:
        """Exact rows and bytes of several tables by full name, in few queries; views among them are left out."""
        real = [table for table in tables if table.kind == "table"]
        counts = self.counts([table.relation for table in real], self.metadata.current())
        return {table.full_name: counts[table.relation.id] for table in real}

    def counts(self, relations: list[Relation], snapshot: int) -> dict[int, tuple[int, int]]:
        """Exact rows and bytes by id, from the catalog alone where a file's rows are the table's rows."""
        totals = self.metadata.file_totals(snapshot)
        result: dict[int, tuple[int, int]] = {}
        counted: list[Relation] = []
        doubtful = self.metadata.tables_with_deletes() | self.metadata.tables_with_later_rows(snapshot)
        inlined = self.metadata.inlined_totals(snapshot, [r.id for r in relations])
        for relation in relations:
            rows, size = totals.get(relation.id, (0, 0))
            if relation.kind == "view" or relation.id in doubtful:
                counted.append(relation)
                result[relation.id] = (0, size)
            else:
                result[relation.id] = (rows + inlined.get(relation.id, 0), size)
        for start in range(0, len(counted), _COUNT_BATCH):
            for key, rows in self._count(counted[start : start + _COUNT_BATCH], snapshot):
                result[key] = (rows, result[key][1])
        return result

    def check_type(self, type: str) -> str:
        """The type as DuckDB spells it.

        Raises:
            LakehouseError: DuckDB knows no such type.
        """
        try:
            return str(duckdb.sqltype(type))
        except duckdb.Error:
            raise LakehouseError(
                f"'{type}' is not a DuckDB type", hint="such as BIGINT, DOUBLE, VARCHAR, TIMESTAMP"
            ) from None

    def check_present(self, relation: Relation, snapshot: int | None) -> None:
        """Refuse to take what a view gives now for what it gave at a snapshot: its query reads other tables."""
        if relation.kind == "view" and snapshot is not None and snapshot != self.metadata.current():
            name = shown(relation.schema, relation.name)
            raise QueryError(
                f"the view {name} cannot be read at snapshot {snapshot} here",
                hint=f"pin the whole lake: lakehouse.open(path, at={snapshot}), or lake.sql('…', at={snapshot})",
            )

    def _count(self, relations: list[Relation], snapshot: int) -> list[tuple[int, int]]:
        live = snapshot == self.metadata.current()
        parts = []
        for relation in relations:
            at = "" if live or relation.kind == "view" else f" AT (VERSION => {snapshot})"
            name = quote(ALIAS, relation.schema, relation.name)
            parts.append(f"SELECT {relation.id}, count(*) FROM {name}{at}")
        with faults.translated():
            return self._database.cursor().execute(" UNION ALL ".join(parts)).fetchall()

    def _list(self, kind: str, schema: str | None) -> list[Table]:
        relations = self.metadata.relations(self.metadata.current()).values()
        wanted = None if schema is None else self.schema(schema)
        return [Table(self, r) for r in relations if r.kind == kind and wanted in (None, r.schema)]

    def _ddl(self, sql: str, message: str) -> int:
        with self.writer.transaction("ddl", message, join=True, sql=sql) as transaction:
            transaction.execute(sql)
        return transaction.committed


def _query(sql: str) -> str:
    """The text of a query, made sure by DuckDB's own parser to be one query and nothing else.

    Raises:
        QueryError: it is something else, or more than that.
    """
    # An empty database: a PRAGMA may do something as soon as it is parsed.
    with faults.translated(), closing(duckdb.connect(config={"threads": 1})) as empty:
        found = empty.extract_statements(sql)
    if len(found) != 1 or found[0].type != duckdb.StatementType.SELECT:
        raise QueryError("a view is made of exactly one SELECT", hint="give one query, without other statements")
    return sql.strip().rstrip(";")
