"""What the DuckLake catalog says, read from its own tables and never written.

The tables are those of the DuckLake 1.0 specification (https://ducklake.select/docs/stable/specification/tables/overview).
A row is visible at snapshot S when `begin_snapshot <= S < end_snapshot` (no end: still there).
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import duckdb

from lakehouse.catalog import faults
from lakehouse.catalog.attach import METADATA, Database
from lakehouse.catalog.copying import marks
from lakehouse.catalog.lock import LOCK_FILE, WriterLock
from lakehouse.catalog.names import literal
from lakehouse.errors import LakehouseError, SnapshotNotFound

LANDED_PREFIX = "lakehouse-"
"""How the data files are called that ingest wrote itself, with exactly the columns of the table."""

_Token = tuple[tuple[int, int, int], ...]

Version = int | str | date | datetime
"""A snapshot id, or a moment: the newest snapshot not younger than it."""

_RACY = 0.02  # seconds in which two commits may leave the same file times
_LOG_SIZE = 4_000_000  # bytes of write-ahead log, about where SQLite wants to start it over
_LOG_INTERVAL = 5.0  # seconds
_UNION_LIMIT = 400  # SQLite joins at most 500 parts in one compound SELECT


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One commit of the lake."""

    id: int
    time: datetime
    author: str | None
    message: str | None
    changes: str
    note: str | None
    """JSON: operation, source or SQL, where it ran; None when another program made the commit."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view at one snapshot."""

    id: int
    schema: str
    name: str
    kind: str
    """`table` or `view`."""
    comment: str | None
    folder: str | None
    """Where its files are, relative to the data folder; None for a view."""
    sql: str | None
    """The query of a view; None for a table."""


class _Reading:
    """One open read transaction on the catalog: everything read in it is of one moment."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, token: _Token, *, settled: bool) -> None:
        self.token = token
        """Times and sizes of the catalog's files just before it began."""
        self.settled = settled
        """Whether every change that those files show was there to be read."""
        self._cursor = cursor
        cursor.execute("BEGIN TRANSACTION")
        self.newest = int(self.rows("SELECT max(snapshot_id) FROM ducklake_snapshot")[0][0])

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        # Literals, not parameters: DuckDB imports pandas to bind the first one.
        return self._cursor.execute(f"FROM sqlite_query({literal(METADATA)}, {literal(sql)})").fetchall()

    def end(self) -> None:
        self._cursor.close()


class Metadata:
    """Reads of the catalog through the database's own connection to it.

    One read transaction on the catalog is always open, and is exchanged for a new one when
    something has been committed. It makes a read ten times cheaper than opening the file each time,
    and it keeps this process from ever being the last to close the file: SQLite then locks everybody
    out to clear its write-ahead log, and who comes at that moment sleeps for a whole second.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.lock = WriterLock(database.folder / LOCK_FILE)
        self._lock = threading.RLock()
        self._reading: _Reading | None = None
        self._relations: tuple[int, dict[tuple[str, str], Relation], dict[int, Relation]] | None = None
        self._macros: tuple[int, frozenset[str]] | None = None
        self._closed = threading.Event()
        with self._lock, faults.translated():
            self._renew()
        database.settled()
        arguments = (weakref.ref(self), self._closed)
        threading.Thread(target=_keep_log_small, args=arguments, name="lakehouse-log", daemon=True).start()

    def close(self) -> None:
        """End the open read."""
        self._closed.set()
        with self._lock:
            if self._reading is not None:
                self._reading.end()
            self._reading = None

    def rows(self, kinds: str, sql: str) -> list[tuple[Any, ...]]:
        """The rows of one query in the catalog's own dialect, as of the last `current()` at least.

        Args:
            kinds: one letter a column: `i` whole number, `s` text. SQLite types values, not columns,
                so DuckDB may hand over a number as text.
            sql: the query.
        """
        self._database.check_open()
        with self._lock, faults.translated():
            try:
                found = (self._reading or self._renew()).rows(sql)
            except BaseException:
                self._renew()  # an error ends a transaction
                raise
        return [
            tuple(int(v) if k == "i" and v is not None else v for k, v in zip(kinds, row, strict=True)) for row in found
        ]

    def current(self) -> int:
        """The id of the newest snapshot, or of the pinned one.

        Asking costs two file stats while nothing has been committed since the last call.
        """
        if self._database.version is not None:
            return self._database.version
        self._database.check_open()
        with self._lock, faults.translated():
            return self._fresh().newest

    def committed(self) -> int:
        """The id of the newest snapshot, for who has just committed it and still holds the writer lock."""
        with self._lock, faults.translated():
            return self._renew().newest

    def _fresh(self) -> _Reading:
        """The open read, exchanged first if something may have been committed since it began."""
        if self._reading is None or not self._reading.settled or self._reading.token != self._token():
            return self._renew()
        return self._reading

    def _renew(self) -> _Reading:
        """Begin a new read, then end the old one: there is never a moment without any.

        SQLite writes its log and flushes it before the commit can be seen: who reads in between sees the new time of
        the file and the old rows. So a read that begins while somebody else writes is not settled.
        """
        old, token = self._reading, self._token()
        age = time.time() - max((entry[0] for entry in token), default=0) / 1e9
        settled = age > _RACY and not self.lock.busy()  # in this order: the lock is freed after the commit
        self._reading = _Reading(self._database.cursor(schema=False), token, settled=settled)
        if old is not None:
            old.end()
        return self._reading

    def release_log(self) -> None:
        """Exchange the open read if the write-ahead log is large: an old read keeps it from being reused."""
        if os.stat(f"{self._database.catalog}-wal").st_size > _LOG_SIZE:
            with self._lock, faults.translated():
                if not self._closed.is_set():
                    self._renew()

    def _token(self) -> _Token:
        return marks(self._database.catalog)

    def resolve(self, version: Version) -> int:
        """The snapshot id that a version means.

        Raises:
            SnapshotNotFound: no snapshot has that id, or all are younger than that time.
        """
        self.current()  # another process may have made it just now
        if not isinstance(version, int | str | date):
            raise SnapshotNotFound(f"{version!r} is neither a snapshot id nor a time", hint="such as 12 or 2026-01-31")
        if isinstance(version, str) and version.strip().isdigit():
            version = int(version)
        if isinstance(version, int):
            if self.rows("i", f"SELECT 1 FROM ducklake_snapshot WHERE snapshot_id = {version}"):
                return version
            first, last = self.rows("ii", "SELECT min(snapshot_id), max(snapshot_id) FROM ducklake_snapshot")[0]
            raise SnapshotNotFound(
                f"there is no snapshot {version}", hint=f"snapshots go from {first} to {last}: lakehouse snapshots"
            )
        moment = _moment(version)
        best = [s for s in self._times() if s[1] <= moment]
        if not best:
            raise SnapshotNotFound(
                f"there is no snapshot as old as {moment.isoformat()}", hint="lakehouse snapshots lists them"
            )
        return max(best)[0]

    def _times(self) -> list[tuple[int, datetime]]:
        rows = self.rows("is", "SELECT snapshot_id, snapshot_time FROM ducklake_snapshot")
        return [(row[0], _parse_time(row[1])) for row in rows]

    def snapshots(self, where: str = "true", limit: int | None = None) -> list[Snapshot]:
        """Snapshots, newest first, that satisfy `where` (in terms of `s.` snapshot and `c.` its changes)."""
        self.current()
        if self._database.version is not None:
            where = f"({where}) AND s.snapshot_id <= {self._database.version}"
        rows = self.rows(
            "isssss",
            "SELECT s.snapshot_id, s.snapshot_time, c.author, c.commit_message, c.changes_made, c.commit_extra_info "
            "FROM ducklake_snapshot s LEFT JOIN ducklake_snapshot_changes c USING (snapshot_id) "
            f"WHERE {where} ORDER BY s.snapshot_id DESC" + (f" LIMIT {limit}" if limit is not None else ""),
        )
        return [Snapshot(r[0], _parse_time(r[1]), r[2], r[3], r[4] or "", r[5]) for r in rows]

    def schemas(self, snapshot: int) -> list[str]:
        """Names of the schemas at a snapshot, sorted."""
        rows = self.rows("s", f"SELECT schema_name FROM ducklake_schema WHERE {visible(snapshot)} ORDER BY 1")
        return [row[0] for row in rows]

    def relations(self, snapshot: int) -> dict[tuple[str, str], Relation]:
        """Tables and views at a snapshot by lower-cased schema and name; kept for the snapshot last asked for."""
        return self._at(snapshot)[0]

    def relation(self, id: int, snapshot: int) -> Relation | None:
        """The table or view of that id at a snapshot."""
        return self._at(snapshot)[1].get(id)

    def _at(self, snapshot: int) -> tuple[dict[tuple[str, str], Relation], dict[int, Relation]]:
        kept = self._relations  # read once: another thread may put another snapshot's there
        if kept is not None and kept[0] == snapshot:
            return kept[1:]
        rows = self.rows(
            "issssss",
            "SELECT o.id, s.schema_name, o.name, o.kind, g.value, s.path || o.path, o.sql FROM ("
            f" SELECT table_id id, schema_id, table_name name, 'table' kind, path, NULL sql"
            f" FROM ducklake_table WHERE {visible(snapshot)}"
            f" UNION ALL SELECT view_id, schema_id, view_name, 'view', NULL, sql"
            f" FROM ducklake_view WHERE {visible(snapshot)}) o"
            f" JOIN ducklake_schema s ON s.schema_id = o.schema_id AND {visible(snapshot, 's')}"
            f" LEFT JOIN ducklake_tag g ON g.object_id = o.id AND g.key = 'comment' AND {visible(snapshot, 'g')}"
            " ORDER BY s.schema_name, o.name",
        )
        found = [Relation(*row) for row in rows]
        by_name = {(one.schema.lower(), one.name.lower()): one for one in found}
        by_id = {one.id: one for one in found}
        self._relations = (snapshot, by_name, by_id)
        return by_name, by_id

    def columns(self, snapshot: int, table: int | None = None) -> list[tuple[Any, ...]]:
        """Top-level columns at a snapshot: (table id, column id, name, DuckLake type, nullable, comment, begin)."""
        only = f" AND c.table_id = {table}" if table is not None else ""
        return self.rows(
            "iissisi",
            "SELECT c.table_id, c.column_id, c.column_name, c.column_type, c.nulls_allowed, g.value, c.begin_snapshot"
            " FROM ducklake_column c LEFT JOIN ducklake_column_tag g ON g.table_id = c.table_id"
            f" AND g.column_id = c.column_id AND g.key = 'comment' AND {visible(snapshot, 'g')}"
            f" WHERE c.parent_column IS NULL AND {visible(snapshot, 'c')}{only} ORDER BY c.table_id, c.column_order",
        )

    def column_names(self, snapshot: int) -> dict[int, list[str]]:
        """Names of the top-level columns of every table at a snapshot, by table id."""
        found: dict[int, list[str]] = {}
        for table, name in self.rows(
            "is",
            "SELECT table_id, column_name FROM ducklake_column"
            f" WHERE parent_column IS NULL AND {visible(snapshot)} ORDER BY table_id, column_order",
        ):
            found.setdefault(table, []).append(name)
        return found

    def file_totals(self, snapshot: int) -> dict[int, tuple[int, int]]:
        """Rows and bytes in the data files of every table, by table id; deleted rows still counted."""
        rows = self.rows(
            "iii",
            "SELECT table_id, sum(record_count), sum(file_size_bytes) FROM ducklake_data_file"
            f" WHERE {visible(snapshot)} GROUP BY table_id",
        )
        return {row[0]: (row[1], row[2]) for row in rows}

    def has_file(self, name: str) -> bool:
        """Whether any snapshot has a data file of that name."""
        return bool(self.rows("i", f"SELECT 1 FROM ducklake_data_file WHERE path LIKE {literal(f'%{name}')} LIMIT 1"))

    def inlined_totals(self, snapshot: int, tables: list[int]) -> dict[int, int]:
        """How many rows of these tables stand in the catalog itself instead of in files, by table id."""
        wanted = set(tables)
        parts = [
            f"SELECT {table} id, count(*) n FROM {_name(name)} WHERE {visible(snapshot)}"
            for table, name in self.rows("is", "SELECT table_id, table_name FROM ducklake_inlined_data_tables")
            if table in wanted
        ]
        totals: dict[int, int] = {}
        for start in range(0, len(parts), _UNION_LIMIT):
            for table, count in self.rows("ii", " UNION ALL ".join(parts[start : start + _UNION_LIMIT])):
                totals[table] = totals.get(table, 0) + count
        return totals

    def macros(self, snapshot: int) -> frozenset[str]:
        """Lower-cased names of the lake's own macros; kept for the snapshot last asked for."""
        kept = self._macros  # read once, as in `_at`
        if kept is None or kept[0] != snapshot:
            rows = self.rows("s", f"SELECT macro_name FROM ducklake_macro WHERE {visible(snapshot)}")
            kept = self._macros = (snapshot, frozenset(row[0].lower() for row in rows))
        return kept[1]

    def macro(self, name: str, snapshot: int) -> tuple[str, ...]:
        """The queries that a macro of the lake stands for, one of a value as `SELECT …`; none if there is no such."""
        rows = self.rows(
            "ss",
            "SELECT i.sql, i.type FROM ducklake_macro m JOIN ducklake_macro_impl i ON i.macro_id = m.macro_id"
            f" WHERE lower(m.macro_name) = {literal(name.lower())} AND {visible(snapshot, 'm')}",
        )
        return tuple(sql if kind == "table" else f"SELECT {sql}" for sql, kind in rows)

    def placed_by_ducklake(self, table: int) -> bool:
        """Whether rows of a table must be placed or checked by DuckLake: partitions, sort order, NOT NULL."""
        found = self.rows(
            "i",
            f"SELECT EXISTS (SELECT 1 FROM ducklake_partition_info WHERE table_id = {table} AND end_snapshot IS NULL)"
            f" OR EXISTS (SELECT 1 FROM ducklake_sort_info WHERE table_id = {table} AND end_snapshot IS NULL)"
            f" OR EXISTS (SELECT 1 FROM ducklake_column WHERE table_id = {table} AND end_snapshot IS NULL"
            " AND NOT nulls_allowed)",
        )
        return bool(found[0][0])

    def tables_with_deletes(self) -> set[int]:
        """Ids of the tables from whose files a row was ever deleted."""
        prefix = "ducklake_inlined_delete_"
        names = self.rows("s", f"SELECT name FROM sqlite_master WHERE name LIKE '{prefix}%'")
        found = {row[0] for row in self.rows("i", "SELECT DISTINCT table_id FROM ducklake_delete_file")}
        return found | {int(name.removeprefix(prefix)) for (name,) in names if name.removeprefix(prefix).isdigit()}

    def tables_with_later_rows(self, snapshot: int) -> set[int]:
        """Ids of the tables whose files, merged since, also hold rows that came after a snapshot."""
        rows = self.rows(
            "i",
            "SELECT DISTINCT table_id FROM ducklake_data_file"
            f" WHERE {visible(snapshot)} AND CAST(partial_max AS INTEGER) > {snapshot}",
        )
        return {row[0] for row in rows}


def _keep_log_small(metadata: weakref.ref[Metadata], closed: threading.Event) -> None:
    """What the thread of an otherwise idle process does; it ends with the metadata it looks after."""
    while not closed.wait(_LOG_INTERVAL):
        here = metadata()
        if here is None:
            return
        try:
            here.release_log()
        except (OSError, LakehouseError):
            pass  # the next round tries again, and a reader would be told
        del here


def visible(snapshot: int, alias: str | None = None) -> str:
    """The condition that a versioned catalog row is there at a snapshot."""
    at = f"{alias}." if alias else ""
    return f"({at}begin_snapshot <= {snapshot} AND ({at}end_snapshot IS NULL OR {at}end_snapshot > {snapshot}))"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _parse_time(text: Any) -> datetime:
    if isinstance(text, datetime):
        return text if text.tzinfo else text.replace(tzinfo=UTC)
    text = str(text)
    return datetime.fromisoformat(text if text[-3] != "+" else f"{text}:00")


def _moment(version: str | date | datetime) -> datetime:
    if isinstance(version, str):
        try:
            version = datetime.fromisoformat(version.strip())
        except ValueError:
            raise SnapshotNotFound(
                f"'{version}' is neither a snapshot id nor a time", hint="write 12 or 2026-01-31T18:00"
            ) from None
    elif not isinstance(version, datetime):
        version = datetime(version.year, version.month, version.day)
    try:
        return version.astimezone(UTC)
    except (OverflowError, ValueError):
        raise SnapshotNotFound(f"there is no snapshot as old as {version.isoformat()}") from None
