"""Finding traces: by words, by filters, at any past position."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lakehouse.errors import FilterInvalid
from lakehouse.pathway.filters import condition
from lakehouse.pathway.model import Found, SearchPage, Trace

if TYPE_CHECKING:
    from lakehouse.pathway.index import Index

_BATCH = 1000
_MAX_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Asked:
    """The arguments of `Pathway.search`."""

    query: str | None
    filters: Mapping[str, Any] | None
    tags: Iterable[str] | None
    kind: str | None
    scope: Mapping[str, str] | None
    include_retired: bool
    limit: int
    threshold: float | None
    explain: bool

    def condition(self) -> tuple[str, list[Any]]:
        """All that narrows the search, as SQL and its parameters."""
        labels = [self.tags] if isinstance(self.tags, str) else self.tags or ()
        wanted: list[Mapping[str, Any]] = [{"tags": tag} for tag in labels]
        if self.kind is not None:
            wanted.append({"kind": self.kind})
        if self.scope:
            wanted.append({f"scope.{key}": value for key, value in self.scope.items()})
        if not self.include_retired:
            wanted.append({"retired": False})
        if self.filters:
            wanted.append(self.filters)
        return condition({"and": wanted} if wanted else None)


def search(index: Index, asked: Asked, as_of: int | None, cursor: str | None) -> SearchPage:
    """One page of results.

    Args:
        index: where.
        asked: what.
        as_of: a journal position, or None for now.
        cursor: `next_cursor` of the page before.

    Raises:
        FilterInvalid: an unknown field or operator, a limit out of range, a cursor that is not ours.
    """
    limit = asked.limit
    if not isinstance(limit, int) or not 0 < limit <= _MAX_LIMIT:
        raise FilterInvalid(f"limit is {limit!r}", hint=f"1 to {_MAX_LIMIT}; use cursor for more")
    start, of_cursor = _read_cursor(cursor)
    past = of_cursor if of_cursor is not None else as_of
    position = index.position if past is None else past
    end = start + limit + 1
    if asked.query is not None and asked.query.strip():
        page, ranking = _ranked(index, asked, position, past, end)[start:end], "lexical"
    else:
        sql, values = asked.condition()
        rows = index.rows(f"{sql} ORDER BY t.id DESC LIMIT ? OFFSET ?", [*values, limit + 1, start], seq=past)
        page, ranking = [Found(trace_of(row), 0.0) for row in rows], "newest"
    more = _cursor(start + limit, position) if len(page) > limit else None
    return SearchPage(tuple(page[:limit]), more, position, ranking)


def trace_of(row: Any) -> Trace:
    """A row of the index as the trace it is."""
    return Trace(
        uid=row["uid"],
        content=json.loads(row["content"]),
        kind=row["kind"],
        tags=tuple(json.loads(row["tags"])),
        scope=json.loads(row["scope"]),
        version=row["version"],
        predecessor=row["predecessor"],
        replay_count=row["replay_count"],
        retired=bool(row["retired"]),
        retired_reason=row["retired_reason"],
        score=row["score"],
        created_at=datetime.fromisoformat(row["created_at"]),
        updated_at=datetime.fromisoformat(row["updated_at"]),
        snapshot=row["snapshot"],
    )


def _ranked(index: Index, asked: Asked, position: int, past: int | None, wanted: int) -> list[Found]:
    """The best of those that have one of the words, as many as wanted or a few more."""
    sql, values = asked.condition()
    scores = index.scores(asked.query or "", position)
    if asked.threshold is not None:
        scores = {document: score for document, score in scores.items() if score[0] >= asked.threshold}
    best = sorted(scores, key=lambda document: (-scores[document][0], document))
    found: list[Found] = []
    for first in range(0, len(best), _BATCH):  # the filters may leave out many
        some = best[first : first + _BATCH]
        where = f"t.text IN (SELECT value FROM json_each(?)) AND {sql}"
        rows = {row["text"]: row for row in index.rows(where, [json.dumps(some), *values], seq=past)}
        for document in some:
            if document in rows:
                total, words = scores[document]
                found.append(Found(trace_of(rows[document]), total, {"words": words} if asked.explain else None))
        if len(found) >= wanted:
            break
    return found


def _read_cursor(cursor: str | None) -> tuple[int, int | None]:
    if cursor is None:
        return 0, None
    try:
        start, position = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        return int(start), int(position)
    except (ValueError, TypeError, AttributeError):
        raise FilterInvalid("the cursor is not one of ours", hint="give next_cursor of a page as it is") from None


def _cursor(start: int, position: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([start, position]).encode()).decode()
