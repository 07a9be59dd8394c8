"""`lake.sandbox()`: SQL that nobody here has read, run where it can do no harm."""

from __future__ import annotations

import itertools
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from lakehouse.errors import (
    LakehouseError,
    QueryCancelled,
    QueryError,
    QueryMemory,
    QueryTimeout,
    ResultTooLarge,
    WorkerDied,
)
from lakehouse.query.sandbox import wire
from lakehouse.query.sandbox.confine import Level
from lakehouse.query.sandbox.pool import Pool
from lakehouse.query.sandbox.process import Worker
from lakehouse.query.sandbox.wire import End, Fault, Head, Request

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa

    from lakehouse.catalog.catalog import Catalog
    from lakehouse.catalog.metadata import Version
    from lakehouse.config import Settings
    from lakehouse.query.history import History
    from lakehouse.query.script import Parameters

_numbers = itertools.count(1)
A = TypeVar("A", "Answer", "Done")


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

    @property
    def changed(self) -> int | None:
        """The same as `rows`, as a `Result` calls it."""
        return self.rows

    def to_dict(self) -> dict[str, Any]:
        """All facts as values that JSON has."""
        return asdict(self)


class Answer:
    """The rows of one query, as they come out of a worker: to be taken once, from one thread.

    The worker waits while nobody takes them. A block that ends early, or `close()`, stops it.
    """

    changed = None

    def __init__(
        self, pool: Pool, worker: Worker, sql: str, principal: str, query_id: str, timeout: float, max_rows: int
    ) -> None:
        self.sql = sql
        self.principal = principal
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
        if self._open:
            self._worker.stop("closed")
            self._over(clean=False)

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
            self._pool.running.pop(self.query_id, None)
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
        catalog: the lake's: it knows what a version means, and what was committed.
        history: where it is noted what was asked; None: nowhere.
        traces: lends `pathway.traces` to a worker, see `TraceTable.lent`; None: nobody does.
    """

    def __init__(
        self,
        pool: Pool,
        principal: str,
        settings: Settings,
        catalog: Catalog,
        *,
        history: History | None = None,
        traces: Callable[[str, Path], tuple[str, ...]] | None = None,
    ) -> None:
        self._pool = pool
        self.principal = principal
        self._settings = settings
        self._catalog = catalog
        self._history = history
        self._traces = traces

    @property
    def protection(self) -> Level:
        """What holds the SQL: `full`, `gate-only`, or `none`: then it is refused."""
        return self._pool.protection.level

    @property
    def reason(self) -> str:
        """Why the protection is what it is, in words."""
        return self._pool.protection.reason

    def sql(
        self,
        sql: str,
        params: Parameters = None,
        *,
        at: Version | None = None,
        limit: int | None = None,
        timeout: float | None = None,
        query_id: str | None = None,
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

        Raises:
            SqlRefused: it is not allowed here.
            QueryError: it is wrong, too slow, too large, or was cancelled.
            NotFound: a table or snapshot is not there.
            SandboxUnavailable: this machine cannot hold it.
        """
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise QueryError(f"limit must be a whole number from 0, not {limit!r}")
        return self._noted(
            sql,
            params,
            lambda: self._ask(
                Request(sql, wire.packed(params), None if at is None else self._catalog.resolve(at), limit),
                timeout,
                query_id,
                write=False,
            ),
        )

    def run(
        self, sql: str, params: Parameters = None, *, timeout: float | None = None, query_id: str | None = None
    ) -> Done:
        """Run one statement that changes tables, views or schemas of the lake; arguments and errors as of `sql`.

        Raises:
            LakeReadOnly: the lake is open for reading, or pinned.
        """
        return self._noted(sql, params, lambda: self._changed(sql, params, timeout, query_id))

    def running(self) -> list[Answer]:
        """The queries of this principal under way, oldest first; those that wait for a worker are not among them."""
        return [answer for answer in list(self._pool.running.values()) if answer.principal == self.principal]

    def cancel(self, query_id: str) -> bool:
        """Stop a query of this principal, from any thread; False when none of that id is under way."""
        answer = self._pool.running.get(query_id)
        if answer is None or answer.principal != self.principal:
            return False
        answer.cancel()
        return True

    @property
    def workers(self) -> tuple[int, int]:
        """How many worker processes the lake has for all principals, and how many of them are busy."""
        return self._pool.count()

    def _changed(self, sql: str, params: Parameters, timeout: float | None, query_id: str | None) -> Done:
        name, before, started = query_id or _name(), self._catalog.metadata.current(), time.monotonic()
        mark = uuid.uuid4().hex
        request = Request(sql, wire.packed(params), asked={"principal": self.principal, "query": name, "mark": mark})
        try:
            answer = self._ask(request, timeout, name, write=True)
            rows = answer.arrow()
        except (QueryTimeout, QueryCancelled, WorkerDied):
            # The worker may have got as far as its commit: then it is done, and only its word was lost.
            if (snapshot := self._committed(before, mark)) is None:
                raise
            return Done(name, snapshot, None, "write", time.monotonic() - started)
        changed = int(rows.column(0)[0].as_py()) if rows.column_names == ["Count"] and rows.num_rows == 1 else None
        return Done(name, answer.snapshot, changed, answer._head.kind, answer.elapsed or 0.0)

    def _committed(self, before: int, mark: str) -> int | None:
        """The snapshot after `before` whose note has a mark."""
        self._catalog.metadata.current()
        found = self._catalog.metadata.snapshots(f"s.snapshot_id > {before}")
        return next((one.id for one in found if one.note is not None and mark in one.note), None)

    def _noted(self, sql: str, params: Parameters, work: Callable[[], A]) -> A:
        return work() if self._history is None else self._history.noted(sql, params, work)

    def _ask(self, request: Request, timeout: float | None, query_id: str | None, *, write: bool) -> Answer:
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
            raise QueryError(f"timeout must be seconds above 0, not {timeout!r}")
        query = self._settings.query
        seconds = min(timeout or query.timeout or query.sandbox_timeout, query.sandbox_timeout)
        begun = time.monotonic()
        worker = self._pool.acquire(self.principal, write=write, timeout=seconds)
        answer = Answer(self._pool, worker, request.sql, self.principal, query_id or _name(), seconds, query.max_rows)
        self._pool.running[answer.query_id] = answer
        try:
            if self._traces is not None and not write:
                request = msgspec.structs.replace(request, traces=self._traces(request.sql, worker.folder))
            worker.ask(request, max(0.001, seconds - (time.monotonic() - begun)))
            answer._begin()
        except BaseException:
            answer.close()
            raise
        return answer

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to let go of: the workers are the lake's."""


def _name() -> str:
    return f"{os.getpid()}-s{next(_numbers)}"
