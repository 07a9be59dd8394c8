"""An empty DuckDB beside the client: it turns Arrow rows into what results give, and never sees the lake."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa


class Scratch:
    """Connections to an empty database in memory, made when first needed; the part of `Database` that results use."""

    def __init__(self) -> None:
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

    def types(self, table: pa.Table) -> tuple[str, ...]:
        """The DuckDB types of the columns of a table."""
        if not table.num_columns:
            return ()
        named = table.slice(0, 0).rename_columns([f"c{i}" for i in range(table.num_columns)])
        with self.lent() as cursor:
            return tuple(str(kind) for kind in cursor.from_arrow(named).types)
