"""The pathway memory over HTTP."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from lakehouse.errors import (
    AlreadyExists,
    Conflict,
    DiskFull,
    FilterInvalid,
    IngestError,
    PreconditionFailed,
    RequestInvalid,
    TraceInvalid,
    TraceNotFound,
)
from lakehouse.pathway.model import History, Stats, Trace
from lakehouse.pathway.reading import Mode
from lakehouse.pathway.store import Pathway
from lakehouse.pathway.transfer import Imported, OnConflict
from lakehouse.server.answers import Compacted, Descendants, FoundTrace, FoundTraces, Uids, Verified, Versions
from lakehouse.server.routing import Answer, Call, Route, made_name
from lakehouse.storage.base import CHUNK


class AsOf(msgspec.Struct, forbid_unknown_fields=True):
    """As it was at a journal position or a time."""

    as_of: str | None = None


class New(msgspec.Struct, forbid_unknown_fields=True):
    """A trace to keep."""

    content: Any
    kind: str | None = None
    tags: list[str] = []
    scope: dict[str, str] | None = None
    uid: str | None = None


class Added(New, forbid_unknown_fields=True):
    """A trace to keep, and what to do when it is known."""

    on_known: Literal["compare", "count", "fail"] = "compare"
    """Of a uid that is there. `compare`: count it when its content is the same, else refuse. `count`: count it, and keep
    the content it has. `fail`: refuse. Without a uid the first two look for equal content, and `fail` for nothing."""


class Update(msgspec.Struct, forbid_unknown_fields=True):
    """New content of a trace."""

    content: Any


class Revision(msgspec.Struct, forbid_unknown_fields=True):
    """A trace that follows another one; what is null is taken from that one."""

    content: Any
    kind: str | None = None
    tags: list[str] | None = None
    scope: dict[str, str] | None = None
    new_uid: str | None = None


class Retire(msgspec.Struct, forbid_unknown_fields=True):
    """Why it is taken out of search."""

    reason: str | None = None


class Feedback(msgspec.Struct, forbid_unknown_fields=True):
    """How good it was."""

    score: float
    note: str | None = None


class Search(msgspec.Struct, forbid_unknown_fields=True):
    """The arguments of `lake.pathway.search`."""

    query: str | None = None
    filters: dict[str, Any] | None = None
    tags: list[str] | None = None
    kind: str | None = None
    scope: dict[str, str] | None = None
    as_of: int | str | None = None
    include_retired: bool = False
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 20
    cursor: str | None = None
    threshold: float | None = None
    explain: bool = False
    mode: Mode = "auto"


class Batch(msgspec.Struct, forbid_unknown_fields=True):
    """Many traces to keep, in order."""

    traces: Annotated[list[New], msgspec.Meta(max_length=10_000)]


class Import(msgspec.Struct, forbid_unknown_fields=True):
    """What to do about a uid that is there."""

    on_conflict: OnConflict = "skip"


def add(call: Call) -> Answer[Trace]:
    """Keep a trace: 201 when it is new, 200 when the same was there and is counted, 409 when its uid has another content."""
    body: Added = call.body
    memory = call.lake.pathway
    if body.on_known == "fail":
        return _trace(memory.add(body.content, kind=body.kind, tags=body.tags, scope=body.scope, uid=body.uid), 201)
    if body.uid is not None and body.on_known == "compare":
        try:
            return _trace(memory.add(body.content, kind=body.kind, tags=body.tags, scope=body.scope, uid=body.uid), 201)
        except AlreadyExists:
            if memory.versions(body.uid)[0].content != body.content:
                raise Conflict(
                    f"the trace '{body.uid}' has another content", hint="PATCH changes it, POST …/revisions follows it"
                ) from None
    trace = memory.add_idempotent(body.content, kind=body.kind, tags=body.tags, scope=body.scope, uid=body.uid)
    return _trace(trace, 200 if trace.replay_count else 201)


def get(call: Call) -> Answer[Trace]:
    """One trace, retired or not."""
    when = call.query.as_of
    return _trace(call.lake.pathway.get(call.path[0], as_of=int(when) if when and when.isdigit() else when))


def update(call: Call) -> Answer[Trace]:
    """Give a trace new content; with `If-Match` only while it is at that version (412 otherwise)."""
    match = (call.headers.get("If-Match") or "").strip().strip('"')
    match = "" if match == "*" else match
    if match and not (match.isascii() and match.isdigit()):
        raise RequestInvalid("If-Match is not the ETag of a trace", hint='its version in quotes, such as "3"')
    try:
        return _trace(
            call.lake.pathway.update(call.path[0], call.body.content, if_version=int(match) if match else None)
        )
    except Conflict as error:
        raise PreconditionFailed(error.message, hint=error.hint) from None


def revise(call: Call) -> Answer[Trace]:
    """Keep a new trace that follows this one."""
    body: Revision = call.body
    memory = call.lake.pathway
    return _trace(
        memory.revise(
            call.path[0], body.content, kind=body.kind, tags=body.tags, scope=body.scope, new_uid=body.new_uid
        ),
        201,
    )


def retire(call: Call) -> Answer[Trace]:
    """Take a trace out of search."""
    return _trace(call.lake.pathway.retire(call.path[0], call.body.reason))


def restore(call: Call) -> Answer[Trace]:
    """Undo `retire`."""
    return _trace(call.lake.pathway.restore(call.path[0]))


def feedback(call: Call) -> Answer[Trace]:
    """Say how good a trace was."""
    return _trace(call.lake.pathway.feedback(call.path[0], call.body.score, call.body.note))


def history(call: Call) -> History:
    """A trace and those it came from, newest first."""
    return call.lake.pathway.history(call.path[0])


def descendants(call: Call) -> Descendants:
    """All traces that revise this one, directly or through others, oldest first."""
    return Descendants(call.lake.pathway.descendants(call.path[0]))


def versions(call: Call) -> Versions:
    """What a trace said, oldest first."""
    return Versions(call.lake.pathway.versions(call.path[0]))


def search(call: Call) -> FoundTraces:
    """Find traces by words and filters."""
    page = call.lake.pathway.search(**msgspec.structs.asdict(call.body))
    found = [{**one.trace.to_dict(), "relevance": one.score, "why": one.why} for one in page]
    return FoundTraces(msgspec.convert(found, list[FoundTrace]), page.next_cursor, page.position, page.ranking)


def batch(call: Call) -> Answer[Uids]:
    """Keep many new traces; all of them or, when one cannot be kept, none of its thousand and of those behind."""
    items, memory = [msgspec.structs.asdict(one) for one in call.body.traces], call.lake.pathway
    if (request := call.name()) is None:
        return Answer(Uids(memory.add_many(items)), 201)
    for number, item in enumerate(items):  # names of this request's own, by which they are found again
        item["uid"] = item["uid"] or made_name(request, number)
    memory.add_many(item for item in items if not (call.again() and _kept(memory, item)))
    return Answer(Uids([item["uid"] for item in items]), 201)


def _kept(memory: Pathway, item: dict[str, Any]) -> bool:
    """Whether a trace is there that began as this one."""
    try:
        return bool(memory.versions(item["uid"])[0].content == item["content"])
    except TraceNotFound:
        return False


def stats(call: Call) -> Stats:
    """Counts of the whole memory."""
    return call.lake.pathway.stats()


def verify(call: Call) -> Verified:
    """Read the whole journal and tell what is wrong with it."""
    found = call.lake.pathway.verify()
    return msgspec.convert({**asdict(found), "sound": found.sound}, Verified)


def compact(call: Call) -> Compacted:
    """Write the journal anew, without damaged lines."""
    before, after = call.lake.pathway.compact()
    return Compacted(before, after)


def export(call: Call) -> Answer[None]:
    """All traces as NDJSON, oldest first."""
    folder = _folder(call)
    path = Path(folder.name, "traces.ndjson")
    try:
        call.lake.pathway.export(path)
    except BaseException:
        folder.cleanup()
        raise
    headers = {"Content-Type": "application/x-ndjson", "Content-Length": str(path.stat().st_size)}
    return Answer(None, 200, headers, _pieces(folder, path))


def import_(call: Call) -> Imported:
    """Add the traces of an export, or memories as other stores write them: NDJSON or JSON, as it comes."""
    assert call.stream is not None
    with _folder(call) as place:
        path = Path(place, "traces.ndjson")
        with path.open("xb") as file:
            for piece in call.stream:
                file.write(piece)
        return call.lake.pathway.import_(path, on_conflict=call.query.on_conflict)


def _trace(trace: Trace, status: int = 200) -> Answer[Trace]:
    return Answer(trace, status, {"ETag": f'"{trace.version}"'})


def _folder(call: Call) -> tempfile.TemporaryDirectory[str]:
    parent = Path(call.lake.settings.storage.temp_directory or call.lake.path / "tmp")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=parent, prefix="tmp-traces-")
    except OSError as error:
        raise DiskFull(f"no folder can be made in {parent}: {error.strerror}") from None


def _pieces(folder: tempfile.TemporaryDirectory[str], path: Path) -> Iterator[bytes]:
    with folder, path.open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece


_ONE = (TraceNotFound, TraceInvalid)

ROUTES = (
    Route("POST", "/pathway/traces", "write", add, body=Added, statuses=(200, 201), refuses=(TraceInvalid, Conflict)),
    Route("GET", "/pathway/traces/{uid}", "read", get, query=AsOf, refuses=(*_ONE, FilterInvalid)),
    Route(
        "PATCH",
        "/pathway/traces/{uid}",
        "write",
        update,
        body=Update,
        refuses=(*_ONE, PreconditionFailed),
        reads=("If-Match",),
    ),
    Route(
        "POST",
        "/pathway/traces/{uid}/revisions",
        "write",
        revise,
        body=Revision,
        statuses=(201,),
        refuses=(*_ONE, AlreadyExists),
    ),
    Route("POST", "/pathway/traces/{uid}/retire", "write", retire, body=Retire, refuses=_ONE),
    Route("POST", "/pathway/traces/{uid}/restore", "write", restore, refuses=_ONE),
    Route("POST", "/pathway/traces/{uid}/feedback", "write", feedback, body=Feedback, refuses=_ONE),
    Route("GET", "/pathway/traces/{uid}/history", "read", history, refuses=_ONE),
    Route("GET", "/pathway/traces/{uid}/descendants", "read", descendants, refuses=_ONE),
    Route("GET", "/pathway/traces/{uid}/versions", "read", versions, refuses=_ONE),
    Route("POST", "/pathway/search", "read", search, body=Search, refuses=(FilterInvalid, TraceInvalid)),
    Route(
        "POST",
        "/pathway/batch",
        "write",
        batch,
        body=Batch,
        statuses=(201,),
        refuses=(TraceInvalid, AlreadyExists),
        counts_once=True,
    ),
    Route("GET", "/pathway/export", "read", export, media=("application/x-ndjson",)),
    Route(
        "POST",
        "/pathway/import",
        "write",
        import_,
        query=Import,
        streams=True,
        refuses=(IngestError, TraceInvalid, AlreadyExists),
    ),
    Route("GET", "/pathway/stats", "read", stats),
    Route("GET", "/pathway/verify", "read", verify),
    Route("POST", "/pathway/compact", "admin", compact),
)
