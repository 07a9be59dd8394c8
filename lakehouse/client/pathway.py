"""`client.pathway`: the pathway memory of a lake behind a server."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from lakehouse.client.problems import translated
from lakehouse.client.wire import LONG, Wire
from lakehouse.client.wire import path as route
from lakehouse.errors import Conflict, FilterInvalid, NotRemote, PreconditionFailed, TraceInvalid, TraceNotFound
from lakehouse.journal import Verification
from lakehouse.pathway.model import Found, History, SearchPage, Stats, Trace, Version, draft
from lakehouse.pathway.model import encoded as checked
from lakehouse.pathway.reading import AsOf, Mode
from lakehouse.pathway.recorder import ANALYSIS
from lakehouse.pathway.search import MODES
from lakehouse.pathway.transfer import Imported, OnConflict

_KEY = "Idempotency-Key"
_BATCH = 5_000
"""Traces of one request of `add_many`, which are kept all or not at all."""


class _Page(msgspec.Struct):
    results: list[dict[str, Any]]
    next_cursor: str | None
    position: int
    ranking: str


class RemotePathway:
    """Traces over HTTP; the methods are those of `lake.pathway`.

    Args:
        wire: the server.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def add(
        self,
        content: Any,
        *,
        kind: str | None = None,
        tags: Iterable[str] = (),
        scope: Mapping[str, str] | None = None,
        uid: str | None = None,
    ) -> Trace:
        """Keep a new trace; see `Pathway.add`."""
        return self._added("fail", content, kind, tags, scope, uid)

    def add_idempotent(
        self,
        content: Any,
        *,
        kind: str | None = None,
        tags: Iterable[str] = (),
        scope: Mapping[str, str] | None = None,
        uid: str | None = None,
    ) -> Trace:
        """Keep a trace unless it is there: then it is counted and keeps its content; see `Pathway.add_idempotent`."""
        return self._added("count", content, kind, tags, scope, uid)

    def add_many(self, items: Iterable[Mapping[str, Any]]) -> list[str]:
        """Keep many new traces, mappings with the arguments of `add`; by thousands, in order. Returns their uids."""
        uids: list[str] = []
        batch: list[dict[str, Any]] = []
        for item in items:
            if not isinstance(item, Mapping) or "content" not in item or not _ADD.issuperset(item):
                raise TraceInvalid(f"{item!r:.100} is not what add takes", hint=f"a mapping with {', '.join(_ADD)}")
            batch.append(_drafted(item["content"], *(item.get(name) for name in ("kind", "tags", "scope", "uid"))))
            if len(batch) == _BATCH:
                uids += self._batch(batch)
                batch = []
        return uids + self._batch(batch)

    def get(self, uid: str, *, as_of: AsOf | None = None) -> Trace:
        """One trace, as it is or was; see `Pathway.get`."""
        return self._trace("GET", route("/pathway/traces/{}", uid), query={"as_of": _when(as_of)})

    def has(self, uid: str) -> bool:
        """Whether there is a trace of that uid, retired or not."""
        try:
            self.get(uid)
        except TraceNotFound:
            return False
        return True

    def update(self, uid: str, content: Any, *, if_version: int | None = None) -> Trace:
        """Give a trace new content; see `Pathway.update`.

        Raises:
            TraceNotFound: there is none.
            Conflict: it is not at `if_version` any more.
        """
        headers = {} if if_version is None else {"If-Match": f'"{if_version}"'}
        body = {"content": msgspec.Raw(checked(content))}
        try:
            return self._trace("PATCH", route("/pathway/traces/{}", uid), body=body, headers=headers)
        except PreconditionFailed as error:
            raise Conflict(error.message, hint=error.hint) from None

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
        """Keep a new trace that follows another one; see `Pathway.revise`."""
        new = draft(content, kind=kind, tags=tags or (), scope=scope, uid=new_uid)
        body: dict[str, Any] = {"content": msgspec.Raw(new.content), "kind": kind, "new_uid": new_uid}
        body |= {"tags": None if tags is None else new.tags, "scope": None if scope is None else new.scope}
        return self._trace("POST", route("/pathway/traces/{}/revisions", uid), body=body)

    def retire(self, uid: str, reason: str | None = None) -> Trace:
        """Take a trace out of search; `get` and `history` still give it."""
        return self._trace("POST", route("/pathway/traces/{}/retire", uid), body={"reason": reason})

    delete = retire

    def restore(self, uid: str) -> Trace:
        """Undo `retire`."""
        return self._trace("POST", route("/pathway/traces/{}/restore", uid))

    def feedback(self, uid: str, score: float, note: str | None = None) -> Trace:
        """Say how good a trace was; the last score counts."""
        checked(score)
        return self._trace("POST", route("/pathway/traces/{}/feedback", uid), body={"score": score, "note": note})

    def versions(self, uid: str) -> list[Version]:
        """What a trace said, oldest first."""
        where = route("/pathway/traces/{}/versions", uid)
        return list(self._wire.json("GET", where, dict[str, list[Version]])["versions"])

    def history(self, uid: str) -> History:
        """A trace and its predecessors, newest first."""
        found: History = self._wire.json("GET", route("/pathway/traces/{}/history", uid), History)
        return found

    def descendants(self, uid: str) -> list[Trace]:
        """All traces that revise this one, directly or through others, oldest first."""
        where = route("/pathway/traces/{}/descendants", uid)
        return list(self._wire.json("GET", where, dict[str, list[Trace]])["items"])

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
        """Find traces, best first, or the newest first when there is no query; see `Pathway.search`."""
        if isinstance(tags, str):
            raise TraceInvalid("tags is one text", hint=f"give a list: tags=[{tags!r}]")
        if mode not in MODES:
            raise FilterInvalid(f"there is no mode '{mode}'", hint=", ".join(MODES))
        body = {
            "query": query,
            "filters": filters,
            "tags": None if tags is None else list(tags),
            "kind": kind,
            "scope": scope,
            "as_of": _when(as_of),
            "include_retired": include_retired,
            "limit": limit,
            "cursor": cursor,
            "threshold": threshold,
            "explain": explain,
            "mode": mode,
        }
        # Nothing is changed by it, so it may be asked twice.
        page = self._wire.json("POST", "/pathway/search", _Page, body=body, again=True, wait=LONG)
        found = (Found(msgspec.convert(one, Trace), one["relevance"], one["why"]) for one in page.results)
        return SearchPage(tuple(found), page.next_cursor, page.position, page.ranking)

    def similar(self, question: str, limit: int = 5) -> list[Found]:
        """How questions like this one were answered before: recorded analyses, best first."""
        return list(self.search(question, kind=ANALYSIS, limit=limit))

    def get_all(self, **arguments: Any) -> list[Trace]:
        """All traces that the filters of `search` let through, newest first."""
        return list(self.each(**arguments))

    def each(self, **arguments: Any) -> Iterator[Trace]:
        """The same one after the other, for many."""
        cursor = None
        while True:
            page = self.search(None, **{"limit": 1000, **arguments, "cursor": cursor})
            yield from (found.trace for found in page)
            if (cursor := page.next_cursor) is None:
                return

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
        """Write traces as NDJSON, the oldest first; what is given narrows them as it does a search. Returns how many.

        The file appears whole or not at all.
        """
        from lakehouse.query.files import written

        given = {"filters": filters, "tags": tags, "kind": kind, "scope": scope, "as_of": as_of}
        with written(Path(path)) as temporary, temporary.open("wb") as file:
            if not include_retired or any(one is not None for one in given.values()):
                traces = self.get_all(include_retired=include_retired, **given)[::-1]
                file.writelines(json.dumps(one.to_dict(), ensure_ascii=False).encode() + b"\n" for one in traces)
                return len(traces)
            lines = 0
            with self._wire.stream("GET", "/pathway/export", wait=LONG) as answer:
                with translated(self._wire.base, answering=True):
                    for piece in answer.iter_raw():
                        lines += piece.count(b"\n")
                        file.write(piece)
            return lines

    def import_(self, path: str | Path, *, on_conflict: OnConflict = "skip") -> Imported:
        """Add the traces of an export, or memories as other stores write them; see `Pathway.import_`."""
        from lakehouse.storage.base import pieces

        name = Path(path)
        query = {"on_conflict": on_conflict}
        answer = self._wire.send("POST", "/pathway/import", query=query, content=lambda: pieces(name), wait=LONG)
        imported: Imported = msgspec.json.decode(answer.content, type=Imported)
        return imported

    def stats(self) -> Stats:
        """Counts of the whole memory."""
        found: Stats = self._wire.json("GET", "/pathway/stats", Stats)
        return found

    def verify(self) -> Verification:
        """Have the whole journal read, and tell what is wrong with it."""
        found: Verification = self._wire.json("GET", "/pathway/verify", Verification, wait=LONG)
        return found

    def compact(self) -> tuple[int, int]:
        """Have the journal written anew, without damaged lines; its bytes before and after."""
        found = self._wire.json("POST", "/pathway/compact", dict[str, int], wait=LONG)
        return found["bytes_before"], found["bytes_after"]

    def record(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: an analysis is recorded where its queries run."""
        raise NotRemote(
            "an analysis is recorded on the lake itself, not over HTTP", hint="keep what was found with add(…)"
        )

    def replay(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: an analysis is run again where it was recorded."""
        raise NotRemote(
            "an analysis is replayed on the lake itself, not over HTTP", hint="get(uid) gives its steps: run them here"
        )

    def __repr__(self) -> str:
        return f"<pathway of {self._wire.base}>"

    def _added(
        self,
        on_known: str,
        content: Any,
        kind: str | None,
        tags: Iterable[str],
        scope: Mapping[str, str] | None,
        uid: str | None,
    ) -> Trace:
        body = {**_drafted(content, kind, tags, scope, uid), "on_known": on_known}
        return self._trace("POST", "/pathway/traces", body=body)

    def _batch(self, batch: list[dict[str, Any]]) -> list[str]:
        if not batch:
            return []
        headers = {_KEY: uuid.uuid4().hex}  # by which the server knows it again, so that it is done once
        found = self._wire.json(
            "POST",
            "/pathway/batch",
            dict[str, list[str]],
            body={"traces": batch},
            headers=headers,
            again=True,
            wait=LONG,
        )
        return list(found["uids"])

    def _trace(self, method: str, where: str, **given: Any) -> Trace:
        trace: Trace = self._wire.json(method, where, Trace, **given)
        return trace


def _drafted(content: Any, kind: Any, tags: Any, scope: Any, uid: Any) -> dict[str, Any]:
    """What a new trace is made of, checked as the memory itself checks it."""
    new = draft(content, kind=kind, tags=tags or (), scope=scope, uid=uid)
    text = msgspec.Raw(new.content)
    return {"content": text, "kind": new.kind, "tags": new.tags, "scope": dict(new.scope), "uid": uid or None}


def _when(as_of: AsOf | None) -> int | str | None:
    return as_of.isoformat() if isinstance(as_of, datetime) else as_of


_ADD = frozenset({"content", "kind", "tags", "scope", "uid"})
