"""Whose rows DuckLake may keep in the catalog instead of in files: not those of tables that could not be read again."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import duckdb

from lakehouse.catalog.attach import ALIAS, METADATA
from lakehouse.catalog.keeping import check, only_in_files, wide
from lakehouse.catalog.names import literal, quote, shown

if TYPE_CHECKING:
    from lakehouse.catalog.writer import Transaction

INLINED = 10
"""So few rows of one insert DuckLake keeps in the catalog."""
_OPTION = "data_inlining_row_limit"
_VIEWS = f"SELECT 1 FROM {METADATA}.ducklake_view WHERE end_snapshot IS NULL LIMIT 1"
_SETTING = "ducklake_default_data_inlining_row_limit"


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


def narrow(transaction: Transaction) -> None:
    """After the end of a transaction that called `write_files`, committed or not, still under the lock."""
    if not transaction.files_only:
        return
    run = transaction.connection.execute
    for schema, name in sorted(transaction.files_only):
        with suppress(duckdb.Error):  # the table was not made after all
            run(f"CALL {ALIAS}.set_option('{_OPTION}', 0, schema => {literal(schema)}, table_name => {literal(name)})")
    run(f"RESET {_SETTING}")
    # Where there is a view, to raise the option ends the process (DuckLake 1.5.5): then all small writes go to files.
    if transaction.lake_in_files and not run(_VIEWS).fetchall():
        run(f"CALL {ALIAS}.set_option('{_OPTION}', {INLINED})")
