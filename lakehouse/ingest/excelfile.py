"""Excel workbooks read strictly: all rows of the sheet, and no column renamed in silence."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb

from lakehouse.catalog.attach import Database
from lakehouse.errors import SourceEmpty, SourceUnreadable
from lakehouse.ingest.csvfile import call


def relation(path: Path, options: Mapping[str, Any], database: Database) -> str:
    """The SQL that reads one sheet, or what is wrong with it.

    Args:
        path: the workbook.
        options: options of DuckDB's `read_xlsx`.
        database: where it is looked at.

    Raises:
        SourceEmpty: there is nothing on the sheet.
        SourceUnreadable: not a workbook, no such sheet, or a column name that stands there twice.
    """
    database.load("excel")
    # By itself DuckDB stops at the first empty row, whatever comes below it.
    fixed = {**options} if "range" in options else {"stop_at_empty": False, **options}
    reading = call("read_xlsx", str(path), fixed)
    with closing(database.cursor()) as cursor:
        try:
            columns = [row[0] for row in cursor.execute(f"DESCRIBE FROM {reading}").fetchall()]
            raw = {**fixed, "header": False, "all_varchar": True}
            first = cursor.execute(f"FROM {call('read_xlsx', str(path), raw)} LIMIT 1").fetchone() or ()
        except duckdb.Error as error:
            if "No rows found" in str(error):
                raise SourceEmpty(f"{path.name} holds no rows") from None
            message = str(error).split("\n", 1)[0].removeprefix("Binder Error: ")
            raise SourceUnreadable(f"{path.name} cannot be read: {message}") from None
    _check_header(path.name, columns, first)
    return f"(SELECT * FROM {reading} WHERE concat(*COLUMNS(*)) <> '')"  # an empty row is no row


def _check_header(name: str, columns: list[str], first: tuple[Any, ...]) -> None:
    if not first or columns[0] != first[0]:
        return  # the first row is data
    seen: set[str] = set()
    for column in first:
        if column and column.lower() in seen:
            raise SourceUnreadable(f"{name} has the column '{column}' more than once", hint="rename one in the sheet")
        seen.add((column or "").lower())
