"""`client.observer`: what ran on a lake behind a server, asked for and listened to."""

from __future__ import annotations

import time
import uuid
from collections.abc import Generator, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import msgspec

from lakehouse.client.problems import translated, value
from lakehouse.client.wire import LONG, MOST, Wire
from lakehouse.errors import AnswerBroken, FilterInvalid
from lakehouse.journal import Verification
from lakehouse.observer.encoding import encoded
from lakehouse.observer.model import Counters, Event, Receipt, Stats
from lakehouse.observer.observer import LIMIT, Compaction
from lakehouse.observer.questions import Filters, since_of

_KEY = "Idempotency-Key"
_BYTES = 8 << 20  # of the events of one request
_PAUSE = 0.5  # seconds until a listener that was cut off listens again
_LINE = 8 << 20  # bytes that a line of a stream may have: far more than the largest event


class _Tallies(msgspec.Struct):
    stats: list[Stats]
    counters: Counters


class RemoteObserver:
    """Events over HTTP; the methods are those of `lake.observer`. Who sends them, and when, the server says.

    Args:
        wire: the server.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def record(self, event: Event) -> Receipt:
        """Have an event taken; see `Observer.record`. It is taken once, however often the connection breaks."""
        return self.record_many((event,))

    def record_many(self, events: Iterable[Event]) -> Receipt:
        """The same for several events in order.

        Up to 10,000 events, or 8 MB of them, are one request: all of it is kept, or none. More are several, one after
        the other; of one that fails the earlier ones stay.
        """
        total, texts, size = Receipt(0, 0, persisted=True, seq=None), list[msgspec.Raw](), 0
        for text in map(encoded, list(events)):
            if texts and (len(texts) == MOST or size + len(text) > _BYTES):
                total, texts, size = self._taken(total, texts), [], 0
            texts.append(msgspec.Raw(text))
            size += len(text)
        return self._taken(total, texts) if texts else total

    def counters(self) -> Counters:
        """Exact counts of the server's observer since it was started."""
        return self._tallies({}).counters

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
        """Events of all processes there, newest first, at most 10,000; see `Observer.events`."""
        if isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit <= MOST:
            raise FilterInvalid(f"limit is {limit!r}", hint=f"a whole number from 1 to {MOST:,}; oldest= reads on")
        query = _filters(run, workflow, node, mode, status, success, principal)
        query |= {"since": _since(since), "limit": limit, "oldest": oldest}
        found = self._wire.json("GET", "/observer/events", dict[str, list[Event]], query=query, wait=LONG)
        return list(found["events"])

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
        """Events of all processes there as they come, until the lake is closed; see `Observer.follow`.

        It listens from this call on. A connection that breaks is taken up behind the last event. With a `timeout` of
        more than 15 seconds it may end up to 15 seconds late, as the server says so often that it is there.
        """
        query = _filters(run, workflow, node, mode, status, success, None)
        heard = self._heard(query, since, timeout)
        next(heard)  # it listens now
        return heard

    def stats(
        self,
        *,
        workflow: str | None = None,
        node: str | None = None,
        mode: str | None = None,
        since: int | str | datetime | timedelta | None = None,
    ) -> list[Stats]:
        """Per workflow, node and mode: runs, failures, how long they took, the last error; see `Observer.stats`."""
        return self._tallies({"workflow": workflow, "node": node, "mode": mode, "since": _since(since)}).stats

    def verify(self) -> Verification:
        """Have the whole journal read, and tell what is wrong with it."""
        found: Verification = self._wire.json("GET", "/observer/verify", Verification, wait=LONG)
        return found

    def compact(self, keep: str | timedelta | None = None) -> Compaction:
        """Have the journal written anew without old events; see `Observer.compact`."""
        age = f"{keep.total_seconds():.3f}s" if isinstance(keep, timedelta) else keep
        done: Compaction = self._wire.json("POST", "/observer/compact", Compaction, body={"keep": age}, wait=LONG)
        return done

    def __repr__(self) -> str:
        return f"<observer of {self._wire.base}>"

    def _taken(self, before: Receipt, texts: list[msgspec.Raw]) -> Receipt:
        headers = {_KEY: uuid.uuid4().hex}
        body = {"events": texts}
        now = self._wire.json("POST", "/observer/events", Receipt, body=body, headers=headers, again=True, wait=LONG)
        return Receipt(
            before.accepted + now.accepted,
            before.evicted + now.evicted,
            before.persisted and now.persisted,
            now.seq if now.seq is not None else before.seq,
            before.problem or now.problem,
        )

    def _tallies(self, query: dict[str, Any]) -> _Tallies:
        found: _Tallies = self._wire.json("GET", "/observer/stats", _Tallies, query=query, wait=LONG)
        return found

    def _heard(self, query: dict[str, Any], since: int | None, timeout: float | None) -> Generator[Any, None, None]:
        """None as soon as it listens, then events."""
        place, begun, last = since, False, time.monotonic()
        while True:
            with self._wire.stream("GET", "/observer/stream", query={**query, "since": place}, wait=LONG) as answer:
                if timeout is not None:  # that of the body, whose reading has not begun
                    answer.request.extensions["timeout"]["read"] = max(timeout, 0.001)
                if not begun:
                    begun = True
                    yield None
                    last = time.monotonic()
                try:
                    for seq, event in _told(answer, self._wire.base):
                        place = place if seq is None else seq
                        if event is not None:
                            yield event
                            last = time.monotonic()
                        elif timeout is not None and time.monotonic() - last >= timeout:
                            return
                    return  # the lake was closed
                except _Quiet:
                    return
                except _Cut:
                    pass
            time.sleep(_PAUSE)


def _told(answer: httpx.Response, url: str) -> Generator[tuple[int | None, Event | None], None, None]:
    """The events of a stream with their places; None for a sign of life.

    Server-sent events as the server writes them (WHATWG HTML, 9.2): `id` and one line of `data`, or a comment.
    """
    rest, place, event = b"", None, None
    pieces = answer.iter_raw()
    while True:
        with translated(url, answering=True):
            try:
                piece = next(pieces, None)
            except httpx.ReadTimeout:
                raise _Quiet from None
            except httpx.TransportError:
                raise _Cut from None
        if piece is None:
            return
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > _LINE:
            raise AnswerBroken(f"{url} sends a line without an end", hint="is a proxy in between?")
        for line in lines:
            if line.startswith(b"id: ") and line[4:].isdigit():
                place = int(line[4:])
            elif line.startswith(b"data: "):
                event = value(line[6:], Event, url)
            elif not line:
                yield place, event
                event = None


class _Quiet(Exception):
    """Nothing came for as long as was waited."""


class _Cut(Exception):
    """The connection broke."""


def _filters(
    run: str | None,
    workflow: str | None,
    node: str | None,
    mode: str | None,
    status: str | None,
    success: bool | None,
    principal: str | None,
) -> dict[str, Any]:
    """What events must have, checked as the observer itself checks it."""
    filters = Filters(run, workflow, node, mode, status, success, principal)
    return {name: getattr(filters, name) for name in filters.__slots__}


def _since(since: int | str | datetime | timedelta | None) -> str | None:
    """A place, a time or an age as text."""
    since_of(since)  # refuses what is none
    if isinstance(since, timedelta):
        return f"{since.total_seconds():.3f}s"
    if isinstance(since, datetime):
        return since.astimezone().isoformat()
    return None if since is None else str(since)
