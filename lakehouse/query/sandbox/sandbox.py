"""`lake.sandbox()`: SQL that nobody here has read, run where it can do no harm."""

from __future__ import annotations

import itertools
import os
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from lakehouse.errors import QueryError
from lakehouse.query.sandbox import wire
from lakehouse.query.sandbox.answer import Answer, Done
from lakehouse.query.sandbox.confine import Level
from lakehouse.query.sandbox.pool import Pool
from lakehouse.query.sandbox.wire import Request

__all__ = ["Answer", "Done", "Sandbox"]

if TYPE_CHECKING:
    from lakehouse.catalog.catalog import Catalog
    from lakehouse.catalog.metadata import Version
    from lakehouse.config import Settings
    from lakehouse.query.history import History
    from lakehouse.query.script import Parameters

_ROWS = re.compile(r"(?:inlined_insert|inlined_delete|inserted_into_table|deleted_from_table):")
_numbers = itertools.count(1)
A = TypeVar("A", Answer, Done)


class Sandbox:
    """SQL of one principal, kept apart from this process and from other principals.

    Args:
        pool: the workers of the lake.
        principal: whose SQL it is.
        settings: the lake's.
        catalog: the lake's: it knows what a version means, and what was committed.
        history: where it is noted what was asked; None: nowhere.
        version: the snapshot that the lake is pinned to; None: it is not.
        traces: lends `pathway.traces` to a worker, see `TraceTable.lent`; None: nobody does.
    """

    def __init__(
        self,
        pool: Pool,
        principal: str,
        settings: Settings,
        catalog: Catalog,
        *,
        version: int | None = None,
        history: History | None = None,
        traces: Callable[[str, Path], tuple[str, ...]] | None = None,
    ) -> None:
        self._pool = pool
        self.principal = principal
        self._settings = settings
        self._catalog = catalog
        self._version = version
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

    @property
    def workers(self) -> tuple[int, int]:
        """How many processes there are for the SQL of all principals, and how many of them are busy."""
        return self._pool.count()

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
        return self._noted(
            sql,
            params,
            lambda: self._ask(
                Request(sql, wire.packed(params), self._version if at is None else self._catalog.resolve(at), limit),
                timeout,
                query_id,
                begun,
                write=False,
            ),
        )

    def run(
        self,
        sql: str,
        params: Parameters = None,
        *,
        timeout: float | None = None,
        query_id: str | None = None,
        begun: Callable[[Answer], None] | None = None,
        mark: str | None = None,
        again: bool = False,
    ) -> Done:
        """Run one statement that changes tables, views or schemas of the lake; arguments and errors as of `sql`.

        `mark` is a name for this very statement, kept in the note of its commit (None: one is made). `again` says that
        it may have been run under its mark before, by a process that died: then it is not run again.

        Raises:
            LakeReadOnly: the lake is open for reading, or pinned.
        """
        return self._noted(
            sql, params, lambda: self._once(sql, params, timeout, query_id, begun, mark or uuid.uuid4().hex, again)
        )

    def running(self) -> list[Answer]:
        """The queries of this principal under way, oldest first; those that wait for a worker are not among them."""
        return [one for one in list(self._pool.running.values()) if one.principal == self.principal]

    def cancel(self, query_id: str) -> bool:
        """Stop a query of this principal, from any thread; False when none of that id is under way."""
        answer = self._pool.running.get((self.principal, query_id))
        if answer is None:
            return False
        answer.cancel()
        return True

    def _once(
        self,
        sql: str,
        params: Parameters,
        timeout: float | None,
        query_id: str | None,
        begun: Callable[[Answer], None] | None,
        mark: str,
        again: bool,
    ) -> Done:
        name, started = query_id or _name(), time.monotonic()
        if again:
            with self._catalog.writer.plain():
                pass  # whatever was at its commit when its process died has come to its end
            if (done := self._committed(name, mark, 0, started)) is not None:
                return done
        return self._changed(sql, params, timeout, name, begun, mark)

    def _changed(
        self,
        sql: str,
        params: Parameters,
        timeout: float | None,
        name: str,
        begun: Callable[[Answer], None] | None,
        mark: str,
    ) -> Done:
        before, started = self._catalog.metadata.current(), time.monotonic()
        request = Request(sql, wire.packed(params), asked={"principal": self.principal, "query": name, "mark": mark})
        try:
            answer = self._ask(request, timeout, name, begun, write=True)
            rows = answer.arrow()
        except QueryError:
            # The worker may have got as far as its commit: then it is done, and only its word was lost.
            if (done := self._committed(name, mark, before, started)) is None:
                raise
            return done
        changed = int(rows.column(0)[0].as_py()) if rows.column_names == ["Count"] and rows.num_rows == 1 else None
        return Done(name, answer.snapshot, changed, answer.kind, answer.elapsed or 0.0)

    def _committed(self, name: str, mark: str, before: int, started: float) -> Done | None:
        """What is known of the statement that was committed with a mark after a snapshot; None when it was not."""
        found = self._catalog.marked(mark, before)
        if found is None:
            return None
        rows = all(_ROWS.match(change) for change in found.changes.split(","))
        return Done(name, found.id, None, "write" if rows else "ddl", time.monotonic() - started)

    def _noted(self, sql: str, params: Parameters, work: Callable[[], A]) -> A:
        return work() if self._history is None else self._history.noted(sql, params, work)

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
        started, key = time.monotonic(), (self.principal, query_id or _name())
        if key in self._pool.running or key in self._pool.waiting:
            raise QueryError(f"a query {query_id} is under way already", hint="give each query an id of its own")
        self._pool.waiting.add(key)
        try:
            worker = self._pool.acquire(self.principal, write=write, timeout=seconds)
            answer = self._pool.running[key] = Answer(self._pool, worker, request.sql, key, seconds, query.max_rows)
        finally:
            self._pool.waiting.discard(key)
        try:
            if self._traces is not None and not write:
                request = msgspec.structs.replace(request, traces=self._traces(request.sql, worker.folder))
            answer.ask(request, max(0.001, seconds - (time.monotonic() - started)))
            if begun is not None:
                begun(answer)
            answer.wait()
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
