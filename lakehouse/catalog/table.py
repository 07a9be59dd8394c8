"""One table or view: what it holds, how it changed, and the changes that DDL makes to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakehouse.catalog.attach import ALIAS
from lakehouse.catalog.metadata import Relation, Snapshot, Version
from lakehouse.catalog.names import literal, nearest, quote, shown
from lakehouse.errors import ColumnNotFound, LakehouseError, QueryError

if TYPE_CHECKING:
    from lakehouse.catalog.catalog import Catalog


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table or view."""

    name: str
    type: str
    """The DuckDB type, such as `BIGINT` or `DECIMAL(10,2)`."""
    nullable: bool
    comment: str | None


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
        """The same table as it was at a snapshot id or a time.

        Raises:
            SnapshotNotFound: there is no such snapshot.
            TableNotFound: the table was not there then.
        """
        snapshot = self._catalog.metadata.resolve(version)
        relation = self._catalog.find_by_id(self._relation, snapshot)
        return Table(self._catalog, relation, snapshot)

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
        if self._snapshot is not None:
            raise LakehouseError(f"{self!r} is a past state and cannot be changed", hint="use the table itself")
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
        return transaction.committed

    def _refreshed(self) -> Relation:
        return self._catalog.find_by_id(self._relation, self.version)
