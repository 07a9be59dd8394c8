"""Reading a snapshot straight from its Parquet files, where that gives exactly what DuckLake would.

DuckLake's own scan costs about 15 % over a plain Parquet scan on TPC-H. For a table whose rows at a
snapshot are exactly the rows of its data files (nothing deleted, nothing kept in the catalog, no
column changed since, only types that Parquet keeps) the file list is read by `read_parquet`
instead. The views stand in an in-memory database per snapshot, so that names need no rewriting.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field

import duckdb

from lakehouse.catalog import faults
from lakehouse.catalog.attach import Database
from lakehouse.catalog.metadata import LANDED_PREFIX, Metadata, Relation, visible
from lakehouse.catalog.names import exactly, literal, quote
from lakehouse.query.statements import Shape

_EXACT = {
    "boolean": "BOOLEAN",
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint8": "UTINYINT",
    "uint16": "USMALLINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
    "float32": "FLOAT",
    "float64": "DOUBLE",
    "varchar": "VARCHAR",
    "blob": "BLOB",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
}
"""DuckLake's names of the types that Parquet holds exactly, and DuckDB's."""
_FILE_LIMIT = 64  # with more files DuckLake's pruning by statistics is worth its price
_VIRTUAL = frozenset({"rowid", "snapshot_id", "filename", "file_row_number", "file_index"})


@dataclass
class Lease:
    """The right to read one snapshot directly; `release()` it when the last row is out."""

    scan: DirectScan
    snapshot: int

    def enter(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Make unqualified names on a connection mean the files of the snapshot."""
        connection.execute(f"USE {_database(self.snapshot)}")

    def release(self) -> None:
        """Give the right back."""
        self.scan.release(self.snapshot)


@dataclass
class _Views:
    made: dict[int, bool] = field(default_factory=dict)
    schemas: set[str] = field(default_factory=lambda: {"main"})
    users: int = 0


class DirectScan:
    """Keeps the views of the snapshots that are being read, and drops the others."""

    def __init__(self, database: Database, metadata: Metadata) -> None:
        self._database = database
        self._metadata = metadata
        self._lock = threading.Lock()
        self._snapshots: dict[int, _Views] = {}

    def lease(self, shape: Shape, relations: list[Relation], snapshot: int) -> Lease | None:
        """The right to run a query directly, or None when some table of it must go through DuckLake."""
        if shape.columns & _VIRTUAL or any(catalog for catalog, _, _ in shape.tables):
            return None
        with self._lock, faults.translated():
            self._drop_idle(snapshot)
            if snapshot not in self._snapshots:
                self._database.root.execute(f"ATTACH ':memory:' AS {_database(snapshot)}")
                self._snapshots[snapshot] = _Views()
            views = self._snapshots[snapshot]
            if not all(self._view(views, relation, snapshot) for relation in relations):
                return None
            views.users += 1
        return Lease(self, snapshot)

    def release(self, snapshot: int) -> None:
        """One user of a snapshot less."""
        with self._lock:
            self._snapshots[snapshot].users -= 1

    def _drop_idle(self, keep: int) -> None:
        for snapshot, views in list(self._snapshots.items()):
            if views.users == 0 and snapshot != keep:
                self._database.root.execute(f"DETACH {_database(snapshot)}")
                del self._snapshots[snapshot]

    def _view(self, views: _Views, relation: Relation, snapshot: int) -> bool:
        if relation.id not in views.made:
            views.made[relation.id] = relation.kind == "table" and self._make(views, relation, snapshot)
        return views.made[relation.id]

    def _make(self, views: _Views, relation: Relation, snapshot: int) -> bool:
        files = self._files(relation, snapshot)
        if files is None:
            return False
        root, database = self._database.root, _database(snapshot)
        if relation.schema not in views.schemas:
            root.execute(f"CREATE SCHEMA {quote(database, relation.schema)}")
            views.schemas.add(relation.schema)
        names = ", ".join(literal(exactly(file)) for file in files)
        root.execute(
            f"CREATE VIEW {quote(database, relation.schema, relation.name)} AS"
            f" FROM read_parquet([{names}], hive_partitioning = false)"
        )
        return True

    def _files(self, relation: Relation, snapshot: int) -> list[str] | None:
        """The data files that are exactly the table, or None."""
        table, metadata = relation.id, self._metadata
        columns = metadata.columns(snapshot, table)
        wanted = [(column[2], _EXACT.get(column[3]) or _decimal(column[3])) for column in columns]
        if any(kind is None for _, kind in wanted):
            return None
        if table in metadata.tables_with_deletes() or metadata.inlined_totals(snapshot, [table]).get(table):
            return None
        rows = metadata.rows(
            "sii",
            "SELECT path, path_is_relative, begin_snapshot FROM ducklake_data_file"
            f" WHERE table_id = {table} AND {visible(snapshot)} AND encryption_key IS NULL"
            f" AND (mapping_id IS NULL OR path LIKE '{LANDED_PREFIX}%')"
            f" AND partial_max IS NULL AND file_format = 'parquet' ORDER BY file_order, data_file_id",
        )
        total = metadata.rows(
            "i", f"SELECT count(*) FROM ducklake_data_file WHERE table_id = {table} AND {visible(snapshot)}"
        )[0][0]
        changed = metadata.rows(
            "i",
            f"SELECT max(max(begin_snapshot), coalesce(max(end_snapshot), 0)) FROM ducklake_column"
            f" WHERE table_id = {table} AND begin_snapshot <= {snapshot}",
        )[0][0]
        if not rows or len(rows) != total or len(rows) > _FILE_LIMIT or any(begin < changed for *_, begin in rows):
            return None
        folder = self._database.data / (relation.folder or "")
        files = [str(folder / path) if relative else path for path, relative, _ in rows]
        # A file of the very commit that changed the columns may be from before or after the change.
        doubtful = {file for file, (*_, begin) in zip(files, rows, strict=True) if begin == changed}
        if any(self._columns(file) != wanted for file in {files[0], *doubtful}):
            return None
        return files

    def _columns(self, file: str) -> list[tuple[str, str]]:
        described = self._database.root.execute(f"DESCRIBE FROM read_parquet([{literal(exactly(file))}])").fetchall()
        return [(row[0], row[1]) for row in described]


def _decimal(kind: str) -> str | None:
    return kind.upper() if re.match(r"^decimal\(\d+,\d+\)$", kind) else None


def _database(snapshot: int) -> str:
    return f"files_at_{snapshot}"
