"""How a table is laid out and how it changed, and versions, over HTTP."""

from __future__ import annotations

from typing import Any

import msgspec

from lakehouse.server.routes.catalog import Newest, _at, _snapshot, _version
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


def history(call: Call) -> dict[str, Any]:
    """The commits that changed a table, newest first, with how many rows each inserted, updated and deleted."""
    found = call.lake.catalog.table(call.path[0]).history(call.query.limit)
    commits = [
        {"snapshot": _snapshot(o.snapshot), "inserted": o.inserted, "updated": o.updated, "deleted": o.deleted}
        for o in found
    ]
    return {"commits": commits}


def add_column(call: Call) -> Answer[dict[str, int]]:
    """Add a column."""
    body: NewColumn = call.body
    table = call.lake.catalog.table(call.path[0])
    return Answer({"snapshot": table.add_column(body.name, body.type, default=body.default)}, 201)


def rename_column(call: Call) -> dict[str, int]:
    """Rename a column."""
    return {"snapshot": call.lake.catalog.table(call.path[0]).rename_column(call.path[1], call.body.name)}


def drop_column(call: Call) -> dict[str, int]:
    """Drop a column; older snapshots keep it."""
    return {"snapshot": call.lake.catalog.table(call.path[0]).drop_column(call.path[1])}


def partition(call: Call) -> dict[str, int]:
    """Write rows from now on into files by these values."""
    return {"snapshot": call.lake.catalog.table(call.path[0]).set_partitioning(*call.body.by)}


def sort(call: Call) -> dict[str, int]:
    """Sort rows written from now on inside their files."""
    return {"snapshot": call.lake.catalog.table(call.path[0]).set_sorting(*call.body.by)}


def snapshot(call: Call) -> dict[str, Any]:
    """The commit that an id, the name of a tagged snapshot, or a time means."""
    catalog = call.lake.catalog
    id = catalog.resolve(_version(call.path[0]))
    return _snapshot(next(one for one in catalog.metadata.snapshots(f"s.snapshot_id = {id}")))


def diff(call: Call) -> dict[str, Any]:
    """What differs between two snapshots: schemas, tables, views, columns, numbers of rows."""
    return call.lake.diff(_version(call.query.start), _at(call.query.end)).to_dict()


ROUTES = (
    Route("GET", "/tables/{table}/history", "read", history, query=Newest),
    Route("POST", "/tables/{table}/columns", "write", add_column, body=NewColumn),
    Route("PATCH", "/tables/{table}/columns/{column}", "write", rename_column, body=Renamed),
    Route("DELETE", "/tables/{table}/columns/{column}", "write", drop_column),
    Route("PUT", "/tables/{table}/partitioning", "write", partition, body=Layout),
    Route("PUT", "/tables/{table}/sorting", "write", sort, body=Layout),
    Route("GET", "/snapshots/{version}", "read", snapshot),
    Route("GET", "/diff", "read", diff, query=Between),
)
