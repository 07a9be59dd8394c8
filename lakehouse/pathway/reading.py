"""Reading the memory: one trace, its past, what matches."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lakehouse.arguments import arguments_told
from lakehouse.errors import FilterInvalid, TraceNotFound
from lakehouse.journal import Journal, Sync, Verification
from lakehouse.pathway import transfer
from lakehouse.pathway.model import History, SearchPage, Stats, Trace, Version, check_uid
from lakehouse.pathway.search import MODES, Asked, every, search, trace_of
from lakehouse.pathway.vectors import Damaged, Vectors

if TYPE_CHECKING:
    from lakehouse.pathway.embedding import Embedder
    from lakehouse.pathway.index import Index

AsOf = int | str | datetime
"""A position of the journal, or a time."""
Mode = Literal["auto", "lexical", "semantic", "hybrid"]


@arguments_told
class Memory:
    """The side of `Pathway` that changes nothing.

    Args:
        folder: where the journal and its index are, or will be.
        sync: as of `Journal`.
        embedder: what searches by meaning; None: that of the extra `semantic`, if it is installed.
    """

    def __init__(self, folder: Path, *, sync: Sync = "always", embedder: Embedder | None = None) -> None:
        self.journal = Journal(folder / "traces.jsonl", sync=sync)
        self._opened: Index | None = None
        self._embedder = embedder
        self._meaning: Vectors | None = None

    @property
    def _index(self) -> Index:
        if self._opened is None:
            from lakehouse.pathway.index import Index  # SQLite, which who has no traces never needs

            self._opened = Index(self.journal, self.journal.path.with_suffix(".index"))
        return self._opened

    def get(self, uid: str, *, as_of: AsOf | None = None) -> Trace:
        """One trace, as it is or was.

        Args:
            uid: its name.
            as_of: a journal position or a time.

        Raises:
            TraceNotFound: there is none, or was none then.
        """
        if found := self._find(uid, as_of):
            return found
        then = "" if as_of is None else f" as of {as_of}"
        raise TraceNotFound(f"there is no trace '{uid}'{then}", hint="lakehouse pathway search finds what there is")

    def versions(self, uid: str) -> list[Version]:
        """What a trace said, oldest first."""
        self.get(uid)
        rows = self._index.ask(
            "SELECT v.version, v.content, v.at, v.seq FROM trace t JOIN version v"
            " ON v.id = t.id OR (v.trace = t.id AND v.version > 1) WHERE t.uid = ? ORDER BY v.version",
            [uid],
        )
        return [
            Version(row["version"], json.loads(row["content"]), datetime.fromisoformat(row["at"]), row["seq"])
            for row in rows
        ]

    def history(self, uid: str) -> History:
        """A trace and its predecessors; a missing one truncates, a circle is walked once and reported."""
        items = [self.get(uid)]
        seen = {uid}
        while (before := items[-1].predecessor) is not None:
            if before in seen:
                return History(tuple(items), truncated=False, missing_predecessor=None, cycle=True)
            found = self._find(before)
            if found is None:
                return History(tuple(items), truncated=True, missing_predecessor=before, cycle=False)
            seen.add(before)
            items.append(found)
        return History(tuple(items), truncated=False, missing_predecessor=None, cycle=False)

    def descendants(self, uid: str) -> list[Trace]:
        """All traces that revise this one, directly or through others, oldest first."""
        self.get(uid)
        rows = self._index.rows(
            "t.uid IN (WITH RECURSIVE after(uid) AS (SELECT uid FROM trace WHERE predecessor = ? UNION"
            " SELECT n.uid FROM trace n JOIN after ON n.predecessor = after.uid) SELECT uid FROM after)"
            " AND t.uid <> ? ORDER BY t.id",
            [uid, uid],
        )
        return [trace_of(row) for row in rows]

    def search(
        self,
        query: str | None = None,
        *,
        filters: Mapping[str, Any] | None = None,
        tags: Iterable[str] | None = None,
        kind: str | None = None,
        scope: Mapping[str, str] | None = None,
        as_of: AsOf | None = None,
        include_retired: bool = False,
        limit: int = 20,
        cursor: str | None = None,
        threshold: float | None = None,
        explain: bool = False,
        mode: Mode = "auto",
    ) -> SearchPage:
        """Find traces, best first, or the newest first when there is no query.

        Args:
            query: a question, or words in any order.
            filters: as described in `lakehouse.pathway.filters`.
            tags: all of these.
            kind: this one.
            scope: these keys with these values.
            as_of: search the memory as it was at a journal position or time.
            include_retired: retired ones too.
            limit: at most so many on a page.
            cursor: `next_cursor` of the page before, with all else equal.
            threshold: leave out what scores less.
            explain: say which words matched and what each added, how like the meaning is, and the ranks.
            mode: `lexical`: by words (BM25; a trace with more and rarer ones comes first). `semantic`: by meaning
                (cosine). `hybrid`: by both (reciprocal rank fusion). `auto`: hybrid where there is an embedder, else
                lexical; `ranking` of the page says which.

        Raises:
            FilterInvalid: an unknown field, operator or mode, a cursor of another search.
            ConfigError: searching by meaning without an embedder.
        """
        if mode not in MODES:
            raise FilterInvalid(f"there is no mode '{mode}'", hint=", ".join(MODES))
        if mode == "auto":
            mode = "hybrid" if self._found_embedder() is not None else "lexical"
        asked = Asked(query, filters, tags, kind, scope, include_retired, limit, threshold, explain, mode)
        position = self._position(as_of)
        try:
            return search(self._index, self._vectors, asked, position, cursor)
        except Damaged:
            self._vectors().forget()
            return search(self._index, self._vectors, asked, position, cursor)

    def get_all(self, **arguments: Any) -> list[Trace]:
        """All traces that the filters of `search` let through, newest first."""
        return list(self.each(**arguments))

    def each(self, **arguments: Any) -> Iterator[Trace]:
        """The same one after the other, for many."""
        page = self.search(None, **{"limit": 1000, **arguments})
        while True:
            yield from (found.trace for found in page)
            if page.next_cursor is None:
                return
            page = self.search(None, **{"limit": 1000, **arguments, "cursor": page.next_cursor})

    def pages(self, size: int) -> Iterator[Sequence[Mapping[str, Any]]]:
        """The rows of all traces, retired ones too, oldest first, at most so many at a time."""
        last = -1
        while rows := self._index.rows("t.id > ? ORDER BY t.id LIMIT ?", [last, size]):
            last = rows[-1]["id"]
            yield [dict(row) for row in rows]

    @property
    def position(self) -> int:
        """The journal position of the last event."""
        return self._index.position

    def has(self, uid: str) -> bool:
        """Whether there is a trace of that uid, retired or not."""
        return self._find(uid) is not None

    def export(
        self,
        path: str | Path,
        *,
        filters: Mapping[str, Any] | None = None,
        tags: Iterable[str] | None = None,
        kind: str | None = None,
        scope: Mapping[str, str] | None = None,
        as_of: AsOf | None = None,
        include_retired: bool = True,
    ) -> int:
        """Write traces as NDJSON, the oldest first; what is given narrows them as it does a search.

        Returns:
            How many.

        Raises:
            SourceUnreadable, DiskFull: the file could not be written; there is none, or the one that was there.
        """
        asked = Asked(None, filters, tags, kind, scope, include_retired, 1, None, False, "lexical")
        return transfer.export(every(self._index, asked, self._position(as_of)), Path(path))

    def stats(self) -> Stats:
        """Counts of the whole memory."""
        row = self._index.ask("SELECT count(*), coalesce(sum(retired), 0), coalesce(sum(replay_count), 0) FROM trace")[
            0
        ]
        size = self.journal.path.stat().st_size if self.journal.path.exists() else 0
        return Stats(row[0], row[1], row[2], self._index.position, size)

    def verify(self) -> Verification:
        """Read the whole journal and tell what is wrong with it."""
        return self.journal.verify()

    def close(self) -> None:
        """Let go of the index, and force what was not yet synced to the disk."""
        if self._opened is not None:
            self._opened.close()
        self.journal.close()

    def _found_embedder(self) -> Embedder | None:
        if self._embedder is None:
            from lakehouse.pathway import embedding

            self._embedder = embedding.default()
        return self._embedder

    def _vectors(self) -> Vectors:
        if self._meaning is None:
            from lakehouse.pathway import embedding

            embedder = self._found_embedder()
            if embedder is None:
                raise embedding.missing()
            self._meaning = Vectors(self._index, embedder)
        return self._meaning

    def _find(self, uid: str, as_of: AsOf | None = None) -> Trace | None:
        rows = self._index.rows("t.uid = ?", [check_uid(uid)], seq=self._position(as_of))
        return trace_of(rows[0]) if rows else None

    def _position(self, as_of: AsOf | None) -> int | None:
        if as_of is None:
            return None
        if isinstance(as_of, int) and not isinstance(as_of, bool):
            return as_of
        return self._index.at(as_of)
