"""One table or view of a lake behind a server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from lakehouse.catalog.history.rollback import Change
from lakehouse.catalog.layout import DataFile
from lakehouse.catalog.lineage.graph import Direction, Edge, Lineage, Node
from lakehouse.catalog.metadata import Snapshot, Version
from lakehouse.catalog.names import split
from lakehouse.catalog.profile import SAMPLE
from lakehouse.catalog.profiles import Profile
from lakehouse.catalog.table import Column
from lakehouse.client.arrow import ARROW, read_table
from lakehouse.client.wire import LONG, Wire, complete, limited, path
from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    import pyarrow as pa


class Commit(msgspec.Struct):
    """The answer of whatever makes a snapshot."""

    snapshot: int


class Entry(msgspec.Struct):
    """A table or view in a list."""

    name: str
    schema: str
    kind: str
    comment: str | None
    rows: int = 0
    bytes: int = 0


class Facts(Entry, kw_only=True):
    """Everything about one table or view."""

    snapshot: int
    tags: dict[str, str]
    partitioning: tuple[str, ...]
    sorting: tuple[str, ...]
    columns: list[Column]


class _Snapshot(msgspec.Struct):
    id: int
    time: datetime
    author: str | None
    message: str | None
    changes: str
    note: msgspec.Raw


class _Snapshots(msgspec.Struct):
    snapshots: list[_Snapshot]
    tags: dict[str, int] = {}


class _Change(msgspec.Struct):
    snapshot: _Snapshot
    inserted: int | None
    updated: int | None
    deleted: int | None


class RemoteTable:
    """A table or view by its name; every property is read when asked for, and is as of `lakehouse.Table`.

    Args:
        wire: the server.
        entry: what is known of it.
        snapshot: the snapshot that it is read at; None: the newest.
    """

    def __init__(self, wire: Wire, entry: Entry, snapshot: int | None = None) -> None:
        self._wire = wire
        self.entry = entry
        """What it was when it was listed."""
        self._snapshot = snapshot

    @property
    def full_name(self) -> str:
        """`schema.table`, or the bare name in the schema `main`; odd names are quoted."""
        return self.entry.name

    @property
    def name(self) -> str:
        return split(self.full_name)[1]

    @property
    def schema_name(self) -> str:
        return self.entry.schema

    @property
    def kind(self) -> str:
        """`table` or `view`."""
        return self.entry.kind

    @property
    def comment(self) -> str | None:
        return self._facts().comment

    @property
    def version(self) -> int:
        """The snapshot id that this table is read at."""
        return self._snapshot if self._snapshot is not None else self._facts().snapshot

    @property
    def schema(self) -> list[Column]:
        """The columns in order, with DuckDB types and comments."""
        return self._facts().columns

    @property
    def row_count(self) -> int:
        """The exact number of rows."""
        return self._facts().rows

    @property
    def bytes(self) -> int:
        """Size of the data files in bytes."""
        return self._facts().bytes

    @property
    def tags(self) -> dict[str, str]:
        """The tags of the table by key; they are no part of any snapshot."""
        return self._facts().tags

    @property
    def partitioning(self) -> tuple[str, ...]:
        """How new rows are partitioned; empty when they are not."""
        return self._facts().partitioning

    @property
    def sorting(self) -> tuple[str, ...]:
        """How new rows are sorted inside their files; empty when they are not."""
        return self._facts().sorting

    def at(self, version: Version) -> RemoteTable:
        """The same table as it was at a snapshot id, a tagged snapshot or a time; see `Table.at`."""
        found: Facts = self._wire.json("GET", self._path(), Facts, query={"at": version_text(version)})
        return RemoteTable(self._wire, found, found.snapshot)

    def snapshots(self) -> list[Snapshot]:
        """The snapshots that changed this table, newest first, the one that created it last."""
        found = self._wire.json("GET", self._path("/snapshots"), _Snapshots, query={"limit": limited(None)})
        return complete([_snapshot(one) for one in found.snapshots], None)

    def history(self, limit: int | None = None) -> list[Change]:
        """The commits that changed this table, newest first, with how many rows each changed; see `Table.history`."""
        query = {"limit": limited(limit)}
        found = self._wire.json("GET", self._path("/history"), dict[str, list[_Change]], query=query, wait=LONG)
        changes = [Change(_snapshot(o.snapshot), o.inserted, o.updated, o.deleted) for o in found["commits"]]
        return complete(changes, limit)

    def profile(self, *, sample: int | None = SAMPLE) -> Profile:
        """What each column holds; see `Table.profile`."""
        query = {**self._at(), "sample": sample or 0}
        found: Profile = self._wire.json("GET", self._path("/profile"), Profile, query=query, wait=LONG)
        return found

    def files(self) -> list[DataFile]:
        """The data files, oldest first, as they lie on the server."""
        return list(self._wire.json("GET", self._path("/files"), dict[str, list[DataFile]], query=self._at())["files"])

    def lineage(self, direction: Direction = "both", depth: int | None = None) -> Lineage:
        """Where its rows came from and what was made from them; see `Table.lineage`."""
        return lineage(self._wire, self.full_name, direction, depth, self._at())

    def changes(self, start: Version, end: Version | None = None) -> pa.Table:
        """The rows that commits inserted, updated and deleted, oldest commit first; see `Table.changes`."""
        last = self._snapshot if end is None else version_text(end)
        query = {"start": version_text(start), "end": last}
        accept = {"Accept": ARROW}
        with self._wire.stream("GET", self._path("/changes"), query=query, headers=accept, wait=LONG) as answer:
            return read_table(answer, self._wire.base)

    def rollback(self, version: Version, *, allow_schema_change: bool = False) -> int:
        """Give the table the rows it had at a snapshot, in one new commit; see `Table.rollback`."""
        body = {"to": version_text(version), "allow_schema_change": allow_schema_change}
        return self._changed("POST", "/rollback", body, "rolled back")

    def set_comment(self, text: str | None, *, column: str | None = None) -> int:
        """Describe the table, or one of its columns; None removes the description."""
        return self._changed("PUT", "/comment", {"text": text, "column": column})

    def set_tag(self, key: str, value: str | None) -> None:
        """Tag the table, such as `set_tag("owner", "sales")`; None removes the tag."""
        self._wire.json("PUT", self._path("/tags/" + path("{}", key)), body={"value": value})

    def set_partitioning(self, *parts: str) -> int:
        """Write rows from now on into files by these values; see `Table.set_partitioning`."""
        return self._changed("PUT", "/partitioning", {"by": parts})

    def set_sorting(self, *keys: str) -> int:
        """Sort rows written from now on; see `Table.set_sorting`."""
        return self._changed("PUT", "/sorting", {"by": keys})

    def add_column(self, name: str, type: str, *, default: str | int | float | bool | None = None) -> int:
        """Add a column; rows that are there already read `default`. Returns the snapshot that was made."""
        return self._changed("POST", "/columns", {"name": name, "type": type, "default": default})

    def rename_column(self, old: str, new: str) -> int:
        """Rename a column; returns the snapshot that was made."""
        return self._changed("PATCH", "/columns/" + path("{}", old), {"name": new})

    def drop_column(self, name: str) -> int:
        """Drop a column; older snapshots keep it. Returns the snapshot that was made."""
        return self._changed("DELETE", "/columns/" + path("{}", name), None)

    def __repr__(self) -> str:
        at = "" if self._snapshot is None else f" at snapshot {self._snapshot}"
        return f"<{self.kind} {self.full_name}{at}>"

    def _path(self, rest: str = "") -> str:
        return path("/tables/{}", self.full_name) + rest

    def _at(self) -> dict[str, Any]:
        return {"at": self._snapshot}

    def _facts(self) -> Facts:
        found: Facts = self._wire.json("GET", self._path(), Facts, query=self._at())
        return found

    def _changed(self, method: str, rest: str, body: Any, what: str = "changed") -> int:
        if self._snapshot is not None:
            raise LakehouseError(f"{self!r} is a past state and cannot be {what}", hint="use the table itself")
        return int(self._wire.json(method, self._path(rest), Commit, body=body, wait=LONG).snapshot)


def version_text(version: Version) -> int | str:
    """A version as it is sent: an id, the name of a tagged snapshot, or a time in ISO 8601."""
    if not isinstance(version, date):
        return version
    if not isinstance(version, datetime):
        version = datetime(version.year, version.month, version.day)
    return version.astimezone().isoformat()  # a time without a zone is one of this machine, not of the server


def lineage(wire: Wire, name: str, direction: Direction, depth: int | None, at: Mapping[str, Any]) -> Lineage:
    """The lineage of a table, also of one that was dropped; see `Catalog.lineage`."""
    query = {"direction": direction, "depth": depth, **at}
    told = wire.json("GET", path("/tables/{}/lineage", name), dict[str, Any], query=query, wait=LONG)
    nodes = tuple(msgspec.convert(told["nodes"], list[Node]))
    root = next(node for node in nodes if node.id == told["root"])
    edges = tuple(msgspec.convert(told["edges"], list[Edge]))
    columns = {
        column: None if known is None else tuple((pair[0], pair[1]) for pair in known)
        for column, known in told["columns"].items()
    }
    return Lineage(root, nodes, edges, direction, depth, told["snapshot"], lambda: columns)


def snapshots(wire: Wire, limit: int) -> tuple[list[Snapshot], dict[str, int]]:
    """The newest commits of the lake, and the names that some of all have."""
    found: _Snapshots = wire.json("GET", "/snapshots", _Snapshots, query={"limit": limit})
    return [_snapshot(one) for one in found.snapshots], found.tags


def snapshot(wire: Wire, version: Version) -> Snapshot:
    """The commit that a version means."""
    return _snapshot(wire.json("GET", path("/snapshots/{}", str(version_text(version))), _Snapshot))


def _snapshot(one: _Snapshot) -> Snapshot:
    note = bytes(one.note).decode()
    return Snapshot(one.id, one.time, one.author, one.message, one.changes, None if note == "null" else note)
