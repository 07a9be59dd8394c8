"""An empty DuckDB beside the client: it turns Arrow rows into what results give, and never sees the lake."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from lakehouse.catalog import faults
from lakehouse.config import StorageSettings, parse_size
from lakehouse.errors import AnswerBroken


class Scratch:
    """Connections to an empty database in memory, made when first needed; the part of `Database` that results use."""

    def __init__(self) -> None:
        self.temp = Path(tempfile.gettempdir())
        self.max_temp_size = parse_size(StorageSettings().max_temp_size)
        self._root: duckdb.DuckDBPyConnection | None = None
        self._idle: list[duckdb.DuckDBPyConnection] = []
        self._lock = threading.Lock()

    def cursor(self, *, schema: bool = True) -> duckdb.DuckDBPyConnection:
        """A fresh connection; there is no schema of a lake to stand in."""
        with self._lock:
            if self._root is None:
                self._root = duckdb.connect()
            cursor = self._root.cursor()
        cursor.execute("SET python_enable_replacements = false; SET arrow_lossless_conversion = true")
        cursor.execute("SET enable_progress_bar = false")
        return cursor

    @contextmanager
    def lent(self, *, schema: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for the length of the block."""
        try:
            cursor = self._idle.pop()
        except IndexError:
            cursor = self.cursor()
        try:
            yield cursor
        except BaseException:
            cursor.close()
            raise
        self._idle.append(cursor)

    def restored(
        self, schema: pa.Schema, batches: Iterator[pa.RecordBatch], types: Sequence[str]
    ) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Rows in Arrow's own types, as those of DuckDB that they had: texts are UUIDs again, decimals HUGEINTs.

        Args:
            schema: of the rows.
            batches: the rows.
            types: what DuckDB called the types of the columns.

        Raises:
            AnswerBroken: while they are read: a value is none of its type.
        """
        now = self.types(schema.empty_table())
        if now == tuple(types):
            return schema, batches
        parts = [f"c{i}" if a == b else f"c{i}::{b} AS c{i}" for i, (a, b) in enumerate(zip(now, types, strict=True))]
        project, names = ", ".join(parts), [f"c{i}" for i in range(len(schema))]

        def cast(table: pa.Table) -> pa.Table:
            with self.lent() as cursor, faults.translated():
                try:
                    made = cursor.from_arrow(table.rename_columns(names)).project(project).to_arrow_table()
                except duckdb.ConversionException as error:
                    raise AnswerBroken(
                        f"the rows are not of the types that the server names: {error}",
                        hint="is the server of another version?",
                    ) from None
            return made.rename_columns(schema.names)

        made = (one for batch in batches for one in cast(pa.Table.from_batches([batch])).to_batches())
        return cast(schema.empty_table()).schema, made

    def types(self, table: pa.Table) -> tuple[str, ...]:
        """The DuckDB types of the columns of a table."""
        if not table.num_columns:
            return ()
        named = table.slice(0, 0).rename_columns([f"c{i}" for i in range(table.num_columns)])
        with self.lent() as cursor:
            return tuple(str(kind) for kind in cursor.from_arrow(named).types)
