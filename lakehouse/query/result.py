"""What a query gives back: repeatable, shown by the page, handed over whole only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pyarrow as pa

from lakehouse.errors import ResultTooLarge
from lakehouse.wording import counted

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars

    from lakehouse.query.plot import Plot

T = TypeVar("T")

PAGE_ROWS = 20


class Connections(Protocol):
    """Where a result gets a DuckDB to make frames and files with: the `Database` of a lake is one."""

    temp: Path
    max_temp_size: int

    def cursor(self, *, schema: bool = True) -> duckdb.DuckDBPyConnection: ...
    def lent(self, *, schema: bool = True) -> AbstractContextManager[duckdb.DuckDBPyConnection]: ...


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in memory (or in a mapped file) with the DuckDB types of their columns."""

    table: pa.Table
    types: tuple[str, ...]

    def relation(self, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
        """The rows as a DuckDB relation, with the types they had."""
        from lakehouse.catalog.names import quote

        # Positional names: a result may have the same column name twice.
        if not self.types:  # a statement without rows; DuckDB has no table without columns
            return connection.sql("SELECT NULL AS nothing WHERE false")
        source = connection.from_arrow(self.table.rename_columns([f"c{i}" for i in range(len(self.types))]))
        columns = (f"c{i} AS {quote(name)}" for i, name in enumerate(self.table.column_names))
        return source.project(", ".join(columns))

    def common(self) -> pa.Table:
        """The rows in Arrow's own types: what only DuckDB knows (HUGEINT, UUID, BIT …) as DuckDB converts it."""
        if not any(_only_duckdb(field.type) for field in self.table.schema):
            return self.table
        import duckdb

        with duckdb.connect() as connection:
            connection.execute("SET arrow_lossless_conversion = false")
            return self.relation(connection).to_arrow_table()


def _only_duckdb(kind: pa.DataType) -> bool:
    """Whether an Arrow type is, or holds, an extension that stands for a type of DuckDB's."""
    if isinstance(kind, pa.BaseExtensionType):
        return True
    return any(_only_duckdb(kind.field(i).type) for i in range(kind.num_fields))


@dataclass(frozen=True)
class Source:
    """How a result that is too large to keep is read again: the same query at the same snapshot."""

    reader: Callable[[int], Any]
    """Opens a `pyarrow.RecordBatchReader` with batches of about that many rows."""
    count: Callable[[], int]
    """Counts the rows without fetching them."""
    copy: Callable[[Path, str], None]
    """Writes all rows to a path in a DuckDB COPY format."""


class Result:
    """The rows of one statement, and what they were computed from.

    Every accessor may be called any number of times and gives the same rows.
    """

    def __init__(
        self,
        *,
        sql: str,
        query_id: str,
        snapshot: int,
        elapsed: float,
        page: Rows,
        source: Source | None,
        max_rows: int,
        database: Connections,
        explain: Callable[[bool], str],
        kind: str = "read",
        cached: bool = False,
        grid: bool = True,
    ) -> None:
        self.sql = sql
        """The statement as it was run."""
        self.query_id = query_id
        self.snapshot = snapshot
        """The snapshot that was read, or the one that a write made."""
        self.elapsed = elapsed
        """Seconds until the rows, or the first of very many, were here."""
        self.kind = kind
        """`read`, `write`, `ddl`, `session` or `transaction`."""
        self.cached = cached
        """Whether the rows came from the result cache."""
        self._page = page
        self._source = source
        self._max_rows = max_rows
        self._database = database
        self._explain = explain
        self._grid = grid
        self._count: int | None = None if source else page.table.num_rows

    @property
    def columns(self) -> list[str]:
        """The column names in order."""
        return list(self._page.table.column_names)

    @property
    def types(self) -> list[str]:
        """The DuckDB types of the columns."""
        return list(self._page.types)

    @property
    def complete(self) -> bool:
        """Whether all rows are here; else they are read again when they are asked for."""
        return self._source is None

    def __len__(self) -> int:
        if self._count is None:
            assert self._source is not None
            self._count = self._source.count()
        return self._count

    def arrow(self) -> pa.Table:
        """All rows as a `pyarrow.Table`.

        Raises:
            ResultTooLarge: there are more rows than `query.max_rows`.
        """
        return self._whole().common()

    def df(self) -> pandas.DataFrame:
        """All rows as a pandas DataFrame, typed as DuckDB types them.

        Raises:
            ResultTooLarge: there are more rows than `query.max_rows`.
        """
        return self._using(self._whole(), lambda relation: relation.df())

    def pl(self) -> polars.DataFrame:
        """All rows as a Polars DataFrame (needs `polars`).

        Raises:
            ResultTooLarge: there are more rows than `query.max_rows`.
        """
        import polars

        frame = polars.from_arrow(self._whole().common())
        return frame if isinstance(frame, polars.DataFrame) else frame.to_frame()

    def relation(self, connection: duckdb.DuckDBPyConnection | None = None) -> duckdb.DuckDBPyRelation:
        """All rows as a DuckDB relation to go on with, on a connection of its own unless one is given.

        Raises:
            ResultTooLarge: there are more rows than `query.max_rows`.
        """
        return self._whole().relation(self._database.cursor(schema=False) if connection is None else connection)

    def reader(self, batch_rows: int = 100_000) -> pa.RecordBatchReader:
        """All rows as a stream of Arrow batches of about `batch_rows` rows, however many there are."""
        if self._source is None:
            return self._page.common().to_reader(batch_rows)
        opened = self._source.reader(batch_rows)
        if not any(_only_duckdb(field.type) for field in opened.schema):
            return opened
        schema = self._page.common().schema
        batches = (Rows(pa.Table.from_batches([batch]), self._page.types).common() for batch in opened)
        return pa.RecordBatchReader.from_batches(schema, (b for table in batches for b in table.to_batches()))

    def keep(
        self, connection: duckdb.DuckDBPyConnection, table: str, *, watch: Callable[[], None] | None = None
    ) -> None:
        """Write all rows, however many, into a new table of another DuckDB, in their order and with their types.

        Args:
            connection: a DuckDB of the caller's own.
            table: the table's name there; its columns are called c0, c1, … (a result may have a name twice).
            watch: called between batches of many rows; what it raises ends the writing.
        """
        from lakehouse.catalog import faults

        with faults.translated():
            self._stream(connection, watch).create(table)

    @property
    def room(self) -> tuple[Path, int]:
        """The folder for what is kept of it on disk for a while, and how many bytes that may take."""
        return self._database.temp, self._database.max_temp_size

    def plot(
        self,
        kind: str = "bar",
        *,
        x: str | None = None,
        y: str | None = None,
        color: str | None = None,
        aggregate: str | None = None,
        title: str | None = None,
    ) -> Plot:
        """A chart of all rows (needs the extra `charts`); DuckDB counts, sums and bins, so that few values are drawn.

        Args:
            kind: `bar`, `line`, `area`, `point` or `hist`.
            x: the column along; None: the first.
            y: the column up; None: the number of rows (`point`: the second column).
            color: a column that parts the rows; its eight greatest groups are shown, the rest together.
            aggregate: `sum`, `mean`, `median`, `min`, `max` or `count` of y at each x; None: `sum`.
            title: what the chart says.

        Raises:
            ColumnNotFound: there is no such column.
            QueryError: an unknown kind or aggregate, or a column that cannot be drawn so.
        """
        from lakehouse.query.plot import Wanted, drawn

        wanted = Wanted(kind, x, y, color, aggregate, title)
        with self._database.lent(schema=False) as connection:
            return drawn(wanted, self.columns, self.types, lambda: self._stream(connection))

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows as Python tuples.

        Raises:
            ResultTooLarge: there are more rows than `query.max_rows`.
        """
        return self._using(self._whole(), _fetchall)

    def fetchone(self) -> tuple[Any, ...] | None:
        """The first row as a Python tuple, or None."""
        rows = self._using(self._first(1), _fetchall)
        return rows[0] if rows else None

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        stream = self._source.reader(100_000) if self._source else self._page.table.to_reader(100_000)
        for batch in stream:
            rows = Rows(pa.Table.from_batches([batch]), self._page.types)
            yield from self._using(rows, _fetchall)

    def explain(self, analyze: bool = False) -> str:
        """DuckDB's plan of the query; with `analyze` it is run again and timed."""
        return self._explain(analyze)

    def to_csv(self, path: str | Path) -> Path:
        """Write all rows as CSV with a header; the file appears whole or not at all."""
        return self._write(Path(path), "(FORMAT csv, HEADER)")

    def to_parquet(self, path: str | Path) -> Path:
        """Write all rows as Parquet; the file appears whole or not at all."""
        return self._write(Path(path), "(FORMAT parquet)")

    def records(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Rows as dictionaries; all, or the first `limit`."""
        rows = self._whole() if limit is None else self._first(limit)
        return [dict(zip(self.columns, row, strict=True)) for row in self._using(rows, _fetchall)]

    def page(self, rows: int = PAGE_ROWS) -> list[tuple[Any, ...]]:
        """The first rows as Python tuples, without reading the rest."""
        return self._using(self._first(rows), _fetchall)

    @property
    def is_receipt(self) -> bool:
        """Whether there are no rows but only DuckDB's word that something was done."""
        return self.kind != "read" and self.columns in ([], ["Count"], ["Success"])

    @property
    def changed(self) -> int | None:
        """How many rows a write inserted, updated or deleted; None when it does not say."""
        row = self.fetchone() if self.is_receipt and self.columns == ["Count"] else None
        return int(row[0]) if row else None

    def _receipt(self) -> str:
        what = "done" if self.changed is None else f"{counted(self.changed, 'row')} changed"
        return f"{what}, snapshot {self.snapshot}" if self.kind in ("write", "ddl", "transaction") else what

    def __repr__(self) -> str:
        if self.is_receipt or not self.columns:
            return self._receipt()
        from lakehouse.query import display

        first = self._first(PAGE_ROWS)
        box = self._using(first, lambda relation: str(relation.limit(PAGE_ROWS))).rstrip()
        return display.boxed(box, self._caption())

    def _repr_html_(self) -> str | None:
        if self.is_receipt or not self.columns:
            return None  # the one line of __repr__ says it
        from lakehouse.query import display

        return display.table(self.columns, self.types, self.page(), self._caption())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        # Text and HTML come beside it all the same: IPython asks for what is not in here.
        if not self._grid or (self._source is None and self._page.table.num_rows <= PAGE_ROWS):
            return {}  # the table has all rows
        from lakehouse.query import display

        return display.grid(self)

    def _caption(self) -> str:
        total, shown = len(self), min(len(self), PAGE_ROWS)
        rows = counted(total, "row")
        first = f" (first {shown})" if shown < total else ""
        columns = counted(len(self.columns), "column")
        return f"{rows}{first} × {columns}, snapshot {self.snapshot}"

    def _first(self, rows: int) -> Rows:
        if self._source is not None and rows > self._page.table.num_rows:
            return Rows(_take(self._source.reader(rows), rows), self._page.types)
        return Rows(self._page.table.slice(0, rows), self._page.types)

    def _whole(self) -> Rows:
        rows = self._page
        if self._source is not None:
            rows = Rows(_take(self._source.reader(100_000), self._max_rows + 1), self._page.types)
        if rows.table.num_rows > self._max_rows:
            raise ResultTooLarge(
                f"the result has more than {self._max_rows:,} rows (query.max_rows)",
                hint="add LIMIT or aggregate, stream it with .reader(), write it with .to_parquet(path),"
                " or raise query.max_rows",
            )
        return rows

    def _write(self, path: Path, options: str) -> Path:
        from lakehouse.query.files import written

        with written(path) as temporary:
            if self._source is not None:
                self._source.copy(temporary, options)
            else:
                self._copy_page(temporary, options)
        return path

    def _copy_page(self, path: Path, options: str) -> None:
        from lakehouse.catalog import faults
        from lakehouse.catalog.names import literal

        with self._database.lent(schema=False) as connection, faults.translated():
            self._page.relation(connection).query("result", f"COPY (FROM result) TO {literal(str(path))} {options}")
            connection.execute("DROP VIEW temp.result")

    def _stream(
        self, connection: duckdb.DuckDBPyConnection, watch: Callable[[], None] | None = None
    ) -> duckdb.DuckDBPyRelation:
        """All rows as a relation with columns c0, c1, … that can be read once; `watch` is called between batches."""
        if not self.types:
            return connection.sql("SELECT NULL AS c0 WHERE false")
        names = [f"c{i}" for i in range(len(self.types))]
        if self._source is None:
            return connection.from_arrow(self._page.table.rename_columns(names))
        opened = self._source.reader(100_000)
        schema = pa.schema([field.with_name(name) for field, name in zip(opened.schema, names, strict=True)])

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in opened:
                if watch is not None:
                    watch()
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)

        return connection.from_arrow(pa.RecordBatchReader.from_batches(schema, batches()))

    def _using(self, rows: Rows, use: Callable[[duckdb.DuckDBPyRelation], T]) -> T:
        from lakehouse.catalog import faults

        with self._database.lent(schema=False) as connection, faults.translated():
            return use(rows.relation(connection))


def _fetchall(relation: duckdb.DuckDBPyRelation) -> list[tuple[Any, ...]]:
    return relation.fetchall()


def _take(reader: pa.RecordBatchReader, rows: int) -> pa.Table:
    from lakehouse.catalog import faults

    batches, left = [], rows
    with reader, faults.translated():
        for batch in reader:
            batches.append(batch.slice(0, left))
            left -= batches[-1].num_rows
            if left <= 0:
                break
    return pa.Table.from_batches(batches, schema=reader.schema)
