"""The catalog over HTTP: schemas, tables, snapshots, and what is known of each."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec

from lakehouse.catalog.metadata import Snapshot, Version
from lakehouse.catalog.profiles import Profile
from lakehouse.catalog.table import Table
from lakehouse.errors import (
    AlreadyExists,
    ColumnNotFound,
    Conflict,
    NotFound,
    QueryError,
    SchemaNotFound,
    SnapshotNotFound,
    TableNotFound,
)
from lakehouse.server import formats
from lakehouse.server.answers import (
    Changes,
    Columns,
    Committed,
    Entry,
    Files,
    Hits,
    LineageFacts,
    Schemas,
    Sized,
    SnapshotFacts,
    Snapshots,
    TableFacts,
    Tables,
    TableSnapshots,
    Tags,
)
from lakehouse.server.routing import Answer, Call, Route

Limit = Annotated[int, msgspec.Meta(ge=1, le=10_000)]


class InSchema(msgspec.Struct, forbid_unknown_fields=True):
    """Of one schema, or of all."""

    schema: str | None = None


class At(msgspec.Struct, forbid_unknown_fields=True):
    """As of a snapshot id, a tag or a time."""

    at: str | None = None


class Newest(msgspec.Struct, forbid_unknown_fields=True):
    """The newest so many."""

    limit: Limit = 100


class Span(msgspec.Struct, forbid_unknown_fields=True):
    """From one commit to another, both included."""

    start: str
    end: str | None = None
    limit: Limit = 1000


class Sampled(At, forbid_unknown_fields=True):
    """How many rows of a larger table the quantiles are taken from; 0: all."""

    sample: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Way(At, forbid_unknown_fields=True):
    """Which way, and how far."""

    direction: Literal["up", "down", "both"] = "both"
    depth: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Words(msgspec.Struct, forbid_unknown_fields=True):
    """What to look for."""

    q: str
    limit: Limit = 20


class Back(msgspec.Struct, forbid_unknown_fields=True):
    """The snapshot to go back to."""

    to: int | str
    allow_schema_change: bool = False


class LakeBack(msgspec.Struct, forbid_unknown_fields=True):
    """The snapshot to go back to."""

    to: int | str


class Comment(msgspec.Struct, forbid_unknown_fields=True):
    """What to say of a table, or of one of its columns; null takes it away."""

    text: str | None
    column: str | None = None


class Tag(msgspec.Struct, forbid_unknown_fields=True):
    """The value of a tag; null takes it away."""

    value: str | None


class SnapshotTag(msgspec.Struct, forbid_unknown_fields=True):
    """Which snapshot a name stands for; null: the newest."""

    snapshot: int | str | None = None
    replace: bool = False


class Named(msgspec.Struct, forbid_unknown_fields=True):
    """A new schema."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    if_not_exists: bool = False


def schemas(call: Call) -> Schemas:
    """The names of the schemas."""
    return Schemas(call.lake.catalog.schemas())


def create_schema(call: Call) -> Answer[Committed]:
    """Make a schema."""
    body: Named = call.body
    return Answer(Committed(call.lake.catalog.create_schema(body.name, if_not_exists=body.if_not_exists)), 201)


def tables(call: Call) -> Tables:
    """Tables and views, with rows and bytes."""
    catalog, schema = call.lake.catalog, call.query.schema
    found = catalog.tables(schema)
    sizes = catalog.sizes(found)
    sized = [Sized(**_entry(one), rows=sizes[one.full_name][0], bytes=sizes[one.full_name][1]) for one in found]
    return Tables(sized, [Entry(**_entry(one)) for one in catalog.views(schema)])


def table(call: Call) -> TableFacts:
    """One table or view, with its columns."""
    one = _table(call)
    return TableFacts(
        **_entry(one),
        rows=one.row_count,
        bytes=one.bytes,
        snapshot=one.version,
        tags=one.tags,
        partitioning=list(one.partitioning),
        sorting=list(one.sorting),
        columns=one.schema,
    )


def columns(call: Call) -> Columns:
    """The columns of a table or view."""
    return Columns(_table(call).schema)


def files(call: Call) -> Files:
    """The data files of a table; their paths are below the lake's folder."""
    folder = os.path.realpath(call.lake.path)
    found = _table(call).files()
    return Files([replace(one, path=os.path.relpath(os.path.realpath(one.path), folder)) for one in found])


def profile(call: Call) -> Profile:
    """What each column holds."""
    sample = call.query.sample
    one = _table(call)
    found = one.profile() if sample is None else one.profile(sample=sample or None)
    return msgspec.convert(found.to_dict(), Profile)  # with values that JSON has


def lineage(call: Call) -> LineageFacts:
    """Where the rows came from, and what was made from them."""
    query: Way = call.query
    if query.at is None:  # also of what was dropped
        found = call.lake.catalog.lineage(call.path[0], query.direction, query.depth)
    else:
        found = _table(call).lineage(query.direction, query.depth)
    return msgspec.convert(found.to_dict(), LineageFacts)


def table_snapshots(call: Call) -> TableSnapshots:
    """The commits that changed a table, newest first."""
    found = call.lake.catalog.table(call.path[0]).snapshots()
    return TableSnapshots([_snapshot(one) for one in found[: call.query.limit]])


def changes(call: Call) -> Changes | Answer[None]:
    """The rows that commits inserted, updated and deleted: the first of them, or all as an Arrow stream."""
    query: Span = call.query
    found = call.lake.catalog.table(call.path[0]).changes(_version(query.start), _at(query.end))
    if formats.ARROW in call.headers.get("Accept", ""):
        rows = (formats.Own([batch]) for batch in found.to_batches(10_000))
        pieces = formats.written(formats.ARROW, found.schema, rows, {})
        return Answer(None, 200, {"Content-Type": formats.ARROW}, pieces)
    some = found.slice(0, query.limit)
    return Changes(some.to_pylist(), found.num_rows, some.num_rows == found.num_rows)


def snapshots(call: Call) -> Snapshots:
    """The commits of the lake, newest first, and the names that some have."""
    catalog = call.lake.catalog
    return Snapshots([_snapshot(one) for one in catalog.snapshots(call.query.limit)], catalog.snapshot_tags())


def search(call: Call) -> Hits:
    """Tables, views and schemas in which every word is found."""
    return Hits(call.lake.catalog.search(call.query.q, call.query.limit))


def rollback(call: Call) -> Committed:
    """Give a table the rows it had, in a new commit."""
    body: Back = call.body
    one = call.lake.catalog.table(call.path[0])
    return Committed(one.rollback(_version(body.to), allow_schema_change=body.allow_schema_change))


def lake_rollback(call: Call) -> Committed:
    """Make the whole lake what it was, in a new commit."""
    return Committed(call.lake.rollback(_version(call.body.to)))


def comment(call: Call) -> Committed:
    """Say what a table or a column is."""
    one = call.lake.catalog.table(call.path[0])
    return Committed(one.set_comment(call.body.text, column=call.body.column))


def tag(call: Call) -> Tags:
    """Give a table a tag, or take it away."""
    one = call.lake.catalog.table(call.path[0])
    one.set_tag(call.path[1], call.body.value)
    return Tags(one.tags)


def tag_snapshot(call: Call) -> Committed:
    """Give a snapshot a name."""
    body: SnapshotTag = call.body
    version = None if body.snapshot is None else _version(body.snapshot)
    return Committed(call.lake.catalog.tag_snapshot(call.path[0], version, replace=body.replace))


def untag_snapshot(call: Call) -> Committed:
    """Take a name away from its snapshot."""
    return Committed(call.lake.catalog.untag_snapshot(call.path[0]))


def drop(call: Call) -> Committed:
    """Drop a table or view; older snapshots still have it."""
    return Committed(call.lake.catalog.drop(call.path[0]))


def _table(call: Call) -> Table:
    found = call.lake.catalog.table(call.path[0])
    at = _at(call.query.at)
    return found if at is None else found.at(at)


def _version(text: int | str) -> Version:
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() else text


def _at(text: str | None) -> Version | None:
    return None if text is None else _version(text)


def _entry(one: Table) -> dict[str, Any]:
    return {"name": one.full_name, "schema": one.schema_name, "kind": one.kind, "comment": one.comment}


def _snapshot(one: Snapshot) -> SnapshotFacts:
    note = msgspec.Raw(one.note.encode()) if one.note else None
    return SnapshotFacts(one.id, one.time, one.author, one.message, one.changes, note)


_AT = (TableNotFound, SchemaNotFound, SnapshotNotFound, QueryError)
"""What a table that is named, and a snapshot that is asked for, may not be."""

ROUTES = (
    Route("GET", "/schemas", "read", schemas),
    Route("POST", "/schemas", "write", create_schema, body=Named, statuses=(201,), refuses=(AlreadyExists, QueryError)),
    Route("GET", "/tables", "read", tables, query=InSchema, refuses=(SchemaNotFound,)),
    Route("GET", "/tables/{table}", "read", table, query=At, refuses=_AT),
    Route("DELETE", "/tables/{table}", "write", drop, refuses=_AT),
    Route("GET", "/tables/{table}/columns", "read", columns, query=At, refuses=_AT),
    Route("GET", "/tables/{table}/files", "read", files, query=At, refuses=_AT),
    Route("GET", "/tables/{table}/profile", "read", profile, query=Sampled, refuses=_AT),
    Route("GET", "/tables/{table}/lineage", "read", lineage, query=Way, refuses=_AT),
    Route("GET", "/tables/{table}/snapshots", "read", table_snapshots, query=Newest, refuses=_AT),
    Route(
        "GET",
        "/tables/{table}/changes",
        "read",
        changes,
        query=Span,
        gives=Changes,
        media=("application/json", formats.ARROW),
        refuses=_AT,
    ),
    Route("POST", "/tables/{table}/rollback", "write", rollback, body=Back, refuses=(*_AT, Conflict)),
    Route("PUT", "/tables/{table}/comment", "write", comment, body=Comment, refuses=(*_AT, ColumnNotFound)),
    Route("PUT", "/tables/{table}/tags/{tag}", "write", tag, body=Tag, refuses=_AT),
    Route("GET", "/snapshots", "read", snapshots, query=Newest),
    Route("PUT", "/snapshots/tags/{name}", "write", tag_snapshot, body=SnapshotTag, refuses=(*_AT, AlreadyExists)),
    Route("DELETE", "/snapshots/tags/{name}", "write", untag_snapshot, refuses=(NotFound,)),
    Route("POST", "/rollback", "admin", lake_rollback, body=LakeBack, refuses=(*_AT, Conflict)),
    Route("GET", "/search", "read", search, query=Words),
)
