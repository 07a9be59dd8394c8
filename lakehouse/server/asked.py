"""The SQL that this server runs, or has just run: watched and cancelled by whoever asked for it."""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from lakehouse.auth import Principal
from lakehouse.errors import Conflict, LakehouseError, NotFound, QueryCancelled, RequestInvalid

if TYPE_CHECKING:
    from lakehouse.query.sandbox.sandbox import Sandbox

HEADER = "Lakehouse-Query-Id"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEPT = 1000  # that have ended
_SQL = 2000  # characters shown
_AGAIN = 0.1  # seconds
State = Literal["running", "done", "failed", "cancelled"]


class Progress(msgspec.Struct):
    """How far a query is, or how it ended."""

    query_id: str
    principal: str
    """Who asked."""
    sql: str
    state: State
    progress: float | None
    """Percent; null when that is not known."""
    rows: int
    """That were handed over so far."""
    elapsed: float
    """Seconds."""
    started: datetime
    code: str | None
    """Of the error that ended it."""


class Asked:
    """One query or statement.

    Args:
        query_id: the id it runs under.
        principal: who asked.
        sql: what.
        sandbox: where it runs.
    """

    def __init__(self, query_id: str, principal: Principal, sql: str, sandbox: Sandbox) -> None:
        self.query_id = query_id
        self.principal = principal.name
        self.sql = sql
        self.state: State = "running"
        self._sandbox: Sandbox | None = sandbox
        self._code: str | None = None
        self._cancelled = False
        self._rows = 0
        self._started, self._clock = datetime.now(UTC), time.monotonic()
        self._elapsed: float | None = None
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """Stop it; one that still waits for a worker as soon as it has one."""
        with self._lock:
            self._cancelled, sandbox = True, self._sandbox
        if sandbox is not None and not sandbox.cancel(self.query_id):
            again = threading.Timer(_AGAIN, self.cancel)
            again.daemon = True
            again.start()

    def ended(self, error: BaseException | None = None, rows: int | None = None) -> None:
        """It is over, with so many rows handed over or changed; the first word counts."""
        with self._lock:
            if self._sandbox is None:
                return
            self._sandbox, self._rows, self._elapsed = None, rows or 0, time.monotonic() - self._clock
        if error is None:
            self.state = "done"
            return
        self._code = error.code if isinstance(error, LakehouseError) else None
        self.state = "cancelled" if self._cancelled or isinstance(error, QueryCancelled | GeneratorExit) else "failed"

    def told(self) -> Progress:
        """How far it is."""
        sandbox = self._sandbox
        running = () if sandbox is None else sandbox.running()
        answer = next((one for one in running if one.query_id == self.query_id), None)
        percent = 100.0 if self.state == "done" else None if answer is None else answer.progress()
        rows = self._rows if answer is None else answer.rows
        elapsed = time.monotonic() - self._clock if self._elapsed is None else self._elapsed
        sql = self.sql[:_SQL]
        return Progress(
            self.query_id, self.principal, sql, self.state, percent, rows, elapsed, self._started, self._code
        )


class Register:
    """All of one server; of those that have ended the last thousand are remembered."""

    def __init__(self) -> None:
        self._asked: OrderedDict[str, Asked] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, wanted: str | None, principal: Principal, sql: str, sandbox: Sandbox) -> Asked:
        """Enter one.

        Args:
            wanted: the id that the caller chose; None: one is made.
            principal: who asks.
            sql: what.
            sandbox: where it runs.

        Raises:
            RequestInvalid: the id cannot be one.
            Conflict: it is taken.
        """
        if wanted is not None and not _ID.fullmatch(wanted):
            raise RequestInvalid(f"{HEADER} has 1 to 64 letters, digits, dots, dashes", hint="such as a UUID")
        asked = Asked(wanted or uuid.uuid4().hex, principal, sql, sandbox)
        with self._lock:
            if asked.query_id in self._asked:
                raise Conflict(f"there is a query '{asked.query_id}'", hint="every query has an id of its own")
            self._asked[asked.query_id] = asked
            over = len(self._asked) - _KEPT
            for old in [one for one in self._asked.values() if one.state != "running"][: max(0, over)]:
                del self._asked[old.query_id]
        return asked

    def find(self, query_id: str, principal: Principal) -> Asked:
        """One that this principal may see: its own, and every one when it may write.

        Raises:
            NotFound: there is none, or it is somebody else's.
        """
        asked = self._asked.get(query_id)
        if asked is None or not _may(principal, asked):
            raise NotFound(f"there is no query '{query_id[:64]}'", hint="ended ones are forgotten after a while")
        return asked

    def running(self, seen: Callable[[Asked], bool] = lambda _: True) -> list[Asked]:
        """Those under way, oldest first."""
        with self._lock:
            return [one for one in self._asked.values() if one.state == "running" and seen(one)]

    def of(self, principal: Principal) -> list[Asked]:
        """Those under way that a principal may see."""
        return self.running(lambda one: _may(principal, one))


def _may(principal: Principal, asked: Asked) -> bool:
    return principal.may("write") or asked.principal == principal.name
