"""`lake.pathway`: the durable, searchable memory of how questions were answered (ADR-004)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.errors import (
    AlreadyExists,
    Conflict,
    LakeReadOnly,
    TraceInvalid,
)
from lakehouse.journal import Sync
from lakehouse.pathway import transfer
from lakehouse.pathway.model import (
    Draft,
    Trace,
    check_json,
    draft,
)
from lakehouse.pathway.reading import Memory

if TYPE_CHECKING:
    from lakehouse.pathway.embedding import Embedder

_BULK = 1000


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
    ) -> Trace:
        """Keep a trace of another memory, whose predecessor may not be here."""
        new = draft(content, kind=kind, tags=tags, scope=scope, uid=uid or _new_uid())
        with self._writing() as write:
            if self._find(new.uid):
                raise AlreadyExists(f"there is a trace {new.uid}")
            write({**self._added(new), "predecessor": predecessor, "snapshot": snapshot})
            return self.get(new.uid)

    def compact(self) -> tuple[int, int]:
        """Write the journal anew, without damaged lines and with less around each event; nothing else changes.

        Returns:
            Its bytes before and after.
        """
        if self._read_only:
            raise LakeReadOnly("the lake is open for reading only", hint="open it without at= and read_only= to write")
        before = self.stats().bytes
        self.journal.compact(transfer.compacted)
        return before, self.stats().bytes

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
