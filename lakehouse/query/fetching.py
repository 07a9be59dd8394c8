"""Rows on their way out of DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import duckdb
import pyarrow as pa

from lakehouse.catalog import faults
from lakehouse.query.result import Rows
from lakehouse.query.statements import done


def opened(
    connection: duckdb.DuckDBPyConnection, text: str, parameters: Any, batch_rows: int, *, compound: bool = False
) -> tuple[pa.RecordBatchReader, tuple[str, ...]]:
    """Run a query; its rows as a stream, and the DuckDB types of its columns. For `compound` see `fetch`."""
    with faults.translated():
        _begin(connection, text, parameters, compound)
        types = tuple(str(column[1]) for column in connection.description or ())
        return connection.to_arrow_reader(batch_rows), types


def fetch(connection: duckdb.DuckDBPyConnection, text: str, parameters: Any, *, compound: bool = False) -> Rows:
    """Run a statement and take its few rows; none when it gives none.

    Args:
        connection: where to run it.
        text: the statement.
        parameters: its values.
        compound: DuckDB makes several statements of it, in a transaction of their own: see `Statement.compound`.
    """
    _begin(connection, text, parameters, compound)
    description = connection.description
    if not description:
        return Rows(pa.table({}), ())
    return Rows(connection.to_arrow_table(), tuple(str(column[1]) for column in description))


def _begin(connection: duckdb.DuckDBPyConnection, text: str, parameters: Any, compound: bool) -> None:
    if not compound:
        connection.execute(text, parameters)
        return
    *before, last = done(connection.extract_statements(text))
    for one in before:
        connection.execute(one)
    connection.execute(last, parameters)


def drained(reader: pa.RecordBatchReader, stack: ExitStack) -> Iterator[pa.RecordBatch]:
    """The batches of a stream; what was held open for it is let go at its end."""
    with stack, faults.translated():
        yield from reader
