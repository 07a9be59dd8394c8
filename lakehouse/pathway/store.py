"""`lake.pathway`: the durable, searchable memory of how questions were answered (ADR-004)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from lakehouse.arguments import arguments_told
from lakehouse.errors import (
    AlreadyExists,
    Conflict,
    LakeReadOnly,
    TraceInvalid,
)
from lakehouse.journal import Holding, Sync, Writing
from lakehouse.pathway import transfer
from lakehouse.pathway.model import (
    Draft,
    Trace,
    check_score,
    check_text,
    check_uid,
    digest,
    draft,
    encoded,
)
from lakehouse.pathway.names import Names
from lakehouse.pathway.reading import Memory
from lakehouse.pathway.search import trace_of
from lakehouse.records import Position

if TYPE_CHECKING:
    from lakehouse.pathway.embedding import Embedder

_BULK = 5000


@arguments_told
class Pathway(Memory):
    """Traces in a journal that any number of processes share; every one that was acknowledged is on the disk.

    Args:
        folder: where the journal and its index are, or will be.
        read_only: refuse every change.
        sync: as of `Journal`.
        snapshot: tells the lake's snapshot when a trace is added.
        embedder: what searches by meaning; None: that of the extra `semantic`, if it is installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        read_only: bool = False,
        sync: Sync = "always",
        snapshot: Callable[[], int | None] = lambda: None,
        embedder: Embedder | None = None,
    ) -> None:
        super().__init__(folder, sync=sync, embedder=embedder)
        self._read_only = read_only
        self._snapshot = snapshot
        self._taken: Names | None = None

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
        new = draft(content, kind=kind, tags=tags, scope=scope, uid=uid)
        with self._writing() as writing:
            if uid and self._is_taken(uid, writing):  # a name that was made up here is new
                raise AlreadyExists(f"there is a trace {uid}", hint="add_idempotent counts it; update changes it")
            return self._keep(writing, new, named=uid is not None)

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
        new = draft(content, kind=kind, tags=tags, scope=scope, uid=uid)
        with self._writing() as writing:
            if uid is not None:
                found = self._index.rows("t.uid = ?", [uid]) if self._is_taken(uid, writing) else []
            else:
                same = digest(msgspec.json.decode(new.content))
                found = self._index.rows("t.digest = ? ORDER BY t.retired, t.id LIMIT 1", [same])
            if not found:
                return self._keep(writing, new, named=uid is not None)
            known = trace_of(found[0])
            writing.append({"op": "replay", "uid": known.uid})
            return replace(known, replay_count=known.replay_count + 1, updated_at=writing.time)

    def add_many(self, items: Iterable[Mapping[str, Any]]) -> list[str]:
        """Keep many new traces, mappings with the arguments of `add`; written by five thousands, in order.

        Returns:
            Their uids.

        Raises:
            TraceInvalid, AlreadyExists: for the first that cannot be kept; whole five thousands before it are.
        """
        uids: list[str] = []
        batch: list[Draft] = []
        named: list[str] = []
        for item in items:
            mapping = type(item) is dict or isinstance(item, Mapping)
            if not mapping or "content" not in item or not _ADD.issuperset(item):
                raise TraceInvalid(f"{item!r:.100} is not what add takes", hint=f"a mapping with {', '.join(_ADD)}")
            get = item.get
            uid = get("uid")
            batch.append(draft(item["content"], kind=get("kind"), tags=get("tags") or (), scope=get("scope"), uid=uid))
            if uid:
                named.append(uid)
            if len(batch) == _BULK:
                uids += self._add_batch(batch, named)
                batch, named = [], []
        uids += self._add_batch(batch, named)
        self._names.rest()
        return uids

    def update(self, uid: str, content: Any, *, if_version: int | None = None) -> Trace:
        """Give a trace new content; it keeps its uid, and its earlier versions are kept.

        Raises:
            TraceNotFound: there is none.
            Conflict: it is not at `if_version` any more.
        """
        text = encoded(content)
        with self._writing() as writing:
            known = self.get(uid)
            if if_version is not None and known.version != if_version:
                raise Conflict(
                    f"trace {uid} is at version {known.version}, not {if_version}", hint="get it, look, and try again"
                )
            writing.append({"op": "update", "uid": uid, "content": Raw(text)})
            return replace(known, content=msgspec.json.decode(text), version=known.version + 1, updated_at=writing.time)

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
        with self._writing() as writing:
            old = self.get(uid)
            new = draft(
                content,
                kind=old.kind if kind is None else kind,
                tags=old.tags if tags is None else tags,
                scope=old.scope if scope is None else scope,
                uid=new_uid,
            )
            if new_uid and self._is_taken(new_uid, writing):
                raise AlreadyExists(f"there is a trace {new_uid}")
            return self._keep(writing, new, predecessor=uid, named=new_uid is not None)

    def retire(self, uid: str, reason: str | None = None) -> Trace:
        """Take a trace out of search; `get` and `history` still give it. Retiring it again changes nothing."""
        check_text(reason, "a reason")
        with self._writing() as writing:
            known = self.get(uid)
            if known.retired:
                return known
            writing.append({"op": "retire", "uid": uid, "reason": reason})
            return replace(known, retired=True, retired_reason=reason, updated_at=writing.time)

    def restore(self, uid: str) -> Trace:
        """Undo `retire`."""
        with self._writing() as writing:
            known = self.get(uid)
            if not known.retired:
                return known
            writing.append({"op": "restore", "uid": uid})
            return replace(known, retired=False, retired_reason=None, updated_at=writing.time)

    def feedback(self, uid: str, score: float, note: str | None = None) -> Trace:
        """Say how good a trace was; the last score counts."""
        number = check_score(score)
        check_text(note, "a note")
        with self._writing() as writing:
            known = self.get(uid)
            writing.append({"op": "feedback", "uid": uid, "score": number, "note": note})
            return replace(known, score=number, updated_at=writing.time)

    delete = retire

    def import_(self, path: str | Path, *, on_conflict: transfer.OnConflict = "skip") -> transfer.Imported:
        """Add the traces of an export, or memories as other stores (mem0, LangGraph) write them: JSON or NDJSON.

        Args:
            path: the file.
            on_conflict: for a uid that is there: `skip` it, `fail`, or `revise` that trace.

        Raises:
            SourceNotFound, SourceUnreadable, TraceInvalid, AlreadyExists: says which line.
        """
        return transfer.import_(self, Path(path), on_conflict)

    def bring(
        self,
        content: Any,
        *,
        kind: str | None,
        tags: Iterable[str],
        scope: Mapping[str, str],
        uid: str | None,
        predecessor: str | None,
        snapshot: int | None,
        origin: Mapping[str, Any] | None = None,
        retired: bool = False,
        reason: str | None = None,
        score: float | None = None,
    ) -> str:
        """Keep a trace of another memory, whose predecessor may not be here, with what became of it; returns its uid.

        Args:
            content: as of `add`.
            kind: as of `add`.
            tags: as of `add`.
            scope: as of `add`.
            uid: as of `add`.
            predecessor: the trace that it revises.
            snapshot: of the lake that it was recorded at.
            origin: what else is known of it there; kept in the journal.
            retired: whether it is retired.
            reason: why.
            score: its last feedback.
        """
        new = draft(content, kind=kind, tags=tags, scope=scope, uid=uid)
        if predecessor is not None:
            check_uid(predecessor)
        if snapshot is not None and (isinstance(snapshot, bool) or not isinstance(snapshot, int) or snapshot >> 63):
            raise TraceInvalid(f"snapshot is {snapshot!r}", hint="a number, or nothing")
        new.snapshot, new.predecessor = snapshot, predecessor
        if origin:
            new.origin = origin
        events: list[Any] = [new]
        if retired:
            events.append({"op": "retire", "uid": new.uid, "reason": check_text(reason, "a reason")})
        if score is not None:
            events.append({"op": "feedback", "uid": new.uid, "score": check_score(score)})
        with self._writing() as writing:
            if uid and self._is_taken(uid, writing):
                raise AlreadyExists(f"there is a trace {uid}")
            end = writing.append(*events)
            if uid:
                self._name([uid], end)
        return new.uid

    def compact(self) -> tuple[int, int]:
        """Write the journal anew, without damaged lines and with less around each event; nothing else changes.

        Returns:
            Its bytes before and after.
        """
        if self._read_only:
            raise LakeReadOnly
        before = self.stats().bytes
        self.journal.compact(transfer.compacted)
        return before, self.stats().bytes

    def _writing(self) -> Holding:
        """Nobody else changes the memory meanwhile."""
        if self._read_only:
            raise LakeReadOnly
        return self.journal.writing()

    @property
    def _names(self) -> Names:
        """What tells which names are taken; only for who holds the journal."""
        if self._taken is None:
            self._taken = Names(self.journal, self._index)
        return self._taken

    def _is_taken(self, uid: str, writing: Writing) -> bool:
        return self._names.taken([uid], writing.end) is not None

    def _keep(self, writing: Writing, new: Draft, predecessor: str | None = None, *, named: bool = False) -> Trace:
        """Write a new trace. The index hears of it from whoever reads next: a write is done when the journal has it."""
        new.snapshot = self._snapshot()
        if predecessor is not None:
            new.predecessor = predecessor
        end = writing.append(new)
        if named:
            self._name([new.uid], end)
        content, at = msgspec.json.decode(new.content), writing.time
        return Trace(
            new.uid, content, new.kind, new.tags, new.scope, 1, predecessor, 0, False, None, None, at, at, new.snapshot
        )

    def _name(self, uids: list[str], end: Position) -> None:
        """Remember names that were written."""
        self._names.added(uids, end)
        self._names.rest()

    def _add_batch(self, batch: list[Draft], named: list[str]) -> list[str]:
        if not batch:
            return []
        uids = [new.uid for new in batch]
        if len(set(uids)) < len(uids):
            twice = next(uid for uid in uids if uids.count(uid) > 1)
            raise AlreadyExists(f"the uid {twice} is given twice")
        with self._writing() as writing:
            if named and (known := self._names.taken(named, writing.end)):  # those that were made up here are new
                raise AlreadyExists(f"there is a trace {known}")
            snapshot = self._snapshot()
            for new in batch:
                new.snapshot = snapshot
            end = writing.append(*batch)
            if named:
                self._names.added(named, end)
        return uids


_ADD = frozenset({"content", "kind", "tags", "scope", "uid"})
