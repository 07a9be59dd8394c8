"""What a worker that only reads does: the gate, then the files of a snapshot or DuckLake, then rows as a stream."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

from lakehouse.catalog import faults
from lakehouse.catalog.attach import ALIAS, Database
from lakehouse.catalog.metadata import Metadata
from lakehouse.catalog.names import quote
from lakehouse.config import Settings
from lakehouse.errors import LakeUnusable, NotFound, QueryCancelled, QueryError, QueryMemory, ResultTooLarge
from lakehouse.query import fetching
from lakehouse.query.direct import DirectScan, Lease
from lakehouse.query.gate import Gate, names
from lakehouse.query.known import Known
from lakehouse.query.sandbox import wire
from lakehouse.query.sandbox.wire import Head, Request, Setup, unpacked
from lakehouse.query.script import bind, check_parameters
from lakehouse.query.statements import Parser, Shape, Statement

_BATCH = 65_536  # rows that DuckDB hands over together
_ODD = re.compile(r"\b(?:UHUGEINT|BIT|BIGNUM|TIME WITH TIME ZONE)\b")
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*\"""")  # names of fields and values of ENUMs in a type
_PIECE = 4 << 20  # bytes of rows in a frame, about
_PASSED, _SHORT = 200, 10_000  # statements that are remembered, and characters of each

_END = pa.py_buffer(b"\xff\xff\xff\xff\0\0\0\0")
"""The end of an IPC stream."""

Frame = tuple[int, Any]


class Reading:
    """Runs reads on one lake; of older snapshots, the last that was asked for is kept open."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._settings = msgspec.convert(setup.settings, Settings)
        self._parsing = duckdb.connect(config={"threads": 1})
        self._parser = Parser()
        self._newest = self._now = self._open(None)
        self._older: tuple[int, _Lake] | None = None
        self.touched = False

    def answer(self, request: Request) -> Iterator[Frame]:
        """Run one SELECT: its head, then its rows."""
        self._now = lake = self._at(request.version)
        statement, bound, snapshot = self._checked(lake, request, lake.metadata.current())
        self.touched = True
        with ExitStack() as stack:
            reader, types, snapshot = self._started(lake, request, statement, bound, snapshot, stack)
            yield wire.HEAD, Head(snapshot, types)
            yield wire.ROWS, (0, stream(reader.schema, None))
            left = request.limit
            with faults.translated():
                for batch in reader:
                    for piece in _pieces(batch if left is None else batch.slice(0, left)):
                        yield wire.ROWS, (piece.num_rows, stream(reader.schema, piece))
                    if left is not None and (left := left - batch.num_rows) <= 0:
                        break

    def interrupt(self) -> None:
        """Stop what runs."""
        for connection in (self._now.files, self._now.lake):
            connection.interrupt()

    def percent(self) -> float:
        """How far it is, in percent."""
        return float(max(self._now.files.query_progress(), self._now.lake.query_progress()))

    def _open(self, version: int | None) -> _Lake:
        return _Lake(self._setup, self._settings, version, self._parser)

    def _at(self, version: int | None) -> _Lake:
        if version is None:
            return self._newest
        if self._older is None or self._older[0] != version:
            if self._older is not None:
                older, self._older = self._older[1], None
                older.close()
            self._older = (version, self._open(version))
        return self._older[1]

    def _checked(self, lake: _Lake, request: Request, snapshot: int) -> tuple[Statement, Any, int]:
        """The one statement, if the gate lets it pass, and its values."""
        lake.offer(request.traces)
        statement = lake.passed(self._parsing, self._parser, request, snapshot)
        params = unpacked(request.params)
        check_parameters([statement], params)
        return statement, bind(statement, params), snapshot

    def _started(
        self, lake: _Lake, request: Request, statement: Statement, bound: Any, snapshot: int, stack: ExitStack
    ) -> tuple[pa.RecordBatchReader, tuple[str, ...], int]:
        """The rows: from the files of the snapshot where that is exact, else through DuckLake."""
        shape = self._parser.inspect(statement.text)
        text = statement.text
        if request.limit is not None and shape is not None:
            text = f"SELECT * FROM ({text}\n) LIMIT {request.limit}"
        if lease := lake.lease(shape, snapshot):
            stack.callback(lease.release)
            stack.callback(lake.files.execute, "USE memory")
            try:
                with faults.translated():
                    lease.enter(lake.files)
                return *_rows(lake.files, text, bound), snapshot
            except (QueryCancelled, QueryMemory):
                raise
            except (NotFound, QueryError, LakeUnusable):
                pass  # DuckLake tells it again in terms of the lake instead of its files, or knows newer files
        stack.callback(_end, lake.lake)
        with faults.translated():
            lake.lake.execute("BEGIN TRANSACTION READ ONLY")
            row = lake.lake.execute(f"FROM {ALIAS}.current_snapshot()").fetchone()
        assert row is not None
        if int(row[0]) != snapshot:  # somebody committed since: what the names mean may have changed
            lake.metadata.current()
            snapshot = int(row[0])
            lake.passed(self._parsing, self._parser, request, snapshot)
        return *_rows(lake.lake, text, bound, compound=statement.compound), snapshot


class _Lake:
    """The lake as of now, or of one snapshot, in a DuckDB that can do nothing else any more."""

    def __init__(self, setup: Setup, settings: Settings, version: int | None, parser: Parser) -> None:
        folder, catalog = Path(setup.folder), Path(setup.catalog)
        self.database = Database(folder, settings, read_only=True, version=version, strangers=True, catalog=catalog)
        self.metadata = Metadata(self.database)
        self._known = Known(self.database, self.metadata, parser)
        self._direct = DirectScan(self.database, self.metadata)
        self._gate: tuple[int, bool, Gate] | None = None
        self._passed: dict[str, Statement] = {}
        self._traces: tuple[str, ...] = ()
        self.files = self.database.cursor(schema=False)
        self.lake = self.database.cursor()
        for connection in (self.files, self.lake):
            connection.execute("SET arrow_lossless_conversion = false")  # rows leave in Arrow's own types
        self.database.seal(settings=True)

    def passed(self, parsing: duckdb.DuckDBPyConnection, parser: Parser, request: Request, snapshot: int) -> Statement:
        """The statement of a request, once the gate with the names of a snapshot has let it pass.

        What a gate said of a text it would say again: it is asked once for each, until the names change.
        """
        traces = bool(request.traces)
        if self._gate is None or self._gate[:2] != (snapshot, traces):
            self._gate = (snapshot, traces, Gate(parsing, names(self.metadata, snapshot, traces=traces)))
            self._passed.clear()
        if (known := self._passed.get(request.sql)) is not None:
            return known
        (statement,) = parser.parse(self._gate[2].read(request.sql).sql)
        if len(request.sql) <= _SHORT:
            if len(self._passed) >= _PASSED:
                self._passed.clear()
            self._passed[request.sql] = statement
        return statement

    def offer(self, traces: tuple[str, ...]) -> None:
        """Make `pathway.traces`, unless it is as it should be."""
        if traces and traces != self._traces:
            for statement in traces:
                self.lake.execute(statement)
            self._traces = traces

    def lease(self, shape: Shape | None, snapshot: int) -> Lease | None:
        relations = self._known.relations(shape, snapshot) if shape is not None else None
        return self._direct.lease(shape, relations, snapshot) if shape is not None and relations is not None else None

    def close(self) -> None:
        self.metadata.close()
        self.database.close()


def _rows(
    connection: duckdb.DuckDBPyConnection, text: str, bound: Any, *, compound: bool = False
) -> tuple[pa.RecordBatchReader, tuple[str, ...]]:
    """The rows of a query, and the DuckDB types of its columns; what Arrow's own types do not hold comes as text.

    Arrow has no bits, no offsets of times and no such large numbers, and DuckDB would give other values for them.
    """
    reader, types = fetching.opened(connection, text, bound, _BATCH, compound=compound)
    if not any(map(_odd, types)):
        return reader, types
    columns = [quote(name) for name in reader.schema.names]
    reader.close()
    chosen = ", ".join(
        f"c{i}::VARCHAR AS {name}" if _odd(kind) else f"c{i} AS {name}"
        for i, (name, kind) in enumerate(zip(columns, types, strict=True))
    )
    names = ", ".join(f"c{i}" for i in range(len(types)))
    return fetching.opened(connection, f"SELECT {chosen} FROM ({text}\n) AS rows({names})", bound, _BATCH)[0], types


def _odd(kind: str) -> bool:
    return _ODD.search(_QUOTED.sub("", kind)) is not None


def stream(schema: pa.Schema, batch: pa.RecordBatch | None) -> list[pa.Buffer]:
    """An IPC stream of at most one batch, in parts: put together they would be copied once more."""
    if batch is None or "dictionary<" in str(schema):  # dictionaries come before their batch
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            if batch is not None:
                writer.write_batch(batch)
        parts = [sink.getvalue()]
    else:
        parts = [schema.serialize(), batch.serialize(), _END]
    if sum(part.size for part in parts) > wire.MOST:
        raise ResultTooLarge(f"a row takes more than {wire.MOST:,} bytes", hint="select less of it")
    return parts


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch in pieces of a few megabytes, so that neither side holds much."""
    rows = max(1, batch.num_rows * _PIECE // max(batch.nbytes, 1))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def _end(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.execute("ROLLBACK")
    except duckdb.Error:
        pass  # it had failed, or not begun
