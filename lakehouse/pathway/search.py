"""Finding traces: by words, by filters, at any past position."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from zlib import crc32

import msgspec

from lakehouse.errors import FilterInvalid
from lakehouse.pathway.filters import Label, condition, labels
from lakehouse.pathway.model import Found, SearchPage, Trace
from lakehouse.pathway.words import number, packed_label

if TYPE_CHECKING:
    from lakehouse.pathway.index import Index
    from lakehouse.pathway.vectors import Vectors
    from lakehouse.pathway.words import Mask, Ranking

_BATCH = 1000
_FEW = 16
_FIRST = 128
_RRF = 60
_DEPTH = 1000
_MAX_LIMIT = 10_000

Ranked = tuple[int, float, dict[str, Any]]
"""A text, its score, and why."""


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
    mode: str
    """`lexical`, `semantic` or `hybrid`."""

    def narrowing(self) -> Mapping[str, Any]:
        """All that narrows the search, as one filter."""
        self._check()
        given = [self.tags] if isinstance(self.tags, str) else self.tags or ()
        wanted: list[Mapping[str, Any]] = [{"tags": tag} for tag in given]
        if self.kind is not None:
            wanted.append({"kind": self.kind})
        if self.scope:
            wanted.append({f"scope.{key}": value for key, value in self.scope.items()})
        if not self.include_retired:
            wanted.append({"retired": False})
        if self.filters is not None:
            wanted.append(self.filters)
        return {"and": wanted} if wanted else {}

    def _check(self) -> None:
        """What `condition` does not look at."""
        if self.query is not None and not isinstance(self.query, str):
            raise FilterInvalid(f"the query is text, not a {type(self.query).__name__}")
        try:
            (self.query or "").encode()
        except UnicodeEncodeError:
            raise FilterInvalid("the query is text that is not Unicode") from None
        if self.tags is not None and not isinstance(self.tags, Iterable):
            raise FilterInvalid(f"tags are a list of texts, not {self.tags!r}", hint="tags=['late']")
        if self.kind is not None and not isinstance(self.kind, str):
            raise FilterInvalid(
                f"kind is text, not {self.kind!r}", hint="several: filters={'kind': {'in': ['a', 'b']}}"
            )
        if self.scope is not None and not isinstance(self.scope, Mapping):
            raise FilterInvalid(f"scope is a mapping, not {self.scope!r}", hint="scope={'user': 'ann'}")
        least = self.threshold
        if least is not None and (isinstance(least, bool) or not isinstance(least, int | float) or least != least):
            raise FilterInvalid(f"threshold is a number, not {least!r}")


def search(index: Index, vectors: Callable[[], Vectors], asked: Asked, as_of: int | None, cursor: Any) -> SearchPage:
    """One page of results.

    Args:
        index: where.
        vectors: gives those of the index; raises when there is no embedder.
        asked: what.
        as_of: a journal position, or None for now.
        cursor: `next_cursor` of the page before.

    Raises:
        FilterInvalid: an unknown field, operator or mode, a limit out of range, a cursor that is not ours.
        ConfigError: it takes an embedder and there is none.
    """
    limit = asked.limit
    if not isinstance(limit, int) or isinstance(limit, bool) or not 0 < limit <= _MAX_LIMIT:
        raise FilterInvalid(f"limit is {limit!r}", hint=f"1 to {_MAX_LIMIT}; use cursor for more")
    narrowing = asked.narrowing()
    found = condition(narrowing)
    ranking = asked.mode if asked.query is not None and asked.query.strip() else "newest"
    of = f"{ranking} {crc32(repr((asked.query, found, asked.threshold)).encode())}"
    after, as_of = _read_cursor(cursor, of) if cursor is not None else (None, as_of)
    with index.reading():
        now = index.position
        position = now if as_of is None else min(as_of, now)
        view = _View(index, found, labels(narrowing), position, None if position == now else position)
        if ranking == "newest":
            page = [Found(trace, 0.0) for trace in view.newest(after, limit + 1)]
            last = view.number(page[limit - 1].trace) if len(page) > limit else 0
        else:
            start = after or 0
            wanted = start + limit + 1
            page = _page(view, asked, _ORDERS[ranking](view, vectors, asked, wanted), wanted)[start:]
            last = start + limit
    more = _cursor(of, last, position) if len(page) > limit else None
    return SearchPage(tuple(page[:limit]), more, position, ranking)


def every(index: Index, asked: Asked, as_of: int | None) -> Iterator[Trace]:
    """All traces that the filters let through, the oldest first, as they were when the first was asked for.

    A page at a time, so that as many as there are can be gone through.
    """
    narrowing, last = asked.narrowing(), -1
    position = index.position if as_of is None else min(as_of, index.position)
    while True:
        with index.reading():
            past = None if position == index.position else position
            view = _View(index, condition(narrowing), labels(narrowing), position, past)
            page = view.oldest(last, _BATCH)
        yield from page
        if len(page) < _BATCH:
            return
        last = view.number(page[-1])


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
            mask = self.ranking.mask(number(packed_label(*label)) for label in either)
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

    def oldest(self, after: int, wanted: int) -> list[Trace]:
        """Traces, oldest first.

        Args:
            after: the number of a trace.
            wanted: at most so many.
        """
        sql, values = f"{self._sql} AND t.id > ? ORDER BY t.id LIMIT ?", self._values
        if self.mask is None:
            return self._traces(sql, [*values, after, wanted])
        numbers = self.mask[after + 1 :].nonzero()[0] + (after + 1)
        found: list[Trace] = []
        for start in range(0, len(numbers), _BATCH):
            some = json.dumps(numbers[start : start + _BATCH].tolist())
            where = f"t.id IN (SELECT value FROM json_each(?)) AND {sql}"
            found += self._traces(where, [some, *values, after, wanted - len(found)])
            if len(found) == wanted:
                break
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


def _page(view: _View, asked: Asked, tiers: Iterator[list[Ranked]], wanted: int) -> list[Found]:
    """The first of an order that the filters let through, as many as wanted or fewer."""
    terms = view.index.terms(asked.query or "") if asked.explain else {}
    parts = {word: view.ranking.scores([term]) for word, term in terms.items()}
    found: list[Found] = []
    size = wanted + _FEW
    for tier in tiers:
        start = 0
        while start < len(tier):
            some = tier[start : start + size]
            rows = view.of_texts([text for text, _, _ in some])
            for text, score, why in some:
                if text in rows:
                    words = {word: part.of(text) for word, part in parts.items() if part.of(text)}
                    found.append(Found(trace_of(rows[text]), score, {"words": words, **why} if asked.explain else None))
                    if len(found) == wanted:
                        return found
            start, size = start + size, _BATCH
    return found


def _lexical(view: _View, _: Callable[[], Vectors], asked: Asked, wanted: int) -> Iterator[list[Ranked]]:
    """By BM25."""
    terms = view.index.terms(asked.query or "").values()
    scores = view.ranking.scores(terms).narrow(view.mask, asked.threshold)
    size, done = wanted + _FEW, 0
    while True:
        top = scores.best(size)
        yield [(text, scores.of(text), {}) for text in top[done:].tolist()]
        if len(top) < size:
            return
        size, done = 8 * size, size


def _semantic(view: _View, vectors: Callable[[], Vectors], asked: Asked, _: int) -> Iterator[list[Ranked]]:
    """By cosine."""
    for texts, cosines in vectors().nearest(asked.query or "", view.ranking.texts, view.mask):
        good = len(cosines) if asked.threshold is None else int((cosines >= asked.threshold).sum())
        for some in _steps(good):
            tier = zip(texts[some].tolist(), cosines[some].tolist(), strict=True)
            yield [(text, cosine, {"cosine": cosine} if asked.explain else {}) for text, cosine in tier]
        if not good:
            return


def _hybrid(view: _View, vectors: Callable[[], Vectors], asked: Asked, _: int) -> Iterator[list[Ranked]]:
    """By reciprocal rank fusion (Cormack, Clarke, Büttcher: SIGIR 2009) of the first thousand of both."""
    import numpy as np

    scores = view.ranking.scores(view.index.terms(asked.query or "").values()).narrow(view.mask, None)
    lexical = scores.best(_DEPTH)
    tiers = vectors().nearest(asked.query or "", view.ranking.texts, view.mask)
    near, cosines = next(tiers, (lexical[:0], lexical[:0]))
    near = near[:_DEPTH]
    texts, places = np.unique(np.concatenate((lexical, near)), return_inverse=True)
    ranks = np.zeros((2, len(texts)), np.intp)  # 0: it has none
    ranks[0, places[: len(lexical)]] = np.arange(1, len(lexical) + 1)
    ranks[1, places[len(lexical) :]] = np.arange(1, len(near) + 1)
    fused = np.where(ranks > 0, 1 / (_RRF + ranks), 0.0).sum(axis=0)
    least = asked.threshold if asked.threshold is not None else 0.0

    def why(lexical: int, semantic: int) -> dict[str, Any]:
        if not asked.explain:
            return {}
        cosine = float(cosines[semantic - 1]) if semantic else None
        return {"ranks": {"lexical": lexical or None, "semantic": semantic or None}, "cosine": cosine}

    order = np.argsort(-fused, kind="stable")  # of equal ones the older comes first
    order = order[fused[order] >= least]
    for some in _steps(len(order)):
        at = order[some]
        tier = zip(texts[at].tolist(), fused[at].tolist(), *ranks[:, at].tolist(), strict=True)
        yield [(text, score, why(*both)) for text, score, *both in tier]
    size, done = 8 * _DEPTH, _DEPTH
    while len(rest := scores.best(size)[done:]):  # behind them what has a word and no place among those
        ranked = zip(rest.tolist(), np.isin(rest, near).tolist(), range(done + 1, size + 1), strict=False)
        behind = [(text, 1 / (_RRF + rank), rank) for text, known, rank in ranked if not known]
        yield [(text, score, why(rank, 0)) for text, score, rank in behind if score >= least]
        size, done = 8 * size, size


def _steps(count: int) -> Iterator[slice]:
    """Parts of so many, the first ones small: few ask for more than those."""
    start, size = 0, _FIRST
    while start < count:
        yield slice(start, min(start + size, count))
        start, size = start + size, 8 * size


_ORDERS = {"lexical": _lexical, "semantic": _semantic, "hybrid": _hybrid}
MODES = ("auto", *_ORDERS)


def _read_cursor(cursor: Any, asked: str) -> tuple[int, int]:
    try:
        of, after, position = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        if of == asked and isinstance(after, int) and isinstance(position, int):
            return after, position
    except (ValueError, TypeError, AttributeError):
        pass
    raise FilterInvalid("the cursor is not one of this search", hint="give next_cursor of a page as it is")


def _cursor(asked: str, after: int, position: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([asked, after, position]).encode()).decode()
