"""Events of what runs over HTTP: taking them, asking for them, and listening to them as they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

import msgspec

from lakehouse.errors import (
    ConfigError,
    DiskFull,
    EventInvalid,
    FilterInvalid,
    JournalError,
    RequestInvalid,
    TooManyListeners,
)
from lakehouse.observer.model import Counters, Delivered, Event, Receipt, Stats, Status
from lakehouse.observer.observer import LIMIT, Observer
from lakehouse.observer.questions import Cursor, Filters
from lakehouse.records import Fault
from lakehouse.server.routing import Answer, Call, Route, made_name
from lakehouse.server.service import Service

_LOOK = 0.05
"""Seconds between two looks for new events, one `stat` each, of every listener."""
_ALIVE = 15.0
"""Seconds after which a listener is told that there is nothing: a dead connection shows then."""
_MOST = 10_000


class NewEvent(Event, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An event as it is sent; who sends it, its place and its time are the server's to say."""

    id: str = ""
    """Empty: one is made up when it is taken. Until then the same request is the same, however often it is read."""


class Taken(msgspec.Struct, forbid_unknown_fields=True):
    """One event or several, in order."""

    events: Annotated[list[NewEvent], msgspec.Meta(min_length=1, max_length=_MOST)]


class Which(msgspec.Struct, forbid_unknown_fields=True):
    """Values that events must have, and how many are wanted."""

    run: str | None = None
    workflow: str | None = None
    node: str | None = None
    mode: str | None = None
    status: Status | None = None
    success: bool | None = None
    principal: str | None = None
    since: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=_MOST)] = LIMIT
    oldest: bool = False


class Counted(msgspec.Struct, forbid_unknown_fields=True):
    """Of which events statistics are wanted."""

    workflow: str | None = None
    node: str | None = None
    mode: str | None = None
    since: str | None = None


class Heard(msgspec.Struct, forbid_unknown_fields=True):
    """Which events a listener wants; `since` is a place in the journal."""

    run: str | None = None
    workflow: str | None = None
    node: str | None = None
    mode: str | None = None
    status: Status | None = None
    success: bool | None = None
    since: Annotated[int, msgspec.Meta(ge=0)] | None = None


class KeptAge(msgspec.Struct, forbid_unknown_fields=True):
    """How old events may be; null: `observer.keep`."""

    keep: str | None = None


class Found(msgspec.Struct):
    """Events, with every field."""

    events: list[dict[str, Any]]


class Tallies(msgspec.Struct):
    """What came of what ran, and how many events this server has taken."""

    stats: list[Stats]
    counters: Counters
    openlineage: Delivered | None
    """Of the endpoint, if there is one."""


class Checked(msgspec.Struct):
    """What reading the whole journal told."""

    sound: bool
    records: int
    bytes: int
    generation: int
    corrupt: int
    torn: bool
    chain_breaks: int
    faults: tuple[Fault, ...]
    """The first hundred corrupt lines."""


class Compacted(msgspec.Struct):
    """What was left out, and how large the journal is."""

    dropped: int
    bytes_before: int
    bytes_after: int


def record(call: Call) -> Answer[Receipt]:
    """Take one event or a batch: 202, also when the ring is full; the receipt says what became of them."""
    observer, request = call.lake.observer, call.name()
    events = [_stamped(one, call.principal.name, request, n) for n, one in enumerate(call.body.events)]
    if call.again():
        ids = {event.id for event in events}
        if len(places := observer.places(ids)) == len(ids):  # one write: all of them are there, or none
            return Answer(Receipt(len(events), 0, persisted=True, seq=max(places.values())), 202)
    return Answer(observer.record_many(events), 202)


def events(call: Call) -> Found:
    """Events of all processes, newest first."""
    asked = msgspec.structs.asdict(call.query)
    found = call.lake.observer.events(**{**asked, "since": _since(asked["since"])})
    return Found([event.to_dict() for event in found])


def stats(call: Call) -> Tallies:
    """Per workflow, node and mode: runs, failures, how long they took, the last error; and exact counts."""
    asked = msgspec.structs.asdict(call.query)
    observer = call.lake.observer
    found = observer.stats(**{**asked, "since": _since(asked["since"])})
    sink = observer.openlineage
    return Tallies(found, observer.counters(), None if sink is None else sink.counters())


def stream(call: Call) -> Answer[None]:
    """Events as they come (server-sent events); `Last-Event-ID` or `since` goes on behind a place."""
    asked = msgspec.structs.asdict(call.query)
    last, since = call.headers.get("Last-Event-ID"), asked.pop("since")
    if last is not None:
        if not (last.isascii() and last.isdigit() and len(last) < 19):
            raise RequestInvalid("Last-Event-ID is not the place of an event", hint="a whole number")
        since = int(last)
    observer = call.lake.observer
    live = _live(call.service, observer, Filters(**asked), observer.cursor(since))
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Answer(None, headers=headers, live=live)


def verify(call: Call) -> Checked:
    """Read the whole journal and tell what is wrong with it."""
    found = call.lake.observer.verify()
    return Checked(**{name: getattr(found, name) for name in Checked.__struct_fields__})


def compact(call: Call) -> Compacted:
    """Write the journal anew, without old events."""
    done = call.lake.observer.compact(call.body.keep)
    return Compacted(done.dropped, done.bytes_before, done.bytes_after)


async def _live(service: Service, observer: Observer, filters: Filters, cursor: Cursor) -> AsyncIterator[bytes]:
    """What a listener is sent; a thread works for it only while there is something to read."""
    yield b"id: %d\n: here\n\n" % cursor.place  # who is cut off before the first event goes on from here
    while not observer.closed:
        seen = observer.signature()
        page = await service.run(partial(observer.page, cursor, filters))
        cursor = page.cursor
        if page.events:
            yield await service.run(lambda page=page: b"".join(map(_told, page.events)))  # type: ignore[misc]
            continue
        quiet = time.monotonic()
        while observer.signature() == seen:
            await asyncio.sleep(_LOOK)
            if time.monotonic() - quiet > _ALIVE:
                yield b": nothing new\n\n"
                quiet = time.monotonic()


def _stamped(sent: NewEvent, principal: str, request: str | None, number: int) -> Event:
    facts = msgspec.structs.asdict(sent) | {"principal": principal}
    if not sent.id:
        del facts["id"]
        if request is not None:  # a name of the request's own, by which it is found again
            facts["id"] = made_name(request, number)
    return Event(**facts)


def _told(event: Event) -> bytes:
    place = b"" if event.seq is None else b"id: %d\n" % event.seq
    return b"%bevent: %b\ndata: %b\n\n" % (place, event.status.encode(), msgspec.json.encode(event.to_dict()))


def _since(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else text


_READS = (FilterInvalid, DiskFull)
ROUTES = (
    Route(
        "POST",
        "/observer/events",
        "write",
        record,
        body=Taken,
        statuses=(202,),
        refuses=(EventInvalid, JournalError),
        counts_once=True,
    ),
    Route("GET", "/observer/events", "read", events, query=Which, refuses=_READS),
    Route("GET", "/observer/stats", "read", stats, query=Counted, refuses=_READS),
    Route(
        "GET",
        "/observer/stream",
        "read",
        stream,
        query=Heard,
        media=("text/event-stream",),
        refuses=(*_READS, TooManyListeners),
        reads=("Last-Event-ID",),
    ),
    Route("GET", "/observer/verify", "read", verify, refuses=(JournalError,)),
    Route("POST", "/observer/compact", "admin", compact, body=KeptAge, refuses=(ConfigError, JournalError)),
)
