"""Queries under way: waited for so that a timeout, a cancel or Ctrl-C stops them at once."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import duckdb

from lakehouse.errors import LakehouseError, QueryCancelled, QueryTimeout

T = TypeVar("T")
_MOST = 1000  # queries at once
_STEP = 0.2  # seconds between looks at a query under way
_PATIENCE = 2.0  # seconds before progress is shown


@dataclass
class Running:
    """A query under way."""

    query_id: str
    sql: str
    connection: duckdb.DuckDBPyConnection = field(repr=False)
    started: float = field(default_factory=time.monotonic)
    deadline: float | None = None
    cancelled: bool = False
    thread: int = field(default_factory=threading.get_ident)
    """The thread that waits for it."""

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.started

    @property
    def progress(self) -> float | None:
        """Percent that is done, as DuckDB guesses; None when it does not."""
        try:
            percent = self.connection.query_progress()
        except duckdb.Error:
            return None  # it has just ended
        return percent if percent >= 0 else None


class Runner:
    """Runs queries in threads of its own while the caller waits and stays reachable for signals.

    Args:
        progress: show a bar for anything over two seconds, in a terminal or a notebook.
    """

    def __init__(self, *, progress: bool) -> None:
        self._progress = progress
        # Threads are made when all are busy: a query never waits for another one.
        self._pool = ThreadPoolExecutor(_MOST, thread_name_prefix="lakehouse-query")
        self._running: dict[str, Running] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def running(self) -> list[Running]:
        """The queries under way, oldest first."""
        return list(self._running.values())

    def cancel(self, query_id: str) -> bool:
        """Stop a query; False when none of that id is under way."""
        running = self._running.get(query_id)
        if running is None:
            return False
        running.cancelled = True
        running.connection.interrupt()
        return True

    @contextmanager
    def query(self, sql: str, connection: duckdb.DuckDBPyConnection, timeout: float | None) -> Iterator[Running]:
        """Name a query and keep it in `running()` while the block lasts."""
        query_id = f"{os.getpid()}-{next(self._numbers)}"
        running = Running(query_id, sql, connection)
        running.deadline = None if timeout is None else running.started + timeout
        try:
            self._running[query_id] = running
            yield running
        except LakehouseError as error:
            if running.cancelled and not isinstance(error, QueryTimeout):
                raise QueryCancelled(f"the query {query_id} was cancelled") from None
            raise
        finally:
            self._running.pop(query_id, None)

    def wait(self, running: Running, work: Callable[[], T]) -> T:
        """The result of `work`, run in another thread.

        Raises:
            QueryTimeout: the deadline passed first.
            QueryCancelled: `cancel` stopped it.
            KeyboardInterrupt: Ctrl-C; the query has been stopped.
        """
        if running.cancelled:
            raise QueryCancelled(f"the query {running.query_id} was cancelled")
        future = self._pool.submit(work)
        bar: Any = None
        timed_out = False
        shown = self._progress and threading.current_thread() is threading.main_thread()
        try:
            while True:
                try:
                    return future.result(self._patience(running))
                except NotYet:
                    if future.done():
                        return future.result()
                timed_out = running.deadline is not None and time.monotonic() >= running.deadline
                if timed_out or running.cancelled:  # again each time: it may not have been in DuckDB yet
                    running.connection.interrupt()
                # A bar belongs to the cell being run, and cells are run by the main thread.
                if shown and running.elapsed > _PATIENCE:
                    bar = _show(bar, running)
        except BaseException as error:
            if not future.done():
                _stop(running, future)
            if timed_out:
                limit = (running.deadline or 0.0) - running.started
                raise QueryTimeout(
                    f"the query was stopped after {limit:g} s", hint="give it more time with timeout= or query.timeout"
                ) from None
            if running.cancelled and isinstance(error, Exception):
                raise QueryCancelled(f"the query {running.query_id} was cancelled") from None
            raise
        finally:
            if bar is not None:
                bar.close()

    def close(self) -> None:
        """Stop everything that runs."""
        for running in self.running():
            self.cancel(running.query_id)
        self._pool.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _patience(running: Running) -> float:
        if running.deadline is None:
            return _STEP
        return max(0.001, min(_STEP, running.deadline - time.monotonic()))


def _stop(running: Running, future: Future[T]) -> None:
    """Interrupt until the thread is out of DuckDB: the connection must be idle before anyone uses it again."""
    future.cancel()
    while not future.done():
        running.connection.interrupt()
        try:
            future.exception(0.05)
        except NotYet:
            continue


def _show(bar: Any, running: Running) -> Any:
    from tqdm.auto import tqdm

    percent = running.connection.query_progress()
    if bar is None:
        shape = "{desc} {percentage:3.0f}%|{bar}| {elapsed}"
        bar = tqdm(total=100, desc=running.sql[:40], leave=False, disable=None, bar_format=shape)
    if percent > bar.n:
        bar.update(percent - bar.n)
    return bar
