"""What a statement in a sandbox gives: rows that are taken once, or what it did."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from lakehouse.errors import LakehouseError, QueryCancelled, QueryError, QueryMemory, QueryTimeout, ResultTooLarge
from lakehouse.query.sandbox import wire
from lakehouse.query.sandbox.frames import Frame
from lakehouse.query.sandbox.wire import End, Fault, Head, Request

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa

    from lakehouse.query.sandbox.pool import Pool
    from lakehouse.query.sandbox.process import Worker

M = TypeVar("M", Head, Fault, End)


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
        self, pool: Pool, worker: Worker, sql: str, key: tuple[str, str], timeout: float, max_rows: int
    ) -> None:
        self.sql = sql
        self.principal, self.query_id = key
        self.started = time.monotonic()
        self.elapsed: float | None = None
        """Seconds until the last row was taken; None before."""
        self.rows = 0
        """Rows taken so far."""
        self._pool = pool
        self._worker = worker
        self._timeout = timeout
        self._max_rows = max_rows
        self._number: int | None = None
        self._open = True
        self._ending = threading.Lock()
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
        for frame in self.frames():
            yield from frame.batches

    def frames(self) -> Iterator[Frame]:
        """The rows as `batches` gives them, with the bytes that they came as."""
        while self._open:
            kind, content = self._next()
            if kind == wire.ROWS:
                frame = self._frame(content)
                self.rows += sum(batch.num_rows for batch in frame.batches)
                yield frame

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
        try:
            with duckdb.connect() as connection:
                return connection.from_arrow(table).df()
        except duckdb.Error as error:
            raise QueryError(f"the worker sent rows that cannot be read: {error}") from None

    def progress(self) -> float | None:
        """How far it is, in percent, from any thread; None when that is not known."""
        if not self._open:
            return 100.0 if self.elapsed is not None else None
        return self._worker.progress()[0]

    def cancel(self) -> None:
        """Stop it, from any thread; who takes the rows gets QueryCancelled."""
        if self._open:
            self._worker.stop("cancelled", self._number)

    def close(self) -> None:
        """Have no more of it: what still runs is stopped."""
        if self._open:
            self._worker.stop("closed", self._number)
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

    @property
    def kind(self) -> str:
        """`read`, `write` or `ddl`."""
        return self._head.kind

    def ask(self, request: Request, seconds: float) -> None:
        """Send the statement to the worker."""
        self._worker.ask(request, seconds)
        self._number = self._worker.served

    def wait(self) -> None:
        """Wait for the head and the names of the columns."""
        self._head = _message(self._next(wire.HEAD)[1], Head)
        self._schema = Frame(self._next(wire.ROWS)[1]).schema

    def _next(self, wanted: int | None = None) -> tuple[int, memoryview]:
        """The next frame; the last one, and every error, gives the worker back."""
        try:
            kind, content = self._worker.channel.receive()
            if kind == wire.FAULT:
                fault = _message(content, Fault)
                self._over(clean=fault.clean)
                raise self._stopped() or wire.raised(fault)
            if kind == wire.END:
                _message(content, End)
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

    def _frame(self, content: memoryview) -> Frame:
        try:
            frame = Frame(content)
            if frame.schema != self._schema:
                raise QueryError("the worker changed its columns")
        except BaseException:
            self._over(clean=False)
            raise
        return frame

    def _over(self, *, clean: bool) -> None:
        with self._ending:
            if not self._open:
                return
            self._open = False
        self._pool.running.pop((self.principal, self.query_id), None)
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


def _message(content: memoryview, kind: type[M]) -> M:
    """A message of a worker, which may say anything."""
    try:
        return msgspec.msgpack.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise QueryError(f"the worker answered with nonsense: {error}") from None
