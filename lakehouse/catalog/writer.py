"""Write transactions: the writer lock from BEGIN to COMMIT, a note on every commit, files on the disk first."""

from __future__ import annotations

import getpass
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from lakehouse.catalog import faults, inlining
from lakehouse.catalog.attach import ALIAS, Database
from lakehouse.catalog.flush import Flusher, flushing
from lakehouse.catalog.metadata import Metadata
from lakehouse.catalog.names import literal
from lakehouse.catalog.origin import origin
from lakehouse.config import CatalogSettings
from lakehouse.errors import LakeReadOnly, QueryError

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
    """The snapshot of the commit; of a part of a larger transaction: the one that transaction began from."""
    open: bool = False
    """Whether the lock is held and DuckDB may have a transaction under way."""
    altered: set[int] = field(default_factory=set)
    """Ids of the tables whose columns were changed in it."""
    retyped: bool = False
    """Whether it has changed the type of a column."""
    files_only: set[tuple[str, str]] = field(default_factory=set)
    """Schemas and names of the tables whose rows the catalog must not keep; see `inlining.write_files`."""
    lake_in_files: bool = False
    """Whether the whole lake's option was changed for them."""

    @property
    def committed(self) -> int:
        """`snapshot`, once it is known; asked for before, that is a programming error."""
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
        self._flusher = Flusher(database.data)
        self.lock = metadata.lock
        self.asked: dict[str, str] = {}
        """Who asked for what is written, for the note of every commit, where this process writes for others."""

    @property
    def active(self) -> Transaction | None:
        """The transaction that the calling thread has open, if any."""
        transaction: Transaction | None = getattr(self._local, "transaction", None)
        return transaction if transaction is not None and transaction.open else None

    @contextmanager
    def transaction(self, operation: str, message: str, *, join: bool = False, **note: Any) -> Iterator[Transaction]:
        """Everything executed inside is committed as one snapshot, or nothing is.

        Args:
            operation: one word for what is done (`ingest`, `sql`, `create_schema` …), kept in the note.
            message: the commit message, one line.
            join: be a part of the transaction that this thread has open, if any: it commits, or does not.
                The part's own note is then kept under `parts` of that transaction's. Only for a single
                statement, which is done whole or not at all: a larger part could not be undone by itself.
            note: further JSON-able facts for the commit's note.

        Raises:
            LakeReadOnly: the lake is read-only or pinned.
            LockTimeout: another writer held the lock too long.
            DiskFull: there is no space for the data or the catalog.
        """
        if self._database.read_only:
            pinned = self._database.version
            what = "open for reading only" if pinned is None else f"pinned to snapshot {pinned}"
            raise LakeReadOnly(f"the lake {self._database.folder} is {what}")
        connection = self._database.connection()
        if (outer := self.active) is not None:
            if not join:
                raise QueryError("a transaction is open in this thread already", hint="write inside that one")
            part = Transaction(connection, {"operation": operation, **note}, message, 0.0, altered=outer.altered)
            part.files_only = outer.files_only
            yield part
            outer.note.setdefault("parts", []).append(part.note)
            part.snapshot = self._metadata.current()
            return
        transaction = Transaction(connection, {"operation": operation, **note, **_origin(), **self.asked}, message, 0.0)
        self._local.transaction = transaction
        with self.lock.hold(self._settings.lock_timeout) as transaction.waited:
            try:
                try:
                    started = time.time()
                    self._finish(connection)
                    transaction.open = True
                    transaction.execute("BEGIN TRANSACTION")
                    yield transaction
                    self._stamp(transaction)
                    self._sync(started)
                    inlining.announce(transaction, self._database.folder)
                    transaction.execute("COMMIT")
                    transaction.snapshot = self._metadata.committed()
                finally:
                    _end(transaction)
            finally:
                _end(transaction)  # Ctrl-C may have come in the way of the first
                inlining.narrow(transaction, self._database.folder)

    @contextmanager
    def plain(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The lock without a transaction, for options of the catalog: they are no part of any snapshot."""
        with self.lock.hold(self._settings.lock_timeout), faults.translated():
            connection = self._database.connection()
            self._finish(connection)
            yield connection

    def _finish(self, connection: duckdb.DuckDBPyConnection) -> None:
        if not self._database.read_only:  # as a backup may be
            with faults.translated():
                inlining.finish(connection, self._database.folder)

    def _stamp(self, transaction: Transaction) -> None:
        author = self._settings.author or _login()
        note = msgspec.json.encode(transaction.note, enc_hook=str).decode()
        # Literals, not parameters: DuckDB imports pandas to bind the first one.
        transaction.execute(
            f"CALL {ALIAS}.set_commit_message({literal(author)}, {literal(transaction.message)},"
            f" extra_info => {literal(note)})"
        )

    def flushing(self, file: Path) -> AbstractContextManager[None]:
        """While a data file is written: flush what is there already. The commit flushes the rest.

        Raises:
            DiskFull: a flush failed.
        """
        return flushing(file) if self._settings.sync else nullcontext()

    def _sync(self, started: float) -> None:
        """Flush the data files of this transaction."""
        if self._settings.sync:
            self._flusher.flush(started - _CLOCK_SLACK)


def _end(transaction: Transaction) -> None:
    """Undo what is not committed; nobody may use the connection before that, and a second call does nothing."""
    if not transaction.open:
        return
    try:
        transaction.connection.execute("ROLLBACK")
    except duckdb.Error:
        pass  # COMMIT has ended the transaction already, done or failed
    transaction.open = False


def _origin() -> dict[str, str]:
    """The notebook or script that writes, for the note of its commits."""
    found = origin()
    return {found.kind: found.name} if found.name is not None else {}


@cache
def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
