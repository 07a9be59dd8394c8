"""What is asked of the events, as SQL on their index."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import msgspec

from lakehouse.config import parse_age
from lakehouse.errors import ConfigError, FilterInvalid
from lakehouse.observer.model import Event, Status
from lakehouse.records import stamp

Question = tuple[str, Sequence[Any]]
"""A query and its values."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Values that events must have; None: any."""

    run: str | None = None
    workflow: str | None = None
    node: str | None = None
    mode: str | None = None
    status: str | None = None
    success: bool | None = None
    principal: str | None = None

    def __post_init__(self) -> None:
        if self.status is not None and self.status not in get_args(Status):
            raise FilterInvalid(f"'{self.status}' is not a status", hint=", ".join(get_args(Status)))

    def match(self, event: Event) -> bool:
        """Whether an event has them."""
        return all(getattr(event, name) == value for name, value in self._given())

    def sql(self) -> tuple[list[str], list[Any]]:
        """The same as conditions."""
        given = self._given()
        return [f"{name} = ?" for name, _ in given], [
            int(value) if isinstance(value, bool) else value for _, value in given
        ]

    def _given(self) -> list[tuple[str, Any]]:
        found = [(name, getattr(self, name)) for name in self.__slots__]
        return [(name, value) for name, value in found if value is not None]


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far somebody has read: up to this place of the journal, and of what is only in memory up to this number."""

    place: int
    number: int


@dataclass(frozen=True, slots=True)
class Page:
    """Events, and the cursor behind them."""

    events: list[Event]
    cursor: Cursor


def event_of(event: Event, seq: int | None, recorded: datetime | str) -> Event:
    """An event with its place and time."""
    at = datetime.fromisoformat(recorded) if isinstance(recorded, str) else recorded
    return msgspec.structs.replace(event, seq=seq, recorded=at)


def since_of(since: int | str | datetime | timedelta | None) -> tuple[str, list[Any]]:
    """A place, a time or an age as a condition.

    Raises:
        FilterInvalid: it is none of them.
    """
    if since is None:
        return "true", []
    if isinstance(since, int) and not isinstance(since, bool):
        return "place > ?", [min(since, (1 << 63) - 1)]
    return "recorded >= ?", [stamp(_time(since))]


def _time(since: Any) -> datetime:
    try:
        if isinstance(since, str):
            try:
                since = parse_age(since)
            except ConfigError:
                since = datetime.fromisoformat(since)
        if isinstance(since, timedelta):
            since = datetime.now(UTC) - since
        if isinstance(since, datetime):
            return since.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise FilterInvalid(f"{since!r:.100} is no place, time or age", hint="such as 17, 2026-01-31 or '1h'")


def events_sql(filters: Filters, where: str, values: list[Any], limit: int, *, oldest: bool, loose: bool) -> Question:
    """The events that filters and a condition let through.

    Args:
        filters: what they must have.
        where: a condition.
        values: of the condition.
        limit: at most so many.
        oldest: the oldest first.
        loose: also those that are in no journal; without them the order is that of the table.

    Raises:
        FilterInvalid: the limit is no number above 0.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit < 1 << 63:
        raise FilterInvalid(f"limit is {limit!r}", hint="a whole number above 0")
    conditions, given = filters.sql()
    condition = " AND ".join([where, *conditions])
    way = "ASC" if oldest else "DESC"
    columns = "place, number, recorded, text"
    parts = [
        f"SELECT * FROM (SELECT {columns} FROM {table} WHERE {condition} ORDER BY place {way}, number {way} LIMIT {limit})"
        for table in (("event", "loose") if loose else ("event",))
    ]
    order = f"ORDER BY place {way}, number {way} LIMIT {limit}"
    return f"{' UNION ALL '.join(parts)} {order}", (values + given) * len(parts)


def places_sql(ids: Iterable[str]) -> Question:
    """Where events of these ids stand in the journal."""
    return "SELECT id, max(place) AS place FROM event WHERE id IN (SELECT value FROM json_each(?)) GROUP BY id", (
        json.dumps([*ids]),
    )


END: Question = ("SELECT coalesce(max(place), 0) AS place FROM event", ())
"""The last place."""
_KEY = "workflow, node, mode"
_ENDED = "status IN ('done', 'failed', 'timeout', 'cancelled', 'interrupted')"
_ORDER = "place * 1048576 + coalesce(min(number, 1048575), 0)"
_QUANTILES = ", ".join(
    f"max(CASE WHEN rank = (timed * {percent} + 99) / 100 THEN elapsed END) AS p{percent}" for percent in (50, 90, 99)
)


def stats_sql(filters: Filters, where: str, values: list[Any]) -> list[Question]:
    """Of each workflow, node and mode: counts; nearest-rank quantiles; the last one; the last that failed."""
    conditions, given = filters.sql()
    condition = " AND ".join([where, *conditions])
    source = f"(SELECT * FROM event WHERE {condition} UNION ALL SELECT * FROM loose WHERE {condition})"
    counted = f"""
        SELECT {_KEY}, sum({_ENDED}) AS runs, sum({_ENDED} AND NOT success) AS failures,
            sum(status = 'skipped') AS skipped, sum(status = 'not_run') AS not_run, max(recorded) AS last_seen
        FROM {source} GROUP BY {_KEY} ORDER BY {_KEY}"""
    timed = f"""
        SELECT {_KEY}, {_QUANTILES}, max(elapsed) AS slowest FROM (
            SELECT {_KEY}, elapsed, row_number() OVER (PARTITION BY {_KEY} ORDER BY elapsed) AS rank,
                count(*) OVER (PARTITION BY {_KEY}) AS timed
            FROM {source} WHERE elapsed IS NOT NULL AND {_ENDED}) GROUP BY {_KEY}"""
    # With max() SQLite gives the other columns of the row that has it (sqlite.org/lang_select.html, bare columns).
    last = f"SELECT {_KEY}, status, max({_ORDER}) FROM {source} GROUP BY {_KEY}"
    errors = f"SELECT {_KEY}, text, max({_ORDER}) FROM {source} WHERE {_ENDED} AND NOT success GROUP BY {_KEY}"
    return [(sql, (values + given) * 2) for sql in (counted, timed, last, errors)]
