"""`client.catalog`: schemas, tables, views and snapshots of a lake behind a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from lakehouse.catalog.lineage.graph import Direction, Lineage
from lakehouse.catalog.metadata import Snapshot, Version
from lakehouse.catalog.names import nearest, quote, split
from lakehouse.catalog.search import Hit
from lakehouse.client import table as tables
from lakehouse.client.table import Commit, Entry, Facts, RemoteTable, version_text
from lakehouse.client.wire import LONG, Wire, complete, limited, path
from lakehouse.errors import AlreadyExists, SchemaNotFound, TableNotFound


class _Tables(msgspec.Struct):
    tables: list[Entry]
    views: list[Entry]


class RemoteCatalog:
    """What there is in the lake; the methods are those of `lake.catalog`.

    Args:
        wire: the server.
        run: runs a statement of SQL there, and gives the snapshot it made.
    """

    def __init__(self, wire: Wire, run: Callable[[str], int]) -> None:
        self._wire = wire
        self._run = run

    def schemas(self) -> list[str]:
        """The names of all schemas, sorted."""
        return list(self._wire.json("GET", "/schemas", dict[str, list[str]])["schemas"])

    def schema(self, name: str) -> str:
        """The name of a schema as it was created.

        Raises:
            SchemaNotFound: there is no schema of that name.
        """
        known = {schema.lower(): schema for schema in self.schemas()}
        if found := known.get(name.lower()):
            return found
        raise SchemaNotFound(f"there is no schema '{name}'", hint=nearest(name, known.values()))

    def create_schema(self, name: str, *, if_not_exists: bool = False) -> int:
        """Create a schema and return the snapshot that was made."""
        body = {"name": name, "if_not_exists": if_not_exists}
        return int(self._wire.json("POST", "/schemas", Commit, body=body).snapshot)

    def tables(self, schema: str | None = None) -> list[RemoteTable]:
        """All tables, or those of one schema, sorted by name."""
        return [RemoteTable(self._wire, one) for one in self._listed(schema).tables]

    def views(self, schema: str | None = None) -> list[RemoteTable]:
        """All views, or those of one schema, sorted by name."""
        return [RemoteTable(self._wire, one) for one in self._listed(schema).views]

    def sizes(self, tables: Iterable[RemoteTable]) -> dict[str, tuple[int, int]]:
        """Exact rows and bytes of several tables by full name; views among them are left out."""
        wanted = {one.full_name for one in tables}
        return {one.name: (one.rows, one.bytes) for one in self._listed(None).tables if one.name in wanted}

    def table(self, name: str) -> RemoteTable:
        """The table or view called `table` or `schema.table`.

        Raises:
            TableNotFound: there is none; the hint offers the nearest names.
        """
        split(name)  # refuses what is no name
        return RemoteTable(self._wire, self._wire.json("GET", path("/tables/{}", name), Facts))

    def create_view(self, name: str, sql: str, *, replace: bool = False) -> RemoteTable:
        """Keep a query as a view; see `Catalog.create_view`.

        Raises:
            AlreadyExists: the name is taken and `replace` is off.
        """
        if not replace:
            try:
                self.table(name)
            except TableNotFound:
                pass
            else:
                raise AlreadyExists(f"there is a table or view '{name}' already", hint="replace=True takes its place")
        self._run(f"CREATE {'OR REPLACE ' if replace else ''}VIEW {quote(*split(name))} AS {sql.strip().rstrip(';')}")
        return self.table(name)

    def drop(self, name: str, *, if_exists: bool = False) -> int:
        """Drop a table or view (older snapshots keep it) and return the snapshot that was made."""
        split(name)
        try:
            return int(self._wire.json("DELETE", path("/tables/{}", name), Commit).snapshot)
        except TableNotFound:
            if if_exists:
                return self.current_snapshot().id
            raise

    def snapshots(self, limit: int | None = None) -> list[Snapshot]:
        """The commits of the lake, newest first.

        Raises:
            LakehouseError: without a limit there are more than one answer holds (10,000).
        """
        return complete(tables.snapshots(self._wire, limited(limit))[0] if limit != 0 else [], limit)

    def current_snapshot(self) -> Snapshot:
        """The snapshot that reads see now."""
        return tables.snapshots(self._wire, 1)[0][0]

    def resolve(self, version: Version) -> int:
        """The snapshot id that an id, the name of a tagged snapshot, or a time means."""
        return tables.snapshot(self._wire, version).id

    def tag_snapshot(self, name: str, version: Version | None = None, *, replace: bool = False) -> int:
        """Give a snapshot a name; see `Catalog.tag_snapshot`."""
        body = {"snapshot": None if version is None else version_text(version), "replace": replace}
        return int(self._wire.json("PUT", path("/snapshots/tags/{}", name), Commit, body=body).snapshot)

    def untag_snapshot(self, name: str) -> int:
        """Take a name away from its snapshot, whose id is returned."""
        return int(self._wire.json("DELETE", path("/snapshots/tags/{}", name), Commit).snapshot)

    def snapshot_tags(self) -> dict[str, int]:
        """The ids of the tagged snapshots by name."""
        return tables.snapshots(self._wire, 1)[1]

    def search(self, text: str, limit: int | None = None) -> list[Hit]:
        """Tables, views and schemas in which every word of a text is found; see `Catalog.search`."""
        query = {"q": text, "limit": limited(limit)}
        return complete(self._wire.json("GET", "/search", dict[str, list[Hit]], query=query)["hits"], limit)

    def lineage(self, name: str, direction: Direction = "both", depth: int | None = None) -> Lineage:
        """Where the rows of a table came from and what was made from it, also of one that was dropped."""
        split(name)
        return tables.lineage(self._wire, name, direction, depth, {})

    def __repr__(self) -> str:
        return f"<catalog of {self._wire.base}>"

    def _listed(self, schema: str | None) -> _Tables:
        found: _Tables = self._wire.json("GET", "/tables", _Tables, query={"schema": schema}, wait=LONG)
        return found
