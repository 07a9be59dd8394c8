"""Another state of the catalog beside the present one, in the same DuckDB instance."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

from lakehouse.catalog import faults
from lakehouse.catalog.attach import CATALOG_FILE, DATA_FOLDER, Database
from lakehouse.catalog.names import literal
from lakehouse.errors import LakeClosed

_UNSOUND = ("compressed_materialization", "statistics_propagation")
_numbers = itertools.count(1)
_lock = threading.Lock()
_users: WeakKeyDictionary[Database, tuple[int, str]] = WeakKeyDictionary()


@contextmanager
def attached(database: Database, folder: Path, version: int) -> Iterator[str]:
    """The lake in a folder as it was at a snapshot, read-only under the name that is given.

    It ends with the block, so a transaction that reads it must have ended by then.
    """
    alias = f"past_{next(_numbers)}"
    target = literal(f"ducklake:sqlite:{folder / CATALOG_FILE}")
    options = [
        f"DATA_PATH {literal(f'{folder / DATA_FOLDER}/')}",
        "OVERRIDE_DATA_PATH true",
        "META_JOURNAL_MODE 'WAL'",
        "META_BUSY_TIMEOUT 10000",
        f"SNAPSHOT_VERSION {version}",
    ]
    with exactly_read(database):
        _run(database, f"ATTACH {target} AS {alias} ({', '.join(options)})")
        try:
            yield alias
        finally:
            _run(database, f"DETACH {alias}", unless_closed=True)


@contextmanager
def exactly_read(database: Database) -> Iterator[None]:
    """Read the past without the optimizers that trust a table's statistics.

    DuckLake keeps them of the present only: once files have been rewritten without their deleted rows, they say
    that older rows cannot be, and DuckDB believes them. The setting holds for the whole instance, and the last
    user gives it back.
    """
    with _lock:
        count, before = _users.get(database, (0, ""))
        if not count:
            before = _run(database, "SELECT current_setting('disabled_optimizers')") or ""
            off = dict.fromkeys([*(name for name in before.split(",") if name), *_UNSOUND])
            _run(database, f"SET disabled_optimizers = {literal(','.join(off))}")
        _users[database] = (count + 1, before)
    try:
        yield
    finally:
        with _lock:
            count, before = _users[database]
            _users[database] = (count - 1, before)
            if count == 1:
                _run(database, f"SET disabled_optimizers = {literal(before)}", unless_closed=True)


def _run(database: Database, sql: str, *, unless_closed: bool = False) -> str | None:
    """Run a statement for the whole instance and return its first value as text, if it has one."""
    try:
        with closing(database.cursor(schema=False)) as cursor, faults.translated():
            row = cursor.execute(sql).fetchone()
    except LakeClosed:
        if unless_closed:
            return None
        raise
    return None if row is None or row[0] is None else str(row[0])
