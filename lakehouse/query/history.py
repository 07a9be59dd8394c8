"""Query history: what `lake.sql` was asked, by whom, and what came of it, across processes and with a bound.

A query only leaves a note of itself in memory; a thread of its own writes the notes to a SQLite file in batches, a
moment later. History is no acknowledged data: what cannot be written is dropped with one warning, and no query fails
or waits for it. Values of parameters are never kept, and what looks like a secret in the SQL is masked.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_args

from lakehouse.catalog.origin import origin
from lakehouse.catalog.secrets import masked
from lakehouse.errors import LakehouseError, QueryCancelled, QueryError, QueryTimeout
from lakehouse.state import State

if TYPE_CHECKING:
    from lakehouse.query.result import Result
    from lakehouse.query.script import Parameters

FILE_NAME = "queries.sqlite"
SCHEMA = """
CREATE TABLE IF NOT EXISTS query (id INTEGER PRIMARY KEY AUTOINCREMENT, query_id TEXT, sql TEXT NOT NULL,
    parameters TEXT NOT NULL, snapshot INTEGER, rows INTEGER, elapsed REAL NOT NULL, status TEXT NOT NULL, code TEXT,
    started REAL NOT NULL, origin TEXT NOT NULL, process INTEGER NOT NULL)
"""
Status = Literal["ok", "failed", "cancelled", "timeout"]

_BATCH_WAIT = 0.5  # seconds that notes gather before they are written together
_IDLE = 10.0  # seconds without a query after which the thread ends
_SQL = 20_000  # characters of SQL kept
_PATIENCE = 5.0  # seconds to wait for another process that writes its own
_FIELDS = "query_id, sql, parameters, snapshot, rows, elapsed, status, code, started, origin, process"

_log = logging.getLogger(__name__)
_Note = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """One call of `lake.sql` that has ended."""

    id: int
    """Its number in the history; grows with time."""
    query_id: str | None
    """The id it ran under (see `lake.running()`); None when it failed before."""
    sql: str
    """As it was given; secrets are masked, very long texts cut."""
    parameters: tuple[str, ...]
    """Names of the values it was given, never the values."""
    snapshot: int | None
    """The snapshot read, or made; None when it failed."""
    rows: int | None
    """Rows given or changed; None when they were not counted."""
    elapsed: float
    """Seconds until the rows, or the first of very many, were here."""
    status: Status
    code: str | None
    """The code of the error; None when there was none."""
    started: datetime
    origin: str
    """The notebook or script, or `command line`, or `Python`."""
    process: int

    def to_dict(self) -> dict[str, Any]:
        """All facts as values that JSON has."""
        return {**asdict(self), "started": self.started.isoformat(timespec="milliseconds")}


class Noted(Protocol):
    """What else than a `Result` a query may come to."""

    @property
    def query_id(self) -> str: ...
    @property
    def snapshot(self) -> int: ...
    @property
    def changed(self) -> int | None:
        """Rows that a write changed; None when it does not say, and for a read."""


A = TypeVar("A", bound="Result | Noted")


class History:
    """The history of one lake.

    Args:
        folder: the lake folder.
        keep: how many queries are kept; 0: none, and nothing is noted.
        writable: whether notes may be written there.
    """

    def __init__(self, folder: Path, keep: int, *, writable: bool) -> None:
        self._file = _File(State(folder / FILE_NAME, SCHEMA, synchronous="NORMAL", patience=_PATIENCE), keep)
        self._on = keep > 0 and writable
        # It also runs at the end of the process, for a lake that nobody closed.
        self._finish = weakref.finalize(self, self._file.flush)

    def noted(self, sql: str, params: Parameters, work: Callable[[], A]) -> A:
        """What `work` gives or raises; the query is kept in mind, which costs a few microseconds."""
        if not self._on:
            return work()
        started, begun = time.time(), time.perf_counter()
        try:
            result = work()
        except BaseException as error:
            self._note(sql, params, started, time.perf_counter() - begun, None, error)
            raise
        self._note(sql, params, started, time.perf_counter() - begun, result, None)
        return result

    def queries(self, limit: int | None = 100, text: str | None = None, status: Status | None = None) -> list[Query]:
        """The queries kept, newest first; see `Lakehouse.queries`."""
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise QueryError(f"limit must be a whole number from 0, not {limit!r}")
        if status is not None and status not in get_args(Status):
            raise QueryError(f"there is no status '{status}'", hint=f"it is one of {', '.join(get_args(Status))}")
        self._file.flush()
        where, values = ["true"], []
        if text:
            where.append("instr(lower(sql), lower(?)) > 0")
            values.append(text)
        if status:
            where.append("status = ?")
            values.append(status)
        rows = self._file.state.read(
            f"SELECT id, {_FIELDS} FROM query WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?",
            [*values, -1 if limit is None else limit],
        )
        return [_query(row) for row in rows]

    def _note(
        self,
        sql: str,
        params: Parameters,
        started: float,
        elapsed: float,
        result: Result | Noted | None,
        error: BaseException | None,
    ) -> None:
        status, code = _outcome(error)
        query_id, snapshot, rows = (None, None, None) if result is None else _facts(result)
        # Whatever was given: the error that says it is no parameters is noted as well.
        names = tuple(params) if isinstance(params, Mapping) else len(params) if isinstance(params, list | tuple) else 0
        text = str(sql)[:_SQL].encode("utf-8", "backslashreplace").decode()  # whatever was given is kept
        self._file.add((query_id, text, names, snapshot, rows, elapsed, status, code, started, os.getpid()))

    def close(self) -> None:
        """Write what is not written yet."""
        self._finish()
        self._on = False


class _File:
    """The notes of one process on their way to the file; it knows nobody, so that its thread keeps nobody alive."""

    def __init__(self, state: State, keep: int) -> None:
        self.state = state
        self._keep = keep
        self._notes: deque[_Note] = deque(maxlen=max(1, keep))  # what would fall out of the file need not wait for it
        self._waiting = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._writing = threading.Lock()
        self._warned = False

    def add(self, note: _Note) -> None:
        self._notes.append(note)
        if not self._waiting.is_set():
            self._waiting.set()
        if self._thread is None or not self._thread.is_alive():
            self._start()

    def flush(self) -> None:
        """Write all notes; never raises."""
        with self._writing:
            notes = []
            while self._notes:
                notes.append(self._notes.popleft())
            mine = [_row(note) for note in notes if note[-1] == os.getpid()]  # a forked process has its parent's too
            if not mine:
                return
            try:
                self._write(mine)
            except (LakehouseError, OSError, ImportError, ValueError) as error:
                if not self._warned:
                    self._warned = True
                    _log.warning("the query history is not kept: %s", getattr(error, "message", error))

    def _write(self, rows: list[_Note]) -> None:
        with self.state.write() as connection:
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO query ({_FIELDS}) VALUES ({marks})", rows)
            connection.execute("DELETE FROM query WHERE id <= (SELECT max(id) FROM query) - ?", (self._keep,))

    def _start(self) -> None:
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="lakehouse-history", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:
                    self._thread = None  # the process is ending; what is noted is written at its very end

    def _run(self) -> None:
        while self._waiting.wait(_IDLE):
            time.sleep(_BATCH_WAIT)
            self._waiting.clear()
            self.flush()


def _outcome(error: BaseException | None) -> tuple[Status, str | None]:
    if error is None:
        return "ok", None
    if isinstance(error, QueryTimeout):
        return "timeout", error.code
    if isinstance(error, QueryCancelled):
        return "cancelled", error.code
    if isinstance(error, KeyboardInterrupt):
        return "cancelled", "interrupted"
    return "failed", error.code if isinstance(error, LakehouseError) else type(error).__name__


def _facts(result: Result | Noted) -> tuple[str, int, int | None]:
    """Id, snapshot and rows of a result, without making it count or fetch anything."""
    from lakehouse.query.result import Result

    if not isinstance(result, Result):
        return result.query_id, result.snapshot, result.changed
    rows = result._count
    if result.kind != "read":
        table = result._page.table
        rows = table.column(0)[0].as_py() if table.column_names == ["Count"] and table.num_rows else None
    return result.query_id, result.snapshot, rows


def _row(note: _Note) -> _Note:
    query_id, sql, names, snapshot, rows, elapsed, status, code, started, process = note
    named = ",".join(map(str, names)) if isinstance(names, tuple) else ",".join(str(i + 1) for i in range(names))
    return query_id, masked(sql), named, snapshot, rows, elapsed, status, code, started, str(origin()), process


def _query(row: _Note) -> Query:
    id, query_id, sql, names, snapshot, rows, elapsed, status, code, started, where, process = row
    moment = datetime.fromtimestamp(started, UTC)
    parameters = tuple(names.split(",")) if names else ()
    return Query(id, query_id, sql, parameters, snapshot, rows, elapsed, status, code, moment, where, process)
