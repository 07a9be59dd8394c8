"""How a table is laid out and how it changed, and versions, over HTTP."""

from __future__ import annotations

import msgspec

from lakehouse.catalog.history.diff import Diff
from lakehouse.errors import AlreadyExists, ColumnNotFound, Conflict
from lakehouse.server.answers import Committed, SnapshotFacts, TableChange, TableHistory
from lakehouse.server.routes.catalog import _AT, Newest, _at, _snapshot, _version
from lakehouse.server.routing import Answer, Call, Route


class NewColumn(msgspec.Struct, forbid_unknown_fields=True):
    """A column to add; rows that are there read `default`."""

    name: str
    type: str
    default: str | int | float | bool | None = None


class Renamed(msgspec.Struct, forbid_unknown_fields=True):
    """What a column is called from now on."""

    name: str


class Layout(msgspec.Struct, forbid_unknown_fields=True):
    """By what new rows are partitioned or sorted; nothing: no longer."""

    by: list[str] = []


class Between(msgspec.Struct, forbid_unknown_fields=True):
    """From one version to another; no end: the newest."""

    start: str
    end: str | None = None


def history(call: Call) -> TableHistory:
    """The commits that changed a table, newest first, with how many rows each inserted, updated and deleted."""
    found = call.lake.catalog.table(call.path[0]).history(call.query.limit)
    return TableHistory([TableChange(_snapshot(o.snapshot), o.inserted, o.updated, o.deleted) for o in found])


def add_column(call: Call) -> Answer[Committed]:
    """Add a column."""
    body: NewColumn = call.body
    table = call.lake.catalog.table(call.path[0])
    return Answer(Committed(table.add_column(body.name, body.type, default=body.default)), 201)


def rename_column(call: Call) -> Committed:
    """Rename a column."""
    return Committed(call.lake.catalog.table(call.path[0]).rename_column(call.path[1], call.body.name))


def drop_column(call: Call) -> Committed:
    """Drop a column; older snapshots keep it."""
    return Committed(call.lake.catalog.table(call.path[0]).drop_column(call.path[1]))


def partition(call: Call) -> Committed:
    """Write rows from now on into files by these values."""
    return Committed(call.lake.catalog.table(call.path[0]).set_partitioning(*call.body.by))


def sort(call: Call) -> Committed:
    """Sort rows written from now on inside their files."""
    return Committed(call.lake.catalog.table(call.path[0]).set_sorting(*call.body.by))


def snapshot(call: Call) -> SnapshotFacts:
    """The commit that an id, the name of a tagged snapshot, or a time means."""
    catalog = call.lake.catalog
    id = catalog.resolve(_version(call.path[0]))
    return _snapshot(next(one for one in catalog.metadata.snapshots(f"s.snapshot_id = {id}")))


def diff(call: Call) -> Diff:
    """What differs between two snapshots: schemas, tables, views, columns, numbers of rows."""
    return call.lake.diff(_version(call.query.start), _at(call.query.end))


_CHANGED = (*_AT, ColumnNotFound, AlreadyExists, Conflict)

ROUTES = (
    Route("GET", "/tables/{table}/history", "read", history, query=Newest, refuses=_AT),
    Route("POST", "/tables/{table}/columns", "write", add_column, body=NewColumn, statuses=(201,), refuses=_CHANGED),
    Route("PATCH", "/tables/{table}/columns/{column}", "write", rename_column, body=Renamed, refuses=_CHANGED),
    Route("DELETE", "/tables/{table}/columns/{column}", "write", drop_column, refuses=_CHANGED),
    Route("PUT", "/tables/{table}/partitioning", "write", partition, body=Layout, refuses=_CHANGED),
    Route("PUT", "/tables/{table}/sorting", "write", sort, body=Layout, refuses=_CHANGED),
    Route("GET", "/snapshots/{version}", "read", snapshot, refuses=_AT),
    Route("GET", "/diff", "read", diff, query=Between, refuses=_AT),
)
