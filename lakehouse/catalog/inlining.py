"""Whose rows DuckLake may keep in the catalog instead of in files: not those of tables that could not be read again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from lakehouse.catalog.attach import ALIAS, METADATA
from lakehouse.catalog.flush import sync
from lakehouse.catalog.keeping import check, only_in_files, wide
from lakehouse.catalog.names import literal, quote, shown
from lakehouse.errors import DiskFull

if TYPE_CHECKING:
    from lakehouse.catalog.writer import Transaction

UNFINISHED_FILE = "unfinished.json"
"""Beside the catalog: not empty from just before a commit until its tables have the option, which they can have no
earlier. It is emptied and not removed, because a worker that runs SQL from strangers may write only files that are there.
"""
INLINED = 10
"""So few rows of one insert DuckLake keeps in the catalog."""
_OPTION = "data_inlining_row_limit"
_VIEWS = f"SELECT 1 FROM {METADATA}.ducklake_view WHERE end_snapshot IS NULL LIMIT 1"
_SETTING = "ducklake_default_data_inlining_row_limit"

_Run = Callable[[str], duckdb.DuckDBPyConnection]


def settle(transaction: Transaction, schema: str, name: str) -> None:
    """After a table was made or its columns were changed: see that it can keep them.

    Raises:
        QueryError: it cannot; the transaction is to be given up.
        TableNotFound: there is no such table.
    """
    described = transaction.execute(f"DESCRIBE {quote(ALIAS, schema, name)}").fetchall()
    columns = [(row[0], row[1]) for row in described]
    check(shown(schema, name), columns)
    if only_in_files(columns):
        write_files(transaction, schema, name, wide=wide(columns))


def write_files(transaction: Transaction, schema: str, name: str, *, wide: bool = False) -> None:
    """From here on every row of a table goes to a file.

    DuckLake has no such option for a table that is not committed. So this process writes nothing but files until the
    commit, and `narrow` then gives the option to the table.

    Args:
        transaction: the open write.
        schema: the table's schema.
        name: the table's name.
        wide: the catalog could not even make a place for its rows; only the option for the whole lake prevents that.
    """
    options = f"SELECT 1 FROM {ALIAS}.options() WHERE option_name = '{_OPTION}' AND scope = 'GLOBAL' AND value <> '0'"
    if wide or transaction.execute(options).fetchall():  # that of the lake comes before the setting of the process
        transaction.execute(f"CALL {ALIAS}.set_option('{_OPTION}', 0)")
        transaction.lake_in_files = True
    transaction.execute(f"SET {_SETTING} = 0")
    transaction.files_only.add((schema, name))


def announce(transaction: Transaction, folder: Path) -> None:
    """Just before a commit: leave word of what `narrow` will have to do, in case this process does not come to it.

    Raises:
        DiskFull: the word could not be written.
    """
    if not transaction.files_only:
        return
    word = {"tables": sorted(transaction.files_only), "lake": transaction.lake_in_files}
    file = folder / UNFINISHED_FILE
    try:
        new = not file.exists()
        file.write_text(json.dumps(word), "utf-8")
        sync(file)
        if new:
            sync(folder)
    except OSError as error:
        raise DiskFull(f"{file} cannot be written: {error.strerror}", hint="nothing was committed") from None


def narrow(transaction: Transaction, folder: Path) -> None:
    """After the end of a transaction that called `write_files`, committed or not, still under the lock."""
    if not transaction.files_only:
        return
    run = transaction.connection.execute
    with suppress(duckdb.Error):  # then the next writer does it, who finds the word; this write is done
        _narrow(run, sorted(transaction.files_only), lake=transaction.lake_in_files)
        _done(folder / UNFINISHED_FILE)
    run(f"RESET {_SETTING}")


def finish(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Under the lock, before anything is written: do what a writer that died after its commit had left to do.

    Raises:
        duckdb.Error: it cannot be done, so nothing may be written.
        DiskFull: likewise.
    """
    file = folder / UNFINISHED_FILE
    try:
        left = file.read_bytes()
    except FileNotFoundError:
        return
    if not left:
        return  # as nearly always
    with suppress(ValueError):  # half a word: it died before its commit
        word = json.loads(left)
        _narrow(connection.execute, [(schema, name) for schema, name in word["tables"]], lake=word["lake"])
    _done(file)


def _done(file: Path) -> None:
    """Empty the word; where that cannot be, it is found again and does no harm."""
    with suppress(OSError):
        os.truncate(file, 0)


def _narrow(run: _Run, tables: Iterable[tuple[str, str]], *, lake: bool) -> None:
    for schema, name in tables:
        with suppress(duckdb.CatalogException):  # the table was not made after all
            run(f"CALL {ALIAS}.set_option('{_OPTION}', 0, schema => {literal(schema)}, table_name => {literal(name)})")
    # Where there is a view, to raise the option ends the process (DuckLake 1.5.5): then all small writes go to files.
    if lake and not run(_VIEWS).fetchall():
        run(f"CALL {ALIAS}.set_option('{_OPTION}', {INLINED})")
