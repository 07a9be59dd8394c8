"""`lake.sql`: each statement of a script is run the way its kind asks for."""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from lakehouse.catalog import faults
from lakehouse.catalog.attach import ALIAS, Database
from lakehouse.catalog.catalog import Catalog
from lakehouse.catalog.lineage.recording import Recorder, headline, sql_note
from lakehouse.catalog.metadata import Relation
from lakehouse.catalog.names import literal, shown
from lakehouse.catalog.running import Runner, Running
from lakehouse.config import Settings, parse_size
from lakehouse.errors import (
    LakeUnusable,
    NotFound,
    QueryCancelled,
    QueryError,
    QueryMemory,
    QueryTimeout,
    TableNotFound,
)
from lakehouse.query import byhand, fetching, making, spool
from lakehouse.query.cache import ResultCache, key_of
from lakehouse.query.direct import DirectScan, Lease
from lakehouse.query.known import Known
from lakehouse.query.result import Result, Rows, Source
from lakehouse.query.script import Parameters, bind, check_parameters, check_views, grouped
from lakehouse.query.statements import Parser, Shape, Statement

_BEGIN_READ = "BEGIN TRANSACTION READ ONLY"  # whatever the parser took for a read cannot write
_RETYPES = re.compile(r"\bTYPE\b", re.IGNORECASE)
_UNKNOWN = -1
_BATCH = 100_000  # rows per batch while a result is taken in


@dataclass(frozen=True)
class _Read:
    """One SELECT about to be run."""

    statement: Statement
    text: str
    parameters: Any
    shape: Shape | None
    relations: list[Relation] | None
    """The tables it reads when it reads nothing but the lake; None when it may read anything."""


class Engine:
    """Runs SQL on one database.

    Args:
        database: the DuckDB instance with the lake attached.
        catalog: its catalog, whose writer takes the lock for writes.
        settings: the effective settings.
        runner: waits for what runs, so that it can be stopped.
        pinned: opens an engine whose whole lake is pinned to a snapshot.
    """

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        settings: Settings,
        runner: Runner,
        pinned: Callable[[int], Engine],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._settings = settings
        self._pinned = pinned
        self._runner = runner
        self.parser = Parser()
        self._cache = ResultCache(parse_size(settings.query.cache_size))
        self._direct = DirectScan(database, catalog.metadata)
        self._known = Known(database, catalog.metadata, self.parser)
        self._recorder = Recorder(catalog.metadata, catalog.writer)
        self._local = threading.local()

    def sql(
        self,
        query: str,
        params: Parameters = None,
        *,
        limit: int | None = None,
        timeout: float | None = None,
        tables: Mapping[str, Any] | None = None,
    ) -> Result:
        """Run a script and return the result of its last statement; see `Lakehouse.sql`."""
        self._database.check_open()
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise QueryError(f"limit must be a whole number from 0, not {limit!r}")
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
            raise QueryError(f"timeout must be seconds above 0, not {timeout!r}")
        statements = self.parser.parse(query)
        byhand.check(statements)
        check_parameters(statements, params)
        timeout = self._settings.query.timeout if timeout is None else timeout
        tables = tables or {}
        check_views(statements, tables)
        self._recorder.prepare(statement.text for statement in statements if statement.kind in ("write", "ddl"))
        with self._registered(tables, self._database.connection()):
            results = [self._run(group, params, limit, timeout, plain=bool(tables)) for group in grouped(statements)]
        return results[-1]

    def close(self) -> None:
        """Free the parser."""
        self.parser.close()

    def _run(
        self, group: list[Statement], params: Parameters, limit: int | None, timeout: float | None, *, plain: bool
    ) -> Result:
        if len(group) > 1:
            return self._script(group, params, limit, timeout)
        statement = group[0]
        if statement.kind == "read":
            return self._read(statement, params, limit, timeout, plain=plain)
        if statement.kind == "session":
            self._local.session = True  # from now on names and settings may mean anything in this thread
        if statement.kind in ("write", "ddl") and self._catalog.writer.active is None:
            with self._catalog.writer.transaction(
                "sql", headline(statement.text), **sql_note(statement.text)
            ) as transaction:
                result = self._execute(statement, params, timeout)
            result.snapshot = transaction.committed
            return result
        result = self._execute(statement, params, timeout)
        result.snapshot = self._catalog.metadata.current()
        return result

    def _script(self, group: list[Statement], params: Parameters, limit: int | None, timeout: float | None) -> Result:
        """BEGIN … COMMIT in one script: one transaction, or nothing when it ends in ROLLBACK."""
        inner, end = group[1:-1], group[-1].text.lower()
        text = ";\n".join(statement.text for statement in inner)
        try:
            with self._catalog.writer.transaction("sql", headline(text), **sql_note(text)) as transaction:
                results = [self._run([one], params, limit, timeout, plain=True) for one in inner]
                if not end.startswith(("commit", "end")):
                    raise _RolledBack
        except _RolledBack:
            return self._empty(group[-1])
        result = results[-1] if results else self._empty(group[-1])
        result.snapshot = transaction.committed
        return result

    def _execute(self, statement: Statement, params: Parameters, timeout: float | None) -> Result:
        """A statement with effects: its few result rows are taken at once; the caller knows the snapshot."""
        connection = self._database.connection()
        transaction = self._catalog.writer.active
        if transaction is not None and transaction.retyped and statement.kind == "write":
            # DuckLake would lose the column's statistics, and later queries would skip rows (seen on 1.5.5).
            raise QueryError(
                "rows cannot be written in a transaction that has changed the type of a column",
                hint="commit the ALTER first, then write",
            )
        with self._runner.query(statement.text, connection, timeout) as running, self._explained():
            bound = bind(statement, params)
            rows = self._runner.wait(running, lambda: making.run(statement, connection, transaction, bound))
            if transaction is not None and statement.verb == "ALTER" and _RETYPES.search(statement.text):
                transaction.retyped = True
            self._recorder.record(statement.text, connection, getattr(self._local, "tables", {}), bound)
        return self._result(statement, running, rows, None, _UNKNOWN, bound=bound)

    def _read(
        self, statement: Statement, params: Parameters, limit: int | None, timeout: float | None, *, plain: bool
    ) -> Result:
        shape = self.parser.inspect(statement.text)
        text = statement.text
        if limit is not None and shape is not None:
            text = f"SELECT * FROM ({text}\n) LIMIT {int(limit)}"  # on one line: carets keep their line number
        bound = bind(statement, params)
        free = plain or self._catalog.writer.active is not None or getattr(self._local, "session", False)
        snapshot = self._catalog.metadata.current()
        relations = None if free or shape is None else self._known.relations(shape, snapshot)
        read = _Read(statement, text, bound, shape, relations)
        if relations is None:
            return self._read_anything(read, limit, timeout)
        return self._read_snapshot(read, snapshot, limit, timeout)

    def _read_snapshot(self, read: _Read, snapshot: int, limit: int | None, timeout: float | None) -> Result:
        """A query over nothing but the lake: known by its snapshot, so it can be cached and read again."""
        key = key_of(read.text, read.parameters, snapshot, limit)
        if key is not None and (rows := self._cache.get(key)):
            with self._runner.query(read.text, self._database.root, timeout) as running:
                return self._result(read.statement, running, rows, None, snapshot, bound=read.parameters, cached=True)
        if lease := self._lease(read, snapshot):
            try:
                return self._read_rows(read, snapshot, limit, timeout, lease)
            except (QueryTimeout, QueryCancelled, QueryMemory):
                raise
            except (NotFound, QueryError, LakeUnusable):
                pass  # DuckLake tells it again in terms of the lake instead of its files, or knows newer files
        return self._read_rows(read, snapshot, limit, timeout, None)

    def _read_rows(
        self, read: _Read, snapshot: int, limit: int | None, timeout: float | None, lease: Lease | None
    ) -> Result:
        with (
            self._database.lent(schema=lease is None) as connection,
            self._runner.query(read.text, connection, timeout) as running,
            self._explained(),
            ExitStack() as stack,
        ):
            if lease is not None:
                stack.callback(lease.release)
                lease.enter(connection)
            else:
                stack.callback(_end, connection)
                connection.execute(_BEGIN_READ)
                snapshot = _current(connection)
            rows, complete = self._runner.wait(running, lambda: self._take(connection, read))
        if not complete:
            return self._result(
                read.statement, running, rows, self._source(read, snapshot), snapshot, bound=read.parameters
            )
        if key := key_of(read.text, read.parameters, snapshot, limit):
            self._cache.put(key, rows)
        return self._result(read.statement, running, rows, None, snapshot, bound=read.parameters)

    def _read_anything(self, read: _Read, limit: int | None, timeout: float | None) -> Result:
        """A query over frames, files, temporary tables or the clock: its rows are all taken now, to disk if many."""
        connection = self._database.connection()
        outside = self._catalog.writer.active is None
        with self._runner.query(read.text, connection, timeout) as running, self._explained(), ExitStack() as stack:
            if outside:
                stack.callback(_end, connection)
                # The plan of a write can be shown only where it could be run; showing it runs nothing.
                connection.execute("BEGIN TRANSACTION" if read.statement.verb == "EXPLAIN" else _BEGIN_READ)
            snapshot = _current(connection)
            rows = self._runner.wait(running, lambda: self._take_all(connection, read))
        if limit is not None:
            rows = Rows(rows.table.slice(0, limit), rows.types)
        return self._result(read.statement, running, rows, None, snapshot, bound=read.parameters)

    def _lease(self, read: _Read, snapshot: int) -> Lease | None:
        if read.relations is None or read.shape is None:
            return None
        return self._direct.lease(read.shape, read.relations, snapshot)

    def _take(self, connection: duckdb.DuckDBPyConnection, read: _Read) -> tuple[Rows, bool]:
        """The rows, or the first of very many that can be read again in the same order."""
        if not self._known.repeats(read.shape, read.relations):
            return self._take_all(connection, read), True
        with faults.translated():
            reader, types = fetching.opened(connection, read.text, read.parameters, _BATCH)
            table, complete = spool.first(reader, parse_size(self._settings.query.buffer_size))
        return Rows(table, types), complete

    def _take_all(self, connection: duckdb.DuckDBPyConnection, read: _Read) -> Rows:
        reader, types = fetching.opened(connection, read.text, read.parameters, _BATCH)
        size, limit = parse_size(self._settings.query.buffer_size), parse_size(self._settings.storage.max_temp_size)
        with faults.translated():
            return Rows(spool.whole(reader, size, self._database.temp, limit), types)

    def _source(self, read: _Read, snapshot: int) -> Source:
        """How to read a large result again: pinned to its snapshot, on a connection of its own."""

        def connect() -> tuple[duckdb.DuckDBPyConnection, ExitStack]:
            stack = ExitStack()
            if lease := self._lease(read, snapshot):
                stack.callback(lease.release)
                connection = self._database.cursor(schema=False)
                lease.enter(connection)
            else:
                connection = self._pinned(snapshot)._database.cursor()
            stack.callback(connection.close)
            return connection, stack

        def reader(batch_rows: int) -> Any:
            connection, stack = connect()
            try:
                opened, _ = fetching.opened(connection, read.text, read.parameters, batch_rows)
            except BaseException:
                stack.close()
                raise
            batches = fetching.drained(opened, stack)
            # A generator that is never started never ends: then the connection goes with it all the same.
            weakref.finalize(batches, stack.close)
            return pa.RecordBatchReader.from_batches(opened.schema, batches)

        def count() -> int:
            connection, stack = connect()
            with stack, faults.translated():
                row = connection.execute(f"SELECT count(*) FROM (\n{read.text}\n)", read.parameters).fetchone()
            return int(row[0]) if row else 0

        def copy(path: Path, options: str) -> None:
            connection, stack = connect()
            with stack, faults.translated():
                connection.execute(f"COPY (\n{read.text}\n) TO {literal(str(path))} {options}", read.parameters)

        return Source(reader, count, copy)

    def _result(
        self,
        statement: Statement,
        running: Running,
        rows: Rows,
        source: Source | None,
        snapshot: int,
        *,
        bound: Any = None,
        cached: bool = False,
    ) -> Result:
        tables: Mapping[str, Any] = getattr(self._local, "tables", {})
        session = getattr(self._local, "session", False)

        def explain(analyze: bool) -> str:
            verb = "EXPLAIN ANALYZE" if analyze and statement.kind == "read" else "EXPLAIN"
            with ExitStack() as stack:
                connection = self._database.connection() if session else stack.enter_context(self._database.lent())
                stack.enter_context(self._registered(tables, connection))
                stack.enter_context(faults.translated())
                plan = connection.execute(f"{verb} {statement.text}", bound).fetchall()
            return "\n".join(str(row[1]) for row in plan)

        return Result(
            sql=statement.text,
            query_id=running.query_id,
            snapshot=snapshot,
            elapsed=running.elapsed,
            page=rows,
            source=source,
            max_rows=self._settings.query.max_rows,
            database=self._database,
            explain=explain,
            kind=statement.kind,
            cached=cached,
            grid=self._settings.query.grid,
        )

    def _empty(self, statement: Statement) -> Result:
        with self._runner.query(statement.text, self._database.root, None) as running:
            return self._result(statement, running, Rows(pa.table({}), ()), None, 0)

    @contextmanager
    def _registered(self, tables: Mapping[str, Any], connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Frames usable by name on a connection while the block lasts."""
        with ExitStack() as stack:
            for name, value in tables.items():
                frame = value.relation(connection) if isinstance(value, Result) else value
                try:
                    connection.register(name, frame)
                except (duckdb.Error, TypeError) as error:
                    raise QueryError(
                        f"'{name}' cannot be used as a table: {type(value).__name__}: {faults.first_line(error)}",
                        hint="pandas, Arrow and Polars frames and earlier results can, under names not in use",
                    ) from error
                stack.callback(connection.unregister, name)
            self._local.tables = tables
            stack.callback(setattr, self._local, "tables", {})
            yield

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors in our words, with the lake's own nearest names where a table was not found."""
        try:
            with faults.translated():
                yield
        except TableNotFound as error:
            name = faults.missing_table(error) or ""
            relations = self._catalog.metadata.relations(self._catalog.metadata.current()).values()
            names = [shown(r.schema, r.name) for r in relations]
            error.hint = self._catalog.suggest(name, names)
            raise


class _RolledBack(Exception):
    """The script itself asked for ROLLBACK."""


def _current(connection: duckdb.DuckDBPyConnection) -> int:
    row = connection.execute(f"FROM {ALIAS}.current_snapshot()").fetchone()
    assert row is not None
    return int(row[0])


def _end(connection: duckdb.DuckDBPyConnection) -> None:
    """End a read; it may have failed, or not have begun."""
    try:
        connection.execute("ROLLBACK")
    except duckdb.Error:
        pass
