"""Write transactions: the writer lock from BEGIN to COMMIT, a note on every commit, files on the disk first."""

from __future__ import annotations

import getpass
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from lakehouse.catalog import faults
from lakehouse.catalog.attach import ALIAS, Database
from lakehouse.catalog.lock import WriterLock
from lakehouse.catalog.metadata import Metadata
from lakehouse.catalog.names import literal
from lakehouse.config import CatalogSettings
from lakehouse.errors import DiskFull, LakeReadOnly, QueryError

LOCK_FILE = "write.lock"
_CLOCK_SLACK = 2.0  # seconds a file system's clock may lag behind ours


@dataclass
class Transaction:
    """A write in progress; `snapshot` is known once it is committed."""

    connection: duckdb.DuckDBPyConnection
    note: dict[str, Any]
    message: str
    waited: float
    """Seconds spent waiting for the writer lock."""
    snapshot: int | None = None

    @property
    def committed(self) -> int:
        """The snapshot of the commit; asked for before it, that is a programming error."""
        assert self.snapshot is not None
        return self.snapshot

    def execute(self, sql: str, parameters: Any = None) -> duckdb.DuckDBPyConnection:
        """Run one statement inside the transaction.

        Raises:
            LakehouseError: what DuckDB said, in our words.
        """
        with faults.translated():
            return self.connection.execute(sql, parameters)


class Writer:
    """Opens write transactions on one lake, one at a time among all processes."""

    def __init__(self, database: Database, metadata: Metadata, settings: CatalogSettings) -> None:
        self._database = database
        self._metadata = metadata
        self._settings = settings
        self._local = threading.local()
        self.lock = WriterLock(database.folder / LOCK_FILE)

    @property
    def active(self) -> Transaction | None:
        """The transaction that the calling thread has open, if any."""
        return getattr(self._local, "transaction", None)

    @contextmanager
    def transaction(self, operation: str, message: str, **note: Any) -> Iterator[Transaction]:
        """Everything executed inside is committed as one snapshot, or nothing is.

        Args:
            operation: one word for what is done (`ingest`, `sql`, `create_schema` …), kept in the note.
            message: the commit message, one line.
            note: further JSON-able facts for the commit's note.

        Raises:
            LakeReadOnly: the lake is read-only or pinned.
            LockTimeout: another writer held the lock too long.
            DiskFull: there is no space for the data or the catalog.
        """
        if self._database.read_only:
            pinned = self._database.version
            what = "open for reading only" if pinned is None else f"pinned to snapshot {pinned}"
            raise LakeReadOnly(
                f"the lake {self._database.folder} is {what}", hint="open it without at= and read_only= to write"
            )
        if self.active is not None:
            raise QueryError("a transaction is open in this thread already", hint="write inside that one")
        with self.lock.hold(self._settings.lock_timeout) as waited:
            connection = self._database.connection()
            facts = {"operation": operation, **note, **_origin()}
            transaction = Transaction(connection, facts, message, waited)
            started = time.time()
            transaction.execute("BEGIN TRANSACTION")
            self._local.transaction = transaction
            try:
                yield transaction
                self._stamp(transaction)
                self._sync(started)
                transaction.execute("COMMIT")
            except BaseException:
                _rollback(connection)
                raise
            finally:
                self._local.transaction = None
            transaction.snapshot = self._metadata.current()

    @contextmanager
    def plain(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The lock without a transaction, for options of the catalog: they are no part of any snapshot."""
        with self.lock.hold(self._settings.lock_timeout), faults.translated():
            yield self._database.connection()

    def _stamp(self, transaction: Transaction) -> None:
        author = self._settings.author or _login()
        note = msgspec.json.encode(transaction.note, enc_hook=str).decode()
        # Literals, not parameters: DuckDB imports pandas to bind the first one.
        transaction.execute(
            f"CALL {ALIAS}.set_commit_message({literal(author)}, {literal(transaction.message)},"
            f" extra_info => {literal(note)})"
        )

    def _sync(self, started: float) -> None:
        """Flush the data files of this transaction: DuckDB does not, and the catalog will point at them."""
        if self._settings.sync:
            _sync_folder(self._database.data, started - _CLOCK_SLACK)


def _sync_folder(folder: Path, since: float) -> None:
    """Fsync every file and folder below `folder` that changed since a moment, deepest first."""
    try:
        entries = list(os.scandir(folder))
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _sync_folder(Path(entry.path), since)
        if os.stat(folder).st_mtime < since:
            return
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and entry.stat().st_mtime >= since:
                _sync_path(entry.path)
        _sync_path(folder)
    except FileNotFoundError:
        return  # nothing was ever written there
    except OSError as error:
        raise DiskFull(f"{folder} could not be flushed to the disk: {error.strerror}; nothing was committed") from None


def _sync_path(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rollback(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.execute("ROLLBACK")
    except duckdb.Error:
        pass  # a failed COMMIT has ended the transaction already


def _origin() -> dict[str, str]:
    """Where the write came from: the notebook or script, as far as the process knows."""
    if notebook := os.environ.get("JPY_SESSION_NAME"):
        return {"notebook": notebook}
    if sys.argv and sys.argv[0] not in ("", "-", "-c"):
        return {"script": sys.argv[0]}
    return {}


@cache
def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
