"""One DuckDB instance with the lake attached as `lake`: the only way to the tables and the catalog.

The catalog is a SQLite file that only DuckDB's own copy of SQLite may open: a second copy in one
process (Python's `sqlite3`) would drop the first one's file locks on close and could delete its
write-ahead log (https://sqlite.org/howtocorrupt.html, 2.2.1).
"""

from __future__ import annotations

import re
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from lakehouse.catalog import extensions, faults, foreign
from lakehouse.catalog.names import literal
from lakehouse.config import Settings, parse_size
from lakehouse.errors import DiskFull, LakeClosed, LakehouseError, LakeTooNew, LakeUnusable, SnapshotNotFound

ALIAS = "lake"
METADATA = f"__ducklake_metadata_{ALIAS}"
MARKER_FILE = "lake.json"
CATALOG_FILE = "catalog.sqlite"
DATA_FOLDER = "data"
_NO_LOG = ("unable to open database file", "attempt to write a readonly database")  # SQLite's words
_TRIES, _PAUSE = 5, 0.05
_VERSIONS = re.compile(r"catalog version is ([\d.]+).*?requires version ([\d.]+)", re.S)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.strip(".").split("."))


class Database:
    """The DuckDB instance of one opened lake.

    Args:
        folder: the lake folder.
        settings: the effective settings.
        read_only: attach without the right to write.
        version: pin the whole lake to this snapshot id; None: always the newest.
        strangers: nothing of DuckDB's own may be loaded or remembered: `seal()` follows.
        catalog: the file to read as its catalog, for one that is opened beside another; None: find it.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        *,
        read_only: bool = False,
        version: int | None = None,
        strangers: bool = False,
        catalog: Path | None = None,
    ) -> None:
        self.folder = folder
        self.data = folder / DATA_FOLDER
        self.read_only = read_only or version is not None
        self.version = version
        self.catalog = catalog or folder / CATALOG_FILE
        given = settings.storage.temp_directory
        self._place = None if foreign.writable(folder) else foreign.Place(given)
        own = folder if self._place is None else self._place.path
        self.temp = Path(given) if given and (own == folder or own.parent == Path(given)) else own / "tmp"
        self._first: duckdb.DuckDBPyConnection | None = None
        self.max_temp_size = parse_size(settings.storage.max_temp_size)
        self._local = threading.local()
        self._cursors: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()
        self._loading = threading.Lock()
        self._loaded = set(extensions.CORE)
        self._closed = False
        self._sealed = False
        self._idle: dict[bool, list[duckdb.DuckDBPyConnection]] = {True: [], False: []}
        self._check_catalog()
        config: dict[str, Any] = {
            "temp_directory": str(self.temp),
            "max_temp_directory_size": settings.storage.max_temp_size,
            "autoinstall_known_extensions": False,
        }
        if strangers:
            config |= {"autoload_known_extensions": False, "allow_persistent_secrets": False}
        if settings.query.memory_limit:
            config["memory_limit"] = settings.query.memory_limit
        if settings.query.threads:
            config["threads"] = settings.query.threads
        with suppress(OSError):  # DuckDB removes a temporary folder that it made, with what others keep in it
            self.temp.mkdir(parents=True, exist_ok=True)
        try:
            self.root = extensions.connect(config)
        except duckdb.Error as error:
            raise faults.translate(error) from error
        try:
            self._attach()
        except BaseException:
            self._close()
            raise

    def _attach(self) -> None:
        """Attach the lake; where nobody has it open and SQLite may not make its log, a copy of the catalog.

        What is committed by others does not come to the copy.
        """
        for _ in range(_TRIES):
            try:
                return self._attach_catalog()
            except LakeUnusable as error:
                if self._place is None or not any(text in error.message for text in _NO_LOG):
                    raise
                fault = error
            if (copy := foreign.copied(self.catalog, self._place)) is not None:
                self.catalog = copy
                return self._attach_catalog()
            time.sleep(_PAUSE)  # somebody is just opening the lake, or closing it
        raise fault

    def settled(self) -> None:
        """A read of the catalog is open that goes on: the first one, which kept its log, can end."""
        if self._first is not None:
            self._first.close()
            self._first = None

    def _attach_catalog(self) -> None:
        options = [
            f"DATA_PATH {literal(f'{self.data}/')}",
            "OVERRIDE_DATA_PATH true",  # the folder may have been moved since
            "META_JOURNAL_MODE 'WAL'",
            "META_BUSY_TIMEOUT 10000",
        ]
        if self.version is not None:
            options.append(f"SNAPSHOT_VERSION {self.version}")
        elif self.read_only:
            options.append("READ_ONLY")
        target = literal(f"ducklake:sqlite:{self.catalog}")
        try:
            self.root.execute(f"ATTACH {target} AS {ALIAS} ({', '.join(options)})")
        except duckdb.Error as error:
            raise self._unusable(error) from error
        if self._place is not None:
            self._keep_log()

    def _keep_log(self) -> None:
        """Begin a read: whoever closes the lake now leaves log and index, which cannot be made here."""
        first = self.root.cursor()
        try:
            first.execute("BEGIN TRANSACTION")
            first.execute(f"FROM sqlite_query({literal(METADATA)}, 'SELECT max(snapshot_id) FROM ducklake_snapshot')")
        except duckdb.Error as error:
            first.close()
            self.root.execute(f"DETACH {ALIAS}")
            raise self._unusable(error) from error
        self._first = first

    def _check_catalog(self) -> None:
        """An empty catalog would be taken for a new one, and every table would seem never to have been."""
        catalog = self.folder / CATALOG_FILE
        if (self.folder / MARKER_FILE).exists() and catalog.is_file() and catalog.stat().st_size == 0:
            raise LakeUnusable(
                f"the catalog of {self.folder} ({CATALOG_FILE}) is empty", hint="restore it from a backup"
            )

    def _unusable(self, error: duckdb.Error) -> LakehouseError:
        text = str(error)
        if self.version is not None and "No snapshot found at version" in text:
            return SnapshotNotFound(
                f"there is no snapshot {self.version} any more", hint="lakehouse snapshots lists them"
            )
        found = _VERSIONS.search(text)
        if (found and _number(found[1]) > _number(found[2])) or "Only DuckLake versions" in text:
            return LakeTooNew(
                f"the catalog of {self.folder} was written by a newer DuckLake: {text}",
                hint="upgrade lakehouse-workbench",
            )
        fault = faults.translate(error)
        if isinstance(fault, DiskFull):
            return fault
        return LakeUnusable(f"the catalog of {self.folder} cannot be opened: {fault.message}", hint=fault.hint)

    def load(self, *names: str) -> None:
        """Load further DuckDB extensions, each once."""
        with self._loading:
            missing = [name for name in names if name not in self._loaded]
            extensions.load(self.root, *missing)
            self._loaded.update(missing)

    def seal(self, *, settings: bool) -> None:
        """From now on DuckDB itself opens no file outside the data and temporary folders, and loads nothing.

        Args:
            settings: no setting can be changed either; connections that need some must have been made before.
        """
        folders = ", ".join(literal(str(folder)) for folder in (self.data, self.temp))
        self.root.execute("SET GLOBAL python_enable_replacements = false; SET GLOBAL arrow_lossless_conversion = false")
        self.root.execute(f"SET allowed_directories = [{folders}]; SET enable_external_access = false")
        if settings:
            self.root.execute("SET lock_configuration = true")
            self._sealed = True

    def connection(self) -> duckdb.DuckDBPyConnection:
        """The connection of the calling thread: temporary tables and session settings live in it."""
        connection: duckdb.DuckDBPyConnection | None = getattr(self._local, "connection", None)
        if connection is None or self._closed:
            connection = self._local.connection = self.cursor()
        return connection

    def check_open(self) -> None:
        """Raise LakeClosed after `close()`."""
        if self._closed:
            raise LakeClosed(f"the lake {self.folder} is closed", hint="open it again with lakehouse.open()")

    def cursor(self, *, schema: bool = True) -> duckdb.DuckDBPyConnection:
        """A fresh connection to the same instance.

        Args:
            schema: stand in the lake's default schema; going there begins a transaction of the lake.
        """
        self.check_open()
        cursor = self.root.cursor()
        if not self._sealed:
            # DataFrames become tables only when a door names them: never the engine's own local variables.
            cursor.execute("SET python_enable_replacements = false")
            cursor.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
            # HUGEINT, UUID, TIMETZ and others come back as they were
            cursor.execute("SET arrow_lossless_conversion = true")
        if schema:
            with faults.translated():
                cursor.execute(f"USE {ALIAS}")
        self._cursors.add(cursor)
        return cursor

    @contextmanager
    def lent(self, *, schema: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for the length of the block; opening one costs 2 ms, going to the lake's schema as much.

        Args:
            schema: stand in the lake's default schema; else the block may go to any other.
        """
        self.check_open()
        idle = self._idle[schema]
        try:
            cursor = idle.pop()
        except IndexError:
            cursor = self.cursor(schema=schema)
        try:
            yield cursor
            if not schema:
                cursor.execute("USE memory")
        except BaseException:
            cursor.close()
            raise
        idle.append(cursor)

    def close(self) -> None:
        """Stop what runs and let go of every file; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        for cursor in list(self._cursors):
            try:
                cursor.interrupt()
            except duckdb.Error:
                continue  # closed before
            cursor.close()
        self._close()

    def _close(self) -> None:
        self.settled()
        self.root.close()
        if self._place is not None:
            self._place.remove()
