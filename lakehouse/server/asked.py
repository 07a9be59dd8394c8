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
    from lakehouse.query.sandbox.sandbox import Answer

HEADER = "Lakehouse-Query-Id"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEPT = 1000  # that have ended
_SQL = 2000  # characters shown
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
    """One query or statement."""

    def __init__(self, query_id: str, principal: Principal, sql: str) -> None:
        self.query_id = query_id
        self.principal = principal.name
        self.sql = sql
        self.state: State = "running"
        self.code: str | None = None
        self._answer: Answer | None = None
        self._cancelled = False
        self._rows = 0
        self._started, self._clock = datetime.now(UTC), time.monotonic()
        self._elapsed: float | None = None
        self._lock = threading.Lock()

    def begun(self, answer: Answer) -> None:
        """A worker has it."""
        with self._lock:
            self._answer = answer
            cancelled = self._cancelled
        if cancelled:
            answer.cancel()

    def cancel(self) -> None:
        """Stop it, now or when a worker gets it."""
        with self._lock:
            self._cancelled = True
            answer = self._answer
        if answer is not None:
            answer.cancel()

    def ended(self, error: BaseException | None = None) -> None:
        """It is over; the first word counts."""
        with self._lock:
            if self._elapsed is not None:
                return
            self._elapsed = time.monotonic() - self._clock
            if self._answer is not None:
                self._rows, self._answer = self._answer.rows, None
        if error is None:
            self.state = "done"
            return
        self.code = error.code if isinstance(error, LakehouseError) else None
        self.state = "cancelled" if self._cancelled or isinstance(error, QueryCancelled | GeneratorExit) else "failed"

    def told(self) -> Progress:
        """How far it is."""
        answer = self._answer
        percent = 100.0 if self.state == "done" else None if answer is None else answer.progress()
        rows = self._rows if answer is None else answer.rows
        elapsed = time.monotonic() - self._clock if self._elapsed is None else self._elapsed
        return Progress(
            self.query_id,
            self.principal,
            self.sql[:_SQL],
            self.state,
            percent,
            rows,
            elapsed,
            self._started,
            self.code,
        )


class Register:
    """All of one server; of those that have ended the last thousand are remembered."""

    def __init__(self) -> None:
        self._asked: OrderedDict[str, Asked] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, wanted: str | None, principal: Principal, sql: str) -> Asked:
        """Enter one.

        Args:
            wanted: the id that the caller chose; None: one is made.
            principal: who asks.
            sql: what.

        Raises:
            RequestInvalid: the id cannot be one.
            Conflict: it is taken.
        """
        if wanted is not None and not _ID.fullmatch(wanted):
            raise RequestInvalid(f"{HEADER} has 1 to 64 letters, digits, dots, dashes", hint="such as a UUID")
        asked = Asked(wanted or uuid.uuid4().hex, principal, sql)
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
