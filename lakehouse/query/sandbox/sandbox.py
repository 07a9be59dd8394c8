"""`lake.sandbox()`: SQL that nobody here has read, run where it can do no harm."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from lakehouse.errors import (
    LakehouseError,
    QueryCancelled,
    QueryError,
    QueryMemory,
    QueryTimeout,
    ResultTooLarge,
)
from lakehouse.query.sandbox import wire
from lakehouse.query.sandbox.confine import Level
from lakehouse.query.sandbox.pool import Pool
from lakehouse.query.sandbox.process import Worker
from lakehouse.query.sandbox.wire import End, Fault, Head, Request

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa

    from lakehouse.catalog.metadata import Version
    from lakehouse.config import Settings
    from lakehouse.query.script import Parameters

_numbers = itertools.count(1)
_DRAIN = 1.0  # seconds that a cancelled worker has to fall silent


@dataclass(frozen=True, slots=True)
class Done:
    """What a statement did that changes the lake."""

    query_id: str
    snapshot: int
    """The snapshot of its commit."""
    rows: int | None
    """How many rows it inserted, updated or deleted; None when it does not say."""
    kind: str
    """`write` or `ddl`."""
    elapsed: float
    """Seconds it took."""

    def to_dict(self) -> dict[str, Any]:
        """All facts as values that JSON has."""
        return asdict(self)


class Answer:
    """The rows of one query, as they come out of a worker: to be taken once, from one thread.

    The worker waits while nobody takes them. A block that ends early, or `close()`, stops it.
    """

    def __init__(self, pool: Pool, worker: Worker, query_id: str, timeout: float, max_rows: int) -> None:
        self.query_id = query_id
        self.started = time.monotonic()
        self.elapsed: float | None = None
        """Seconds until the last row was taken; None before."""
        self.rows = 0
        """Rows taken so far."""
        self._pool = pool
        self._worker = worker
        self._timeout = timeout
        self._max_rows = max_rows
        self._open = True
        self._head: Head
        self._schema: pa.Schema

    @property
    def snapshot(self) -> int:
        """The snapshot that is read."""
        return self._head.snapshot

    @property
    def types(self) -> list[str]:
        """The DuckDB types of the columns."""
        return list(self._head.types)

    @property
    def schema(self) -> pa.Schema:
        """Names and Arrow types of the columns."""
        return self._schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, a few megabytes at a time.

        Raises:
            QueryError: what went wrong meanwhile; the rows before it are right, but not all.
        """
        while self._open:
            kind, content = self._next()
            if kind == wire.ROWS:
                for batch in self._batches(content):
                    self.rows += batch.num_rows
                    yield batch

    def arrow(self) -> pa.Table:
        """All rows as a `pyarrow.Table`.

        Raises:
            ResultTooLarge: there are more than `query.max_rows`.
        """
        import pyarrow as pa

        found = []
        for batch in self.batches():
            found.append(batch)
            if self.rows > self._max_rows:
                self.close()
                raise ResultTooLarge(
                    f"the result has more than {self._max_rows:,} rows (query.max_rows)",
                    hint="add LIMIT or aggregate, take it with .batches(), or raise query.max_rows",
                )
        return pa.Table.from_batches(found, schema=self._schema)

    def df(self) -> pandas.DataFrame:
        """All rows as a pandas DataFrame, typed as DuckDB types them.

        Raises:
            ResultTooLarge: there are more than `query.max_rows`.
        """
        import duckdb

        table = self.arrow()
        with duckdb.connect() as connection:
            return connection.from_arrow(table).df()

    def progress(self) -> float | None:
        """How far it is, in percent, from any thread; None when that is not known."""
        if not self._open:
            return 100.0 if self.elapsed is not None else None
        return self._worker.progress()[0]

    def cancel(self) -> None:
        """Stop it, from any thread; who takes the rows gets QueryCancelled."""
        if self._open:
            self._worker.stop("cancelled")

    def close(self) -> None:
        """Have no more of it: what still runs is stopped."""
        if not self._open:
            return
        self._open = False
        self._worker.stop("cancelled")
        self._pool.release(self._worker, clean=False)

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self.close()

    def _begin(self) -> None:
        """Wait for the head and the names of the columns."""
        import pyarrow as pa

        self._head = msgspec.msgpack.decode(self._next(wire.HEAD)[1], type=Head)
        self._schema = pa.ipc.open_stream(self._next(wire.ROWS)[1]).schema

    def _next(self, wanted: int | None = None) -> tuple[int, memoryview]:
        """The next frame; the last one, and every error, gives the worker back."""
        try:
            kind, content = self._worker.channel.receive()
            if kind == wire.FAULT:
                fault = msgspec.msgpack.decode(content, type=Fault)
                self._over(clean=fault.clean)
                raise self._stopped() or wire.raised(fault)
            if kind == wire.END:
                msgspec.msgpack.decode(content, type=End)
                self.elapsed = time.monotonic() - self.started
                self._over(clean=True)
            if wanted is not None and kind != wanted:
                raise QueryError("the worker answered out of turn")
        except EOFError:
            self._over(clean=False)
            raise (self._stopped() or self._worker.died()) from None
        except BaseException:
            self._over(clean=False)
            raise
        return kind, content

    def _batches(self, content: memoryview) -> list[pa.RecordBatch]:
        import pyarrow as pa

        try:
            found = list(pa.ipc.open_stream(content))
            for batch in found:
                batch.validate(full=True)  # a worker is believed nothing that could lead this process astray
                if batch.schema != self._schema:
                    raise QueryError("the worker changed its columns")
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            self._over(clean=False)
            raise QueryError(f"the worker sent rows that cannot be read: {error}") from None
        return found

    def _over(self, *, clean: bool) -> None:
        if self._open:
            self._open = False
            self._pool.release(self._worker, clean=clean)

    def _stopped(self) -> LakehouseError | None:
        """The error for a query that was told to stop."""
        if self._worker.ending == "timeout":
            return QueryTimeout(
                f"the query was stopped after {self._timeout:g} s",
                hint="give it more time with timeout=, query.timeout or query.sandbox_timeout",
            )
        if self._worker.ending == "spill":
            return QueryMemory(
                "the query spilled more to disk than allowed (query.sandbox_spill)",
                hint="select fewer rows or columns",
            )
        if self._worker.ending is not None:
            return QueryCancelled(f"the query {self.query_id} was cancelled")
        return None


class Sandbox:
    """SQL of one principal, kept apart from this process and from other principals.

    Args:
        pool: the workers of the lake.
        principal: whose SQL it is.
        settings: the lake's.
        resolve: the snapshot id that a version means.
    """

    def __init__(self, pool: Pool, principal: str, settings: Settings, resolve: Callable[[Version], int]) -> None:
        self._pool = pool
        self.principal = principal
        self._settings = settings
        self._resolve = resolve

    @property
    def protection(self) -> Level:
        """What holds the SQL: `full`, `gate-only`, or `none`: then it is refused."""
        return self._pool.protection.level

    @property
    def reason(self) -> str:
        """Why the protection is what it is, in words."""
        return self._pool.protection.reason

    def workers(self) -> tuple[int, int]:
        """How many processes there are for the SQL of all principals, and how many of them are busy."""
        return self._pool.count(), len(self._pool.busy())

    def sql(
        self,
        sql: str,
        params: Parameters = None,
        *,
        at: Version | None = None,
        limit: int | None = None,
        timeout: float | None = None,
        query_id: str | None = None,
        begun: Callable[[Answer], None] | None = None,
    ) -> Answer:
        """Run one SELECT (or DESCRIBE, SUMMARIZE) over the lake's tables and views, and nothing else.

        Args:
            sql: the query.
            params: values for `$name` (a mapping) or `?` (a sequence); always values, never SQL.
            at: read the lake as of this snapshot id, tagged snapshot or time.
            limit: give at most this many rows.
            timeout: seconds until the last row must have been taken; None: `query.timeout`. Never more than
                `query.sandbox_timeout`.
            query_id: the id to run under; None: one is made.
            begun: called with the answer once a worker has the query, before its first row is waited for: another
                thread can then watch and cancel it.

        Raises:
            SqlRefused: it is not allowed here.
            QueryError: it is wrong, too slow, too large, or was cancelled.
            NotFound: a table or snapshot is not there.
            SandboxUnavailable: this machine cannot hold it.
        """
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise QueryError(f"limit must be a whole number from 0, not {limit!r}")
        version = None if at is None else self._resolve(at)
        request = Request(sql, wire.packed(params), version, limit)
        return self._ask(request, timeout, query_id, begun, write=False)

    def run(
        self,
        sql: str,
        params: Parameters = None,
        *,
        timeout: float | None = None,
        query_id: str | None = None,
        begun: Callable[[Answer], None] | None = None,
    ) -> Done:
        """Run one statement that changes tables, views or schemas of the lake; arguments and errors as of `sql`.

        Raises:
            LakeReadOnly: the lake is open for reading, or pinned.
        """
        answer = self._ask(Request(sql, wire.packed(params)), timeout, query_id, begun, write=True)
        rows = answer.arrow()
        changed = int(rows.column(0)[0].as_py()) if rows.column_names == ["Count"] and rows.num_rows == 1 else None
        return Done(answer.query_id, answer.snapshot, changed, answer._head.kind, answer.elapsed or 0.0)

    def _ask(
        self,
        request: Request,
        timeout: float | None,
        query_id: str | None,
        begun: Callable[[Answer], None] | None,
        *,
        write: bool,
    ) -> Answer:
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
            raise QueryError(f"timeout must be seconds above 0, not {timeout!r}")
        query = self._settings.query
        seconds = min(timeout or query.timeout or query.sandbox_timeout, query.sandbox_timeout)
        started = time.monotonic()
        worker = self._pool.acquire(self.principal, write=write, timeout=seconds)
        name = query_id or f"{os.getpid()}-s{next(_numbers)}"
        answer = Answer(self._pool, worker, name, seconds, query.max_rows)
        worker.ask(request, max(0.001, seconds - (time.monotonic() - started)))
        if begun is not None:
            begun(answer)
        answer._begin()
        return answer

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to let go of: the workers are the lake's."""
