"""The catalog over HTTP: schemas, tables, snapshots, and what is known of each."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from lakehouse.catalog.metadata import Snapshot, Version
from lakehouse.catalog.table import Table
from lakehouse.server.routing import Answer, Call, Route

if TYPE_CHECKING:
    import pyarrow as pa

ARROW = "application/vnd.apache.arrow.stream"
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

    name: str
    if_not_exists: bool = False


def schemas(call: Call) -> dict[str, Any]:
    """The names of the schemas."""
    return {"schemas": call.lake.catalog.schemas()}


def create_schema(call: Call) -> Answer:
    """Make a schema."""
    body: Named = call.body
    return Answer({"snapshot": call.lake.catalog.create_schema(body.name, if_not_exists=body.if_not_exists)}, 201)


def tables(call: Call) -> dict[str, Any]:
    """Tables and views, with rows and bytes."""
    catalog, schema = call.lake.catalog, call.query.schema
    found = catalog.tables(schema)
    sizes = catalog.sizes(found)
    rows = [{**_entry(one), "rows": sizes[one.full_name][0], "bytes": sizes[one.full_name][1]} for one in found]
    return {"tables": rows, "views": [_entry(one) for one in catalog.views(schema)]}


def table(call: Call) -> dict[str, Any]:
    """One table or view, with its columns."""
    one = _table(call)
    facts = {**_entry(one), "rows": one.row_count, "bytes": one.bytes, "snapshot": one.version, "tags": one.tags}
    return {**facts, "partitioning": one.partitioning, "sorting": one.sorting, "columns": one.schema}


def columns(call: Call) -> dict[str, Any]:
    """The columns of a table or view."""
    return {"columns": _table(call).schema}


def files(call: Call) -> dict[str, Any]:
    """The data files of a table."""
    return {"files": [one.to_dict() for one in _table(call).files()]}


def profile(call: Call) -> dict[str, Any]:
    """What each column holds."""
    sample = call.query.sample
    one = _table(call)
    return (one.profile() if sample is None else one.profile(sample=sample or None)).to_dict()


def lineage(call: Call) -> dict[str, Any]:
    """Where the rows came from, and what was made from them."""
    query: Way = call.query
    if query.at is not None:
        return _table(call).lineage(query.direction, query.depth).to_dict()
    return call.lake.catalog.lineage(call.path[0], query.direction, query.depth).to_dict()  # also of what was dropped


def table_snapshots(call: Call) -> dict[str, Any]:
    """The commits that changed a table, newest first."""
    found = call.lake.catalog.table(call.path[0]).snapshots()
    return {"snapshots": [_snapshot(one) for one in found[: call.query.limit]]}


def changes(call: Call) -> dict[str, Any] | Answer[None]:
    """The rows that commits inserted, updated and deleted: the first of them, or all as an Arrow stream."""
    query: Span = call.query
    found = call.lake.catalog.table(call.path[0]).changes(_version(query.start), _at(query.end))
    if ARROW in call.headers.get("Accept", ""):
        return Answer(None, 200, {"Content-Type": ARROW}, _streamed(found))
    some = found.slice(0, query.limit)
    return {"changes": some.to_pylist(), "rows": found.num_rows, "complete": some.num_rows == found.num_rows}


def snapshots(call: Call) -> dict[str, Any]:
    """The commits of the lake, newest first, and the names that some have."""
    catalog = call.lake.catalog
    return {
        "snapshots": [_snapshot(one) for one in catalog.snapshots(call.query.limit)],
        "tags": catalog.snapshot_tags(),
    }


def search(call: Call) -> dict[str, Any]:
    """Tables, views and schemas in which every word is found."""
    return {"hits": [hit.to_dict() for hit in call.lake.catalog.search(call.query.q, call.query.limit)]}


def rollback(call: Call) -> dict[str, Any]:
    """Give a table the rows it had, in a new commit."""
    body: Back = call.body
    one = call.lake.catalog.table(call.path[0])
    return {"snapshot": one.rollback(_version(body.to), allow_schema_change=body.allow_schema_change)}


def lake_rollback(call: Call) -> dict[str, Any]:
    """Make the whole lake what it was, in a new commit."""
    return {"snapshot": call.lake.rollback(_version(call.body.to))}


def comment(call: Call) -> dict[str, Any]:
    """Say what a table or a column is."""
    one = call.lake.catalog.table(call.path[0])
    return {"snapshot": one.set_comment(call.body.text, column=call.body.column)}


def tag(call: Call) -> dict[str, Any]:
    """Give a table a tag, or take it away."""
    one = call.lake.catalog.table(call.path[0])
    one.set_tag(call.path[1], call.body.value)
    return {"tags": one.tags}


def tag_snapshot(call: Call) -> dict[str, Any]:
    """Give a snapshot a name."""
    body: SnapshotTag = call.body
    version = None if body.snapshot is None else _version(body.snapshot)
    return {"snapshot": call.lake.catalog.tag_snapshot(call.path[0], version, replace=body.replace)}


def untag_snapshot(call: Call) -> dict[str, Any]:
    """Take a name away from its snapshot."""
    return {"snapshot": call.lake.catalog.untag_snapshot(call.path[0])}


def drop(call: Call) -> dict[str, Any]:
    """Drop a table or view; older snapshots still have it."""
    return {"snapshot": call.lake.catalog.drop(call.path[0])}


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


def _streamed(table: pa.Table) -> Iterator[bytes]:
    """A table as an Arrow IPC stream, piece by piece."""
    import pyarrow as pa

    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.to_batches(10_000):
            writer.write_batch(batch)
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
    yield sink.getvalue()


def _snapshot(one: Snapshot) -> dict[str, Any]:
    facts = {"id": one.id, "time": one.time, "author": one.author, "message": one.message, "changes": one.changes}
    return {**facts, "note": msgspec.Raw(one.note.encode()) if one.note else None}


ROUTES = (
    Route("GET", "/schemas", "read", schemas),
    Route("POST", "/schemas", "write", create_schema, body=Named),
    Route("GET", "/tables", "read", tables, query=InSchema),
    Route("GET", "/tables/{table}", "read", table, query=At),
    Route("DELETE", "/tables/{table}", "write", drop),
    Route("GET", "/tables/{table}/columns", "read", columns, query=At),
    Route("GET", "/tables/{table}/files", "read", files, query=At),
    Route("GET", "/tables/{table}/profile", "read", profile, query=Sampled),
    Route("GET", "/tables/{table}/lineage", "read", lineage, query=Way),
    Route("GET", "/tables/{table}/snapshots", "read", table_snapshots, query=Newest),
    Route("GET", "/tables/{table}/changes", "read", changes, query=Span),
    Route("POST", "/tables/{table}/rollback", "write", rollback, body=Back),
    Route("PUT", "/tables/{table}/comment", "write", comment, body=Comment),
    Route("PUT", "/tables/{table}/tags/{tag}", "write", tag, body=Tag),
    Route("GET", "/snapshots", "read", snapshots, query=Newest),
    Route("PUT", "/snapshots/tags/{name}", "write", tag_snapshot, body=SnapshotTag),
    Route("DELETE", "/snapshots/tags/{name}", "write", untag_snapshot),
    Route("POST", "/rollback", "admin", lake_rollback, body=LakeBack),
    Route("GET", "/search", "read", search, query=Words),
)
