"""The state file of a lake: small facts that are not table data, such as tags and saved queries.

It is a SQLite database of its own beside the catalog (never the catalog itself, which only DuckDB's SQLite may
open), read and written by any number of processes. A written fact is on the disk when `write` ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.errors import DiskFull, LakeUnusable, LockTimeout

if TYPE_CHECKING:
    import sqlite3

FILE_NAME = "state.sqlite"
SCHEMA = """
CREATE TABLE IF NOT EXISTS snapshot_tag (name TEXT PRIMARY KEY, snapshot INTEGER NOT NULL, time TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS table_tag (table_id INTEGER, key TEXT, value TEXT NOT NULL, PRIMARY KEY (table_id, key));
CREATE TABLE IF NOT EXISTS column_type (table_id INTEGER, name TEXT, type TEXT NOT NULL, PRIMARY KEY (table_id, name));
CREATE TABLE IF NOT EXISTS saved_query (name TEXT PRIMARY KEY, sql TEXT NOT NULL, time TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS saved_query_use (name TEXT, position INTEGER, uses TEXT NOT NULL,
    PRIMARY KEY (name, position));
CREATE TABLE IF NOT EXISTS checksum (path TEXT PRIMARY KEY, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
    time TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS note (snapshot INTEGER PRIMARY KEY, time TEXT, author TEXT, message TEXT, note TEXT,
    changes TEXT)
"""
"""What the state file of a lake holds: names of snapshots, tags of tables and the types that were fixed for their
columns (by DuckLake's table id), saved queries, the hashes of data files, and the notes of commits whose snapshots
have expired."""

_PATIENCE = 30.0  # seconds


class State:
    """One SQLite file whose tables are made when something is first written.

    Args:
        path: the file; its folder must be there.
        schema: `CREATE TABLE IF NOT EXISTS …` statements, one after the other.
        synchronous: SQLite's word for how surely a write is on the disk; less than `FULL` is for what may be lost.
        patience: seconds to wait for another process's write, which takes milliseconds.
    """

    def __init__(self, path: Path, schema: str, *, synchronous: str = "FULL", patience: float = _PATIENCE) -> None:
        self.path = path
        self._schema = schema
        self._synchronous = synchronous
        self._patience = patience

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query; none as long as nothing was ever written.

        Raises:
            LakeUnusable: the file is damaged.
        """
        if not self.path.exists():
            return []
        with self._explained(), closing(self._connect()) as connection:
            return connection.execute(sql, parameters).fetchall()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that no other writer comes between; an exception inside undoes it.

        Raises:
            LakeUnusable: the file is damaged or cannot be made.
            LockTimeout: another process writes for too long.
            DiskFull: there is no space.
        """
        with self._explained(), closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def _connect(self) -> sqlite3.Connection:
        import sqlite3  # not needed by who only queries

        connection = sqlite3.connect(self.path, timeout=self._patience, isolation_level=None)
        try:
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            for statement in self._schema.split(";"):
                connection.execute(statement)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        import sqlite3

        try:
            yield
        except sqlite3.OperationalError as error:
            text = str(error)
            if "full" in text or "disk I/O" in text:
                raise DiskFull(f"{self.path} could not be written: {text}; nothing was changed") from None
            if "locked" in text or "busy" in text:
                raise LockTimeout(
                    f"{self.path.name} was busy for {self._patience:g} s", hint="another process is writing to it"
                ) from None
            raise LakeUnusable(f"{self.path} cannot be used: {text}", hint="lakehouse doctor looks at it") from None
        except sqlite3.DatabaseError as error:
            raise LakeUnusable(f"{self.path} is damaged: {error}", hint="restore it from a backup") from None
