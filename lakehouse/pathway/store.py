"""`lake.pathway`: the durable, searchable memory of how questions were answered (ADR-004)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.errors import (
    AlreadyExists,
    Conflict,
    LakeReadOnly,
    TraceInvalid,
    TraceNotFound,
)
from lakehouse.journal import Journal, Sync, Verification
from lakehouse.pathway.model import (
    Draft,
    History,
    SearchPage,
    Stats,
    Trace,
    Version,
    check_json,
    check_uid,
    draft,
)
from lakehouse.pathway.search import Asked, search, trace_of

if TYPE_CHECKING:
    from lakehouse.pathway.index import Index

AsOf = int | str | datetime
_BULK = 1000


class Pathway:
    """Traces in a journal that any number of processes share; every one that was acknowledged is on the disk.

    Args:
        folder: where the journal and its index are, or will be.
        read_only: refuse every change.
        sync: as of `Journal`.
        snapshot: tells the lake's snapshot when a trace is added.
    """

    def __init__(
        self,
        folder: Path,
        *,
        read_only: bool = False,
        sync: Sync = "always",
        snapshot: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.journal = Journal(folder / "traces.jsonl", sync=sync)
        self._read_only = read_only
        self._snapshot = snapshot
        self._opened: Index | None = None

    @property
    def _index(self) -> Index:
        if self._opened is None:
            from lakehouse.pathway.index import Index  # SQLite, which who has no traces never needs

            self._opened = Index(self.journal, self.journal.path.with_suffix(".index"))
        return self._opened

    def add(
        self,
        content: Any,
        *,
        kind: str | None = None,
        tags: Iterable[str] = (),
        scope: Mapping[str, str] | None = None,
        uid: str | None = None,
    ) -> Trace:
        """Keep a new trace.

        Args:
            content: any JSON.
            kind: one word for what it is, such as `sql` or `conclusion`.
            tags: labels to find it by.
            scope: whose it is: `{"user": …, "agent": …, "notebook": …}`.
            uid: its name; None: a new one is made up.

        Raises:
            TraceInvalid: the content is no JSON, or another value cannot be used.
            AlreadyExists: there is a trace of that uid.
            JournalError, DiskFull: it could not be written; nothing was kept.
        """
        new = draft(content, kind=kind, tags=tags, scope=scope, uid=uid or _new_uid())
        with self._writing() as write:
            if self._find(new.uid):
                raise AlreadyExists(f"there is a trace {new.uid}", hint="add_idempotent counts it; update changes it")
            write(self._added(new))
            return self.get(new.uid)

    def add_idempotent(
        self,
        content: Any,
        *,
        kind: str | None = None,
        tags: Iterable[str] = (),
        scope: Mapping[str, str] | None = None,
        uid: str | None = None,
    ) -> Trace:
        """Keep a trace unless it is there: then it is counted as a replay and **keeps its original content**.

        It is there when there is one of the same uid or, without a uid, one whose content is equal (not retired
        and first added one when there are several).
        """
        new = draft(content, kind=kind, tags=tags, scope=scope, uid=uid or _new_uid())
        with self._writing() as write:
            if uid is not None:
                known = self._index.rows("t.uid = ?", [uid])
            else:
                known = self._index.rows("t.digest = ? ORDER BY t.retired, t.id LIMIT 1", [new.digest])
            found = known[0]["uid"] if known else new.uid
            write({"op": "replay", "uid": found} if known else self._added(new))
            return self.get(found)

    def add_many(self, items: Iterable[Mapping[str, Any]]) -> list[str]:
        """Keep many new traces, mappings with the arguments of `add`; written by thousands, in order.

        Returns:
            Their uids.

        Raises:
            TraceInvalid, AlreadyExists: for the first that cannot be kept; the thousands before it are.
        """
        uids: list[str] = []
        batch: list[Draft] = []
        named: list[str] = []
        for item in items:
            if not isinstance(item, Mapping) or "content" not in item or set(item) - _ADD:
                raise TraceInvalid(f"{item!r:.100} is not what add takes", hint=f"a mapping with {', '.join(_ADD)}")
            batch.append(
                draft(
                    item["content"],
                    kind=item.get("kind"),
                    tags=item.get("tags") or (),
                    scope=item.get("scope"),
                    uid=item.get("uid") or _new_uid(),
                )
            )
            named += [item["uid"]] if item.get("uid") else []
            if len(batch) == _BULK:
                uids += self._add_batch(batch, named)
                batch, named = [], []
        return uids + self._add_batch(batch, named)

    def update(self, uid: str, content: Any, *, if_version: int | None = None) -> Trace:
        """Give a trace new content; it keeps its uid, and its earlier versions are kept.

        Raises:
            TraceNotFound: there is none.
            Conflict: it is not at `if_version` any more.
        """
        check_json(content)
        with self._writing() as write:
            known = self.get(uid)
            if if_version is not None and known.version != if_version:
                raise Conflict(
                    f"trace {uid} is at version {known.version}, not {if_version}", hint="get it, look, and try again"
                )
            write({"op": "update", "uid": uid, "content": content})
            return self.get(uid)

    def revise(
        self,
        uid: str,
        content: Any,
        *,
        kind: str | None = None,
        tags: Iterable[str] | None = None,
        scope: Mapping[str, str] | None = None,
        new_uid: str | None = None,
    ) -> Trace:
        """Keep a new trace that follows another one; kind, tags and scope are the other's unless given.

        Raises:
            TraceNotFound: there is no trace `uid`.
        """
        with self._writing() as write:
            old = self.get(uid)
            new = draft(
                content,
                kind=kind or old.kind,
                tags=old.tags if tags is None else tags,
                scope=old.scope if scope is None else scope,
                uid=new_uid or _new_uid(),
            )
            if self._find(new.uid):
                raise AlreadyExists(f"there is a trace {new.uid}")
            write({**self._added(new), "predecessor": uid})
            return self.get(new.uid)

    def retire(self, uid: str, reason: str | None = None) -> Trace:
        """Take a trace out of search; `get` and `history` still give it. Retiring it again changes nothing."""
        with self._writing() as write:
            known = self.get(uid)
            if not known.retired:
                write({"op": "retire", "uid": uid, "reason": reason})
            return self.get(uid)

    def restore(self, uid: str) -> Trace:
        """Undo `retire`."""
        with self._writing() as write:
            if self.get(uid).retired:
                write({"op": "restore", "uid": uid})
            return self.get(uid)

    def feedback(self, uid: str, score: float, note: str | None = None) -> Trace:
        """Say how good a trace was; the last score counts."""
        check_json(score)
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise TraceInvalid(f"a score is a number, not {score!r}")
        with self._writing() as write:
            self.get(uid)
            write({"op": "feedback", "uid": uid, "score": score, "note": note})
            return self.get(uid)

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
            "SELECT v.version, v.content, v.at, v.seq FROM version v JOIN trace t ON t.id = v.trace WHERE t.uid = ?"
            " ORDER BY v.version",
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
    ) -> SearchPage:
        """Find traces: by words (BM25, best first) or, without a query, the newest first.

        Args:
            query: words in any order; a trace with more and rarer of them comes first.
            filters: as described in `lakehouse.pathway.filters`.
            tags: all of these.
            kind: this one.
            scope: these keys with these values.
            as_of: search the memory as it was at a journal position or time.
            include_retired: retired ones too.
            limit: at most so many on a page.
            cursor: `next_cursor` of the page before, with all else equal.
            threshold: leave out what scores less.
            explain: say which words matched and what each added.

        Raises:
            FilterInvalid: an unknown field or operator, a cursor of another search.
        """
        asked = Asked(query, filters, tags, kind, scope, include_retired, limit, threshold, explain)
        return search(self._index, asked, self._position(as_of), cursor)

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

    delete = retire

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

    def _find(self, uid: str, as_of: AsOf | None = None) -> Trace | None:
        rows = self._index.rows("t.uid = ?", [check_uid(uid)], seq=self._position(as_of))
        return trace_of(rows[0]) if rows else None

    def _position(self, as_of: AsOf | None) -> int | None:
        if as_of is None:
            return None
        if isinstance(as_of, int) and not isinstance(as_of, bool):
            return as_of
        return self._index.at(as_of)

    @contextmanager
    def _writing(self) -> Iterator[Callable[..., Any]]:
        if self._read_only:
            raise LakeReadOnly("the lake is open for reading only", hint="open it without at= and read_only= to write")
        with self.journal.writing() as writing:
            yield writing.append

    def _add_batch(self, batch: list[Draft], named: list[str]) -> list[str]:
        if not batch:
            return []
        uids = [new.uid for new in batch]
        if len(set(uids)) < len(uids):
            twice = next(uid for uid in uids if uids.count(uid) > 1)
            raise AlreadyExists(f"the uid {twice} is given twice")
        with self._writing() as write:
            if named:  # those that were made up here are new
                known = self._index.ask(
                    "SELECT uid FROM trace WHERE uid IN (SELECT value FROM json_each(?))", [json.dumps(named)]
                )
                if known:
                    raise AlreadyExists(f"there is a trace {known[0][0]}")
            write(*(self._added(new) for new in batch))
        return uids

    def _added(self, new: Draft) -> dict[str, Any]:
        event = {"op": "add", "uid": new.uid, "content": new.content, "kind": new.kind, "tags": list(new.tags)}
        return {**event, "scope": dict(new.scope), "snapshot": self._snapshot()}


_ADD = frozenset({"content", "kind", "tags", "scope", "uid"})


def _new_uid() -> str:
    return uuid.uuid4().hex
