"""Finding traces: by words, by filters, at any past position."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from lakehouse.errors import FilterInvalid
from lakehouse.pathway.filters import Label, condition, labels
from lakehouse.pathway.model import Found, SearchPage, Trace
from lakehouse.pathway.words import label_number

if TYPE_CHECKING:
    from lakehouse.pathway.words import Mask, Ranking
    from lakehouse.pathway.index import Index

_BATCH = 1000
_FEW = 16
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

    def narrowing(self) -> Mapping[str, Any]:
        """All that narrows the search, as one filter."""
        given = [self.tags] if isinstance(self.tags, str) else self.tags or ()
        wanted: list[Mapping[str, Any]] = [{"tags": tag} for tag in given]
        if self.kind is not None:
            wanted.append({"kind": self.kind})
        if self.scope:
            wanted.append({f"scope.{key}": value for key, value in self.scope.items()})
        if not self.include_retired:
            wanted.append({"retired": False})
        if self.filters:
            wanted.append(self.filters)
        return {"and": wanted} if wanted else {}


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
    mode = "lexical" if asked.query is not None and asked.query.strip() else "newest"
    after, as_of = _read_cursor(cursor, mode) if cursor is not None else (None, as_of)
    narrowing = asked.narrowing()
    with index.reading():
        now = index.position
        position = now if as_of is None else min(as_of, now)
        view = _View(index, condition(narrowing), labels(narrowing), position, None if position == now else position)
        if mode == "newest":
            page = [Found(trace, 0.0) for trace in view.newest(after, limit + 1)]
            last = view.number(page[limit - 1].trace) if len(page) > limit else 0
        else:
            start = after or 0
            page = _ranked(view, asked, start + limit + 1)[start:]
            last = start + limit
    more = _cursor(mode, last, position) if len(page) > limit else None
    return SearchPage(tuple(page[:limit]), more, position, mode)


def trace_of(row: Any) -> Trace:
    """A row of the index as the trace it is."""
    return Trace(
        uid=row["uid"],
        content=msgspec.json.decode(row["content"]),
        kind=row["kind"],
        tags=tuple(msgspec.json.decode(row["tags"])),
        scope=msgspec.json.decode(row["scope"]),
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


class _View:
    """What a search can see: the traces at a position that its filters let through."""

    def __init__(
        self, index: Index, where: tuple[str, list[Any]], wanted: list[list[Label]], position: int, past: int | None
    ) -> None:
        self.index = index
        self.position = position
        self._sql, self._values = where
        self._wanted = wanted
        self._past = past
        self._numbers: dict[str, int] = {}

    @cached_property
    def ranking(self) -> Ranking:
        """Scores of what was written up to the position."""
        return self.index.ranking(self.position)

    @cached_property
    def mask(self) -> Mask | None:
        """The texts with the labels that are wanted; None: no label is. The filters are asked of these alone."""
        result: Mask | None = None
        for either in self._wanted:
            mask = self.ranking.mask(label_number(*label) for label in either)
            result = mask if result is None else result & mask
        return result

    def newest(self, before: int | None, wanted: int) -> list[Trace]:
        """Traces, newest first.

        Args:
            before: the number of a trace; None: from the newest.
            wanted: at most so many.
        """
        sql, values = f"{self._sql} AND t.id < ?", [*self._values, sys.maxsize if before is None else before]
        if self.mask is None:
            return self._traces(f"{sql} ORDER BY t.id DESC LIMIT ?", [*values, wanted])
        numbers = self.mask[:before].nonzero()[0][::-1]  # a trace has the number of its first text
        found: list[Trace] = []
        size, start = wanted + _FEW, 0
        while start < len(numbers) and len(found) < wanted:
            some = json.dumps(numbers[start : start + size].tolist())
            where = f"t.id IN (SELECT value FROM json_each(?)) AND {sql} ORDER BY t.id DESC LIMIT ?"
            found += self._traces(where, [some, *values, wanted - len(found)])
            start, size = start + size, min(8 * size, _BATCH)
        return found

    def of_texts(self, texts: list[int]) -> dict[int, Any]:
        """The rows of the traces that say one of some texts at this moment."""
        some = json.dumps(texts)
        where = (
            "t.id IN (SELECT w.trace FROM json_each(?) j CROSS JOIN version w ON w.id = j.value)"
            f" AND t.text IN (SELECT value FROM json_each(?)) AND {self._sql}"
        )
        return {row["text"]: row for row in self.index.rows(where, [some, some, *self._values], seq=self._past)}

    def number(self, trace: Trace) -> int:
        """The number of a trace that `newest` gave."""
        return self._numbers[trace.uid]

    def _traces(self, where: str, values: list[Any]) -> list[Trace]:
        rows = self.index.rows(where, values, seq=self._past)
        self._numbers.update((row["uid"], row["id"]) for row in rows)
        return [trace_of(row) for row in rows]


def _ranked(view: _View, asked: Asked, wanted: int) -> list[Found]:
    """The best of those that have one of the words, as many as wanted or fewer."""
    terms = view.index.terms(asked.query or "")
    scores = view.ranking.scores(terms.values()).narrow(view.mask, asked.threshold)
    parts = {word: view.ranking.scores([term]) for word, term in terms.items()} if asked.explain else {}
    found: list[Found] = []
    size, done = wanted + _FEW, 0
    while True:  # the filters may leave out many
        top = scores.best(size)
        for start in range(done, len(top), _BATCH):
            some = top[start : start + _BATCH]
            rows = view.of_texts(some)
            for text in [text for text in some if text in rows][: wanted - len(found)]:
                words = {word: part.of(text) for word, part in parts.items() if part.of(text)}
                why = {"words": words} if asked.explain else None
                found.append(Found(trace_of(rows[text]), scores.of(text), why))
            if len(found) == wanted:
                return found
        if len(top) < size:
            return found
        size, done = 8 * size, size


def _read_cursor(cursor: Any, mode: str) -> tuple[int, int]:
    try:
        of, after, position = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        if of == mode and isinstance(after, int) and isinstance(position, int):
            return after, position
    except (ValueError, TypeError, AttributeError):
        pass
    raise FilterInvalid("the cursor is not one of this search", hint="give next_cursor of a page as it is")


def _cursor(mode: str, after: int, position: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([mode, after, position]).encode()).decode()
