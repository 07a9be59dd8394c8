"""What the observer keeps: one event per thing that ran, and what is counted of them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import msgspec

from lakehouse.errors import EventInvalid

Status = Literal["started", "done", "skipped", "failed", "timeout", "cancelled", "interrupted", "not_run"]
"""`started`: it has only begun. `done`: it succeeded. `skipped`: nothing had changed, so what it made before stands.
`failed`, `timeout`, `cancelled`: it ended without success. `interrupted`: whoever ran it died. `not_run`: it never
began, and the event's `reason` says why."""
SUCCESSES = frozenset({"done", "skipped"})
_ERRORS = frozenset({"failed", "timeout", "interrupted"})
_NEED_REASON = frozenset({"not_run", "skipped"})


class Problem(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What went wrong."""

    type: str
    """The name of the exception, or a word such as `timeout`."""
    message: str = ""
    where: str | None = None
    """The file and line, cell, statement or host."""

    @classmethod
    def of(cls, error: BaseException, where: str | None = None) -> Problem:
        """The problem that an exception is."""
        message = getattr(error, "message", None)
        return cls(type(error).__name__, message if isinstance(message, str) else str(error), where)


class Data(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Something that was read or written."""

    name: str
    """A table with its schema (`main.flights`), an object's key, a path or an address."""
    kind: Literal["table", "object", "file", "url"] = "table"
    snapshot: int | None = None
    """Of a table: the lake's snapshot that was read, or that the write made."""
    hash: str | None = None
    """Of an object or a file: the SHA-256 of its bytes."""
    rows: int | None = None
    bytes: int | None = None
    columns: dict[str, str] | None = None
    """Types by name, where they are known."""
    sources: dict[str, list[tuple[str, str]]] | None = None
    """Of an output: by column, the tables and columns that it was made of."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One run of one node, or with `node` None, of a whole workflow; or anything else that ran.

    Raises:
        EventInvalid: its parts contradict each other: only `done` and `skipped` are successes, a success has no
            error, a failure has one, and what did not run has a reason.
    """

    run: str
    """What the nodes of one run have in common."""
    status: Status
    success: bool | None = None
    """None while it has only begun; left out, the status decides."""
    workflow: str | None = None
    node: str | None = None
    mode: str | None = None
    """How the node worked: `sql`, `ingest`, `notebook`, …"""
    error: Problem | None = None
    reason: str | None = None
    """Why it was not run, or skipped."""
    started: datetime | None = None
    ended: datetime | None = None
    elapsed: float | None = None
    """Seconds by a clock that never goes back; left out, what lies between the two times, if that is not negative."""
    inputs: tuple[Data, ...] = ()
    outputs: tuple[Data, ...] = ()
    attempt: int = 1
    principal: str | None = None
    fields: dict[str, Any] = {}
    """Anything else; what is no JSON is kept as text."""
    id: str = msgspec.field(default_factory=lambda: uuid.uuid4().hex)
    seq: int | None = None
    """Where it stands in the journal; set by the observer, None when it does not stand there."""
    recorded: datetime | None = None
    """When the observer took it, by its clock; set by the observer."""

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise EventInvalid(f"'{self.status}' is not a status", hint=", ".join(get_args(Status)))
        good = None if self.status == "started" else self.status in SUCCESSES
        if self.success is None:
            _set(self, "success", good)
        elif self.success is not good:
            raise EventInvalid(f"an event that is '{self.status}' has success {good}, not {self.success}")
        if self.error is not None and good is not False:
            raise EventInvalid(f"an event that is '{self.status}' has no error", hint="status='failed'")
        if self.error is None and self.status in _ERRORS:
            raise EventInvalid(f"an event that is '{self.status}' says what went wrong", hint="error=Problem(type, …)")
        if self.reason is None and self.status in _NEED_REASON:
            raise EventInvalid(f"an event that is '{self.status}' says why", hint="reason='…'")
        for name in ("started", "ended", "recorded"):
            time = getattr(self, name)
            if time is not None and time.tzinfo is None:
                _set(self, name, time.replace(tzinfo=UTC))
        if self.elapsed is None and self.started is not None and self.ended is not None:
            seconds = (self.ended - self.started).total_seconds()
            _set(self, "elapsed", seconds if seconds >= 0 else None)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, with nothing left out."""
        return {name: msgspec.to_builtins(getattr(self, name)) for name in self.__struct_fields__}


class Receipt(msgspec.Struct, frozen=True):
    """What became of events that were recorded."""

    accepted: int
    """How many were taken; all that were given."""
    evicted: int
    """How many older ones the ring let go of for them."""
    persisted: bool
    """Whether they are in the journal, as surely as `observer.sync` says."""
    seq: int | None
    """The last one's place in the journal; None: it is only in memory."""
    problem: str | None = None
    """Why they are not in the journal, though they should be."""


class Counters(msgspec.Struct, frozen=True):
    """Exact counts of one observer since it was opened."""

    accepted: int = 0
    """Events that were taken: each is in the ring, or evicted."""
    evicted: int = 0
    """Events that the ring let go of; they are in the journal if they were persisted."""
    persisted: int = 0
    """Events that were written to the journal."""
    persist_failed: int = 0
    """Events that could not be. With `require_persist` they were refused and are not in `accepted`."""


class Delivered(msgspec.Struct, frozen=True):
    """Exact counts of run events for an OpenLineage endpoint since the lake was opened."""

    sent: int = 0
    failed: int = 0
    """The endpoint did not take them."""
    dropped: int = 0
    """There was no room for them to wait for a slow endpoint, or the lake was closed before their turn."""


class Stats(msgspec.Struct, frozen=True):
    """What one node of a workflow, in one mode, came to."""

    workflow: str | None
    node: str | None
    mode: str | None
    runs: int
    """How often it ended, with or without success."""
    failures: int
    """How often without."""
    skipped: int
    not_run: int
    p50: float | None
    """Seconds that half of the runs took at most; None: no run says how long it took."""
    p90: float | None
    p99: float | None
    slowest: float | None
    last_status: str
    last_seen: datetime
    last_error: Problem | None


def _set(event: Event, name: str, value: Any) -> None:
    msgspec.structs.force_setattr(event, name, value)
