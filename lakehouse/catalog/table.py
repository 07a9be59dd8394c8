"""One table or view: what it holds, how it changed, and the changes that DDL makes to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakehouse.arguments import arguments_told
from lakehouse.catalog import inlining, layout
from lakehouse.catalog import profile as profiling
from lakehouse.catalog.attach import ALIAS
from lakehouse.catalog.lineage.graph import Direction, Lineage, lineage
from lakehouse.catalog.metadata import Relation, Snapshot, Version
from lakehouse.catalog.names import literal, nearest, quote, shown
from lakehouse.errors import ColumnNotFound, LakehouseError, QueryError

if TYPE_CHECKING:
    import pyarrow as pa

    from lakehouse.catalog.catalog import Catalog
    from lakehouse.catalog.history.rollback import Change
    from lakehouse.catalog.layout import DataFile
    from lakehouse.catalog.profiles import Profile


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table or view."""

    name: str
    type: str
    """The DuckDB type, such as `BIGINT` or `DECIMAL(10,2)`."""
    nullable: bool
    comment: str | None


@arguments_told
class Table:
    """A table or view; every property is read when asked for.

    It stays the same table whatever it is called later; `name` is what it was called when it was asked for.
    The methods that change it return the snapshot that was made. Inside `lake.transaction()` that one is not
    known yet: they then return the newest one before it, and only one of them may change the columns.
    """

    def __init__(self, catalog: Catalog, relation: Relation, snapshot: int | None = None) -> None:
        self._catalog = catalog
        self._relation = relation
        self._snapshot = snapshot

    @property
    def relation(self) -> Relation:
        """The catalog entry behind it."""
        return self._relation

    @property
    def name(self) -> str:
        return self._relation.name

    @property
    def schema_name(self) -> str:
        return self._relation.schema

    @property
    def kind(self) -> str:
        """`table` or `view`."""
        return self._relation.kind

    @property
    def full_name(self) -> str:
        """`schema.table`, or the bare name in the schema `main`; odd names are quoted."""
        return shown(self.schema_name, self.name)

    @property
    def comment(self) -> str | None:
        return self._refreshed().comment

    @property
    def version(self) -> int:
        """The snapshot id that this table is read at."""
        return self._snapshot if self._snapshot is not None else self._catalog.metadata.current()

    @property
    def schema(self) -> list[Column]:
        """The columns in order, with DuckDB types and comments."""
        version = self.version
        relation = self._catalog.find_by_id(self._relation, version)
        described = self._catalog.describe(relation, self._snapshot)
        if self.kind == "view":
            return [Column(name, kind, True, None) for name, kind in described]
        facts = {row[2]: (bool(row[4]), row[5]) for row in self._catalog.metadata.columns(version, relation.id)}
        return [Column(name, kind, *facts.get(name, (True, None))) for name, kind in described]

    @property
    def row_count(self) -> int:
        """The exact number of rows."""
        self._catalog.check_present(self._relation, self._snapshot)
        version = self.version
        relation = self._catalog.find_by_id(self._relation, version)
        return self._catalog.counts([relation], version)[relation.id][0]

    @property
    def bytes(self) -> int:
        """Size of the data files in bytes; 0 for a view and for rows kept in the catalog itself."""
        return self._catalog.metadata.file_totals(self.version).get(self._relation.id, (0, 0))[1]

    def snapshots(self) -> list[Snapshot]:
        """The snapshots that changed this table, newest first, the one that created it last."""
        return self._catalog.table_snapshots(self._relation)

    def at(self, version: Version) -> Table:
        """The same table as it was at a snapshot id, a tagged snapshot or a time.

        Raises:
            SnapshotNotFound: there is no such snapshot.
            TableNotFound: the table was not there then.
        """
        snapshot = self._catalog.resolve(version)
        relation = self._catalog.find_by_id(self._relation, snapshot)
        return Table(self._catalog, relation, snapshot)

    def profile(self, *, sample: int | None = profiling.SAMPLE) -> Profile:
        """What each column holds: nulls, distinct values, range, quantiles, histogram, most frequent values.

        Args:
            sample: of a larger table quantiles, histograms and frequent values are taken from about so many rows
                drawn at random; None: from all rows, however many.

        Raises:
            QueryError: it is a view at a past snapshot, or its query no longer runs.
        """
        return profiling.profile(self, self._catalog._database, sample=sample)

    def files(self) -> list[DataFile]:
        """The data files, oldest first; rows that the catalog keeps itself are in none."""
        return layout.files(self)

    @property
    def partitioning(self) -> tuple[str, ...]:
        """How new rows are partitioned; empty when they are not."""
        return layout.partitioning(self)

    def set_partitioning(self, *parts: str) -> int:
        """Write rows from now on into files by these values, such as `set_partitioning("year(day)", "origin")`.

        A part is a column, `year`, `month`, `day` or `hour(column)`, or `bucket(n, column)`; without parts new rows
        are no longer partitioned. Files that are there stay as they are. Returns the snapshot that was made.

        Raises:
            ColumnNotFound: a part names no column.
        """
        return self._alter(layout.partition_clause(self, parts), "partition", f" by {', '.join(parts) or 'nothing'}")

    @property
    def sorting(self) -> tuple[str, ...]:
        """How new rows are sorted inside their files; empty when they are not."""
        return layout.sorting(self)

    def set_sorting(self, *keys: str) -> int:
        """Sort rows written from now on, such as `set_sorting("origin", "day desc")`; without keys no longer.

        Returns the snapshot that was made.

        Raises:
            ColumnNotFound: a key names no column.
        """
        return self._alter(layout.sort_clause(self, keys), "sort", f" by {', '.join(keys) or 'nothing'}")

    def lineage(self, direction: Direction = "both", depth: int | None = None) -> Lineage:
        """Where its rows came from and what was made from them, up to the snapshot that the table is read at.

        Args:
            direction: `up`: tables, views, files, frames, notebooks, scripts and SQL that it came from;
                `down`: tables and views that were made from it; or `both`.
            depth: how many steps to go; None: as far as it goes.
        """
        return lineage(self._catalog, self._relation, self.version, direction, depth)

    def changes(self, start: Version, end: Version | None = None) -> pa.Table:
        """The rows that commits inserted, updated and deleted, oldest commit first.

        They go on over a rollback that made the table anew with the columns it had: it deleted all rows of the table
        before and inserted those that came back, under row ids of their own.

        Args:
            start: the first commit that counts, itself included.
            end: the last one, included as well; None: the newest.

        Returns:
            An Arrow table: `snapshot_id`, `rowid` (which row of the table it is), `change_type` (`insert`, `delete`,
            or a pair of `update_preimage` and `update_postimage`), then the columns of the table as they are at `end`.

        Raises:
            QueryError: it is a view, or what changed before such a rollback does not fit the columns.
            TableNotFound: the table was not there at `end`.
        """
        return self._catalog.changes(self._relation, start, self._snapshot if end is None else end)

    def history(self, limit: int | None = None) -> list[Change]:
        """The commits that changed this table, newest first, with how many rows each inserted, updated and deleted."""
        return self._catalog.history(self._relation, limit)

    def rollback(self, version: Version, *, allow_schema_change: bool = False) -> int:
        """Give the table the rows it had at a snapshot, in one new commit, whose snapshot is returned.

        Name, comments, tags and partitioning stay as they are. It can be undone like any other commit: roll back to
        the snapshot before it.

        Args:
            version: the snapshot to go back to.
            allow_schema_change: if the columns have changed since, make the table anew with those it had.

        Raises:
            SchemaMismatch: the columns have changed since; names what changed.
            TableNotFound: the table was not there then.
            LakeReadOnly: the lake is read-only or pinned.
        """
        self._check_present("rolled back")
        return self._catalog.rollback(self._relation, version, allow_schema_change=allow_schema_change)

    @property
    def tags(self) -> dict[str, str]:
        """The tags of the table by key; they are no part of any snapshot."""
        return self._catalog.tags.of_table(self._relation.id)

    def set_tag(self, key: str, value: str | None) -> None:
        """Tag the table, such as `set_tag("owner", "sales")`; None removes the tag.

        Raises:
            LakeReadOnly: the lake is read-only or pinned.
        """
        self._refreshed()
        self._catalog.tags.set_of_table(self._relation.id, key, value)

    def set_comment(self, text: str | None, *, column: str | None = None) -> int:
        """Describe the table, or one of its columns; None removes the description.

        Returns:
            The snapshot that was made.
        """
        value = "NULL" if text is None else literal(text)
        if column is None:
            return self._ddl(lambda table: f"COMMENT ON {self.kind.upper()} {table} IS {value}", "describe")
        name = self._column(column)
        return self._ddl(lambda table: f"COMMENT ON COLUMN {table}.{quote(name)} IS {value}", "describe", f".{name}")

    def add_column(self, name: str, type: str, *, default: str | int | float | bool | None = None) -> int:
        """Add a column; rows that are there already read `default`.

        Args:
            name: the new column.
            type: a DuckDB type, such as `DOUBLE` or `VARCHAR[]`.
            default: value of the column where none was given.

        Returns:
            The snapshot that was made.
        """
        if not isinstance(default, str | int | float | None):
            raise LakehouseError(
                f"a default cannot be a {default.__class__.__name__}", hint="text, number or truth value"
            )
        checked = self._catalog.check_type(type)
        value = literal(default) if isinstance(default, str) else str(default)
        clause = "" if default is None else f" DEFAULT {value}"
        return self._alter(f"ADD COLUMN {quote(name)} {checked}{clause}", "add", f".{name}")

    def rename_column(self, old: str, new: str) -> int:
        """Rename a column; returns the snapshot that was made."""
        name = self._column(old)
        return self._alter(f"RENAME COLUMN {quote(name)} TO {quote(new)}", "rename", f".{name} to {new}")

    def drop_column(self, name: str) -> int:
        """Drop a column; older snapshots keep it. Returns the snapshot that was made."""
        name = self._column(name)
        return self._alter(f"DROP COLUMN {quote(name)}", "drop", f".{name}")

    def __repr__(self) -> str:
        at = "" if self._snapshot is None else f" at snapshot {self._snapshot}"
        return f"<{self.kind} {self.full_name}{at}>"

    def _column(self, name: str) -> str:
        known = [column.name for column in self.schema]
        for column in known:
            if column.lower() == name.lower():
                return column
        raise ColumnNotFound(
            f"{self.full_name} has no column '{name}'", hint=nearest(name, known) or f"it has {', '.join(known)}"
        )

    def _alter(self, change: str, verb: str, what: str) -> int:
        return self._ddl(lambda table: f"ALTER TABLE {table} {change}", verb, what, columns=True)

    def _ddl(self, sql: Callable[[str], str], verb: str, what: str = "", *, columns: bool = False) -> int:
        """Run what `sql` makes of the table's name, which only the writer lock keeps from changing."""
        self._check_present("changed")
        with self._catalog.writer.transaction("ddl", verb, join=True) as transaction:
            relation = self._refreshed()
            if columns and relation.id in transaction.altered:
                raise QueryError(
                    f"the columns of {self.full_name} were changed in this transaction already",
                    hint="DuckLake takes one such change per table and transaction; make the next in one of its own",
                )
            statement = sql(quote(ALIAS, relation.schema, relation.name))
            transaction.message = f"{verb} {shown(relation.schema, relation.name)}{what}"
            transaction.note["sql"] = statement
            transaction.execute(statement)
            if columns:
                transaction.altered.add(relation.id)
                inlining.settle(transaction, relation.schema, relation.name)
        return transaction.committed

    def _check_present(self, what: str) -> None:
        if self._snapshot is not None:
            raise LakehouseError(f"{self!r} is a past state and cannot be {what}", hint="use the table itself")

    def _refreshed(self) -> Relation:
        return self._catalog.find_by_id(self._relation, self.version)
