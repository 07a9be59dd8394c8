"""`lake.observer`: what ran, in a ring in memory and in a journal that all processes share (ADR-005)."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lakehouse.arguments import arguments_told
from lakehouse.config import ObserverSettings, parse_age
from lakehouse.errors import JournalError, LakeClosed, LakehouseError, LakeReadOnly
from lakehouse.journal import Journal
from lakehouse.observer import questions
from lakehouse.observer.encoding import decoded, encoded
from lakehouse.observer.model import Counters, Event, Receipt, Stats
from lakehouse.observer.questions import Cursor, Filters, Page, Question, event_of

if TYPE_CHECKING:
    from lakehouse.journal import Verification
    from lakehouse.observer.index import Index
    from lakehouse.observer.openlineage import OpenLineage

log = logging.getLogger("lakehouse.observer")
FILE_NAME = "events.jsonl"
LIMIT = 100
_LOOK = 0.05
"""Seconds between two looks at the journal of who follows it; events of its own process come at once."""
_LOG_EVERY = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Kept:
    """An event in the ring."""

    number: int
    """How many events this observer had taken with it."""
    seq: int | None
    """Where it stands in the journal; None: it does not."""
    place: int
    """The last record of the journal that this observer knew of, or its own."""
    recorded: datetime
    text: bytes


@dataclass(frozen=True, slots=True)
class Compaction:
    """What `compact` did."""

    dropped: int
    bytes_before: int
    bytes_after: int


@arguments_told
class Observer:
    """Takes every event: into the ring, which lets go of its oldest when it is full, and into the journal.

    Args:
        folder: where the journal and its index are, or will be.
        settings: `[observer]`.
        read_only: the lake is; events are then only in memory.
        sink: where events go as well; it is closed with this.

    Attributes:
        journal: the truth.
        openlineage: the sink, with counts of its own; None: there is none.
    """

    def __init__(
        self, folder: Path, settings: ObserverSettings, *, read_only: bool = False, sink: OpenLineage | None = None
    ) -> None:
        self.settings, self._read_only = settings, read_only
        self.journal = Journal(folder / FILE_NAME, sync=settings.sync)
        self.openlineage = sink
        self._ring: deque[Kept] = deque(maxlen=settings.ring_size)
        self._changed = threading.Condition()
        self._counts = {"accepted": 0, "evicted": 0, "persisted": 0, "persist_failed": 0}
        self._last, self._closed = 0, False
        self._told, self._untold = -_LOG_EVERY, 0
        self._opened: Index | None = None

    def record(self, event: Event) -> Receipt:
        """Take an event; a full ring lets go of its oldest for it.

        That the journal cannot be written is logged and counted, and the receipt says so; with `require_persist` it
        is raised instead, and the event was not taken.

        Raises:
            EventInvalid: it is no event.
            JournalError, DiskFull, LakeReadOnly: with `require_persist`, it could not be written.
            LakeClosed: the lake was closed.
        """
        return self.record_many((event,))

    def record_many(self, events: Iterable[Event]) -> Receipt:
        """The same for several events in order, with one write: all of them are in the journal, or none is."""
        given = list(events)
        texts = [encoded(event) for event in given]
        if self._closed:
            raise LakeClosed("the lake was closed", hint="open it again")
        if not given:
            return Receipt(0, 0, persisted=self.settings.persist, seq=None)
        seq, now, problem = self._persisted(texts)
        with self._changed:
            counts, before = self._counts, len(self._ring)
            if seq is not None:
                self._last = max(self._last, seq)
                counts["persisted"] += len(texts)
            for behind, text in enumerate(texts, start=1 - len(texts)):
                counts["accepted"] += 1
                at = None if seq is None else seq + behind
                self._ring.append(Kept(counts["accepted"], at, self._last if at is None else at, now, text))
            evicted = before + len(texts) - len(self._ring)
            counts["evicted"] += evicted
            self._changed.notify_all()
        for event in given:
            self.tell(event)
        return Receipt(len(given), evicted, persisted=seq is not None, seq=seq, problem=problem)

    def tell(self, event: Event) -> None:
        """Tell an event to the OpenLineage endpoint alone, if there is one: it is kept nowhere here."""
        if self.openlineage is not None:
            self.openlineage.offer(event)

    def counters(self) -> Counters:
        """Exact counts of this observer since it was opened."""
        with self._changed:
            return Counters(**self._counts)

    def ring(self) -> list[Event]:
        """What is in memory, newest first: the last `observer.ring_size` events of this process."""
        with self._changed:
            kept = list(self._ring)
        return [event_of(decoded(one.text), one.seq, one.recorded) for one in reversed(kept)]

    def events(
        self,
        *,
        run: str | None = None,
        workflow: str | None = None,
        node: str | None = None,
        mode: str | None = None,
        status: str | None = None,
        success: bool | None = None,
        principal: str | None = None,
        since: int | str | datetime | timedelta | None = None,
        limit: int = LIMIT,
        oldest: bool = False,
    ) -> list[Event]:
        """Events of all processes, newest first, and those of this one that are only in memory.

        Args:
            run: of this run.
            workflow: of this workflow.
            node: of this node.
            mode: of this mode.
            status: that ended so.
            success: with success, or without.
            principal: of this one.
            since: behind this place in the journal, recorded at or after this time, or within this age (`1h`).
            limit: at most so many.
            oldest: the oldest first, to read on from a place.

        Raises:
            FilterInvalid: a value is of no use.
            LakeUnusable, DiskFull: there is no place for the index.
        """
        filters = Filters(run, workflow, node, mode, status, success, principal)
        where, values = questions.since_of(since)
        loose = self._loose()
        (found,) = self._ask(
            [questions.events_sql(filters, where, values, limit, oldest=oldest, loose=bool(loose))], loose
        )
        return [
            event_of(decoded(row["text"]), row["place"] if row["number"] is None else None, row["recorded"])
            for row in found
        ]

    def places(self, ids: Iterable[str]) -> dict[str, int]:
        """Where events stand in the journal, by their ids; those that do not stand there are left out."""
        return {row["id"]: row["place"] for row in self._ask([questions.places_sql(ids)], [])[0]}

    def page(self, cursor: Cursor, filters: Filters, limit: int = 500) -> Page:
        """What came behind a cursor, oldest first, and the cursor behind that."""
        loose = [one for one in self._loose() if one.number > cursor.number]
        number = max((one.number for one in loose), default=cursor.number)
        asked = questions.events_sql(filters, f"place > {cursor.place}", [], limit, oldest=True, loose=False)
        found, end = self._index.ask([asked, questions.END])
        events = [event_of(decoded(row["text"]), row["place"], row["recorded"]) for row in found]
        place = found[-1]["place"] if found else cursor.place
        if len(found) < limit:  # what no filter let through need not be looked at again
            place = max(place, end[0]["place"])
        for one in loose:
            event = event_of(decoded(one.text), None, one.recorded)
            events += [event] if filters.match(event) else []
        return Page(events, Cursor(place, number))

    def cursor(self, since: int | None = None) -> Cursor:
        """Behind everything that there is, or behind a place in the journal."""
        number = self.counters().accepted
        if since is not None:
            return Cursor(since, number)
        return Cursor(self._index.ask([questions.END])[0][0]["place"], number)

    def follow(
        self,
        *,
        run: str | None = None,
        workflow: str | None = None,
        node: str | None = None,
        mode: str | None = None,
        status: str | None = None,
        success: bool | None = None,
        since: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[Event]:
        """Events of all processes as they come, until the lake is closed.

        Args:
            run: of this run; the others as of `events`.
            workflow: of this workflow.
            node: of this node.
            mode: of this mode.
            status: that ended so.
            success: with success, or without.
            since: begin behind this place in the journal; None: with what comes now.
            timeout: end when nothing came for so many seconds; None: never.
        """
        filters = Filters(run, workflow, node, mode, status, success)
        return self._following(filters, self.cursor(since), timeout)

    def signature(self) -> Any:
        """What is another one as soon as there may be new events; cheap to ask."""
        return self._counts["accepted"], self._index.signature(), self._closed

    def stats(
        self,
        *,
        workflow: str | None = None,
        node: str | None = None,
        mode: str | None = None,
        since: int | str | datetime | timedelta | None = None,
    ) -> list[Stats]:
        """Per workflow, node and mode: runs, failures, how long they took, the last error.

        Args:
            workflow: of this one only.
            node: of this one only.
            mode: of this one only.
            since: of events as of `events`.
        """
        where, values = questions.since_of(since)
        counted, timed, last, errors = self._ask(
            questions.stats_sql(Filters(workflow=workflow, node=node, mode=mode), where, values)
        )
        times, lasts, problems = ({tuple(row)[:3]: row for row in rows} for rows in (timed, last, errors))
        found = []
        for row in counted:
            key = tuple(row)[:3]
            facts: dict[str, Any] = {**dict.fromkeys(("p50", "p90", "p99", "slowest")), **row, **times.get(key, {})}
            facts["last_status"] = lasts[key]["status"]
            facts["last_seen"] = datetime.fromisoformat(row["last_seen"])
            facts["last_error"] = decoded(problems[key]["text"]).error if key in problems else None
            found.append(Stats(**facts))
        return found

    def verify(self) -> Verification:
        """Read the whole journal and tell what is wrong with it."""
        return self.journal.verify()

    def compact(self, keep: str | timedelta | None = None) -> Compaction:
        """Write the journal anew without events older than `keep` (None: `observer.keep`); places stay as they are.

        Raises:
            LakeReadOnly: the lake is open for reading only.
            JournalError, DiskFull: it could not be written; the old one stays.
        """
        if self._read_only:
            raise LakeReadOnly
        age = keep if isinstance(keep, timedelta) else parse_age(keep or self.settings.keep)
        if not self.journal.path.exists():
            return Compaction(0, 0, 0)
        oldest = datetime.now(UTC) - age
        dropped, before = 0, self.journal.path.stat().st_size

        def kept(entries: Iterable[Any]) -> Iterator[Any]:
            nonlocal dropped
            for entry in entries:
                try:
                    event = decoded(entry.data)
                except (ValueError, LakehouseError):
                    yield entry.data  # not ours to drop
                    continue
                recorded = event.recorded or entry.time
                if recorded < oldest:
                    dropped += 1
                else:
                    yield event_of(event, event.seq or entry.seq, recorded)

        self.journal.compact(kept)
        return Compaction(dropped, before, self.journal.path.stat().st_size)

    def tidy(self) -> Compaction | None:
        """`compact`, if there are events older than `observer.keep`; None: there are none, and nothing was written."""
        oldest = self.events(limit=1, oldest=True) if self.journal.path.exists() else []
        times = [event.recorded for event in oldest if event.seq is not None and event.recorded is not None]
        if not times or times[0] >= datetime.now(UTC) - parse_age(self.settings.keep):
            return None
        return self.compact()

    def close(self) -> None:
        """End who follows, send what is left to the sink, and force to the disk what is not yet there."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self.openlineage is not None:
            self.openlineage.close()
        if self._opened is not None:
            self._opened.close()
        self.journal.close()

    @property
    def closed(self) -> bool:
        """Whether the lake was closed."""
        return self._closed

    @property
    def _index(self) -> Index:
        if self._opened is None:
            from lakehouse.observer.index import Index  # SQLite, which who only writes never needs

            self._opened = Index(self.journal if self.settings.persist else None)
        return self._opened

    def _persisted(self, texts: list[bytes]) -> tuple[int | None, datetime, str | None]:
        """The place of the last one in the journal, or None, and when; and what went wrong, which may be nothing."""
        if not self.settings.persist:
            if self.settings.require_persist:
                raise JournalError("observer.persist is false, and observer.require_persist is true", hint="set one")
            return None, datetime.now(UTC), None
        try:
            if self._read_only:
                raise LakeReadOnly
            with self.journal.writing() as writing:
                return writing.append(*map(msgspec.Raw, texts)).seq, writing.time, None
        except Exception as error:
            with self._changed:
                self._counts["persist_failed"] += len(texts)
            if self.settings.require_persist:
                if isinstance(error, LakehouseError):
                    raise
                raise JournalError(f"the event could not be written: {error}") from error
            problem = error.message if isinstance(error, LakehouseError) else f"{type(error).__name__}: {error}"
            self._complain(problem, len(texts))
            return None, datetime.now(UTC), problem

    def _complain(self, problem: str, count: int) -> None:
        """Log what went wrong, but not a thousand times a second."""
        with self._changed:
            self._untold += count
            now = time.monotonic()
            if now - self._told < _LOG_EVERY:
                return
            self._told, count, self._untold = now, self._untold, 0
        log.error("%d events are only in memory, as the journal cannot be written: %s", count, problem)

    def _loose(self) -> list[Kept]:
        """What is in the ring alone."""
        with self._changed:
            return [one for one in self._ring if one.seq is None]

    def _ask(self, questions: list[Question], loose: list[Kept] | None = None) -> list[list[Any]]:
        from lakehouse.observer.index import row

        given = enumerate(self._loose() if loose is None else loose)
        return self._index.ask(
            questions, [row(decoded(one.text), one.text, one.place, number, one.recorded) for number, one in given]
        )

    def _following(self, filters: Filters, cursor: Cursor, timeout: float | None) -> Iterator[Event]:
        quiet = time.monotonic()
        while not self._closed:
            seen = self.signature()
            page = self.page(cursor, filters)
            cursor = page.cursor
            yield from page.events
            if page.events:
                quiet = time.monotonic()
                continue
            while self.signature() == seen:
                if timeout is not None and time.monotonic() - quiet >= timeout:
                    return
                with self._changed:
                    if self._counts["accepted"] == seen[0]:  # else it came before we waited, and nobody wakes us
                        self._changed.wait(_LOOK)
