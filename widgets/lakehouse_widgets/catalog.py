"""What there is in a lake, now and at every snapshot: schemas, tables, views, columns, and a look at the rows."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from lakehouse import LakehouseError
from lakehouse_widgets.explorer import (
    Explorer,
    Item,
    Listed,
    Opened,
    Words,
    buttons,
    counted,
    cut,
    facts,
    place_of,
    problem,
    sliced,
    table,
    text,
)
from lakehouse_widgets.filters import Filter
from lakehouse_widgets.grid import Grid
from lakehouse_widgets.pages import MessageInvalid

if TYPE_CHECKING:
    from lakehouse import Lakehouse, Snapshot, Table

PREVIEW_ROWS = 1_000
PREVIEW_SECONDS = 30.0
"""A preview that takes longer, as that of a view may, is stopped."""
_SEARCH, _AT = "Search", "As of"
_HITS = 200
_NOTED = ("operation", "source", "notebook", "script")  # of what a commit says of itself
_COLUMNS = 2_000
_SUGGESTED = 50  # snapshots


class CatalogBrowser(Explorer):
    """Schemas, tables, views and snapshots of a lake, as they are or as they were at a snapshot.

    It reads only, and takes no SQL from the page, so it may be given to viewers who may see the lake.

    Args:
        lake: the lake, which may be read-only or pinned. Of one behind a server (`lakehouse.connect`) the present.
        height: of tree and details in pixels.
    """

    filters: ClassVar[Sequence[Filter]] = (
        Words(_SEARCH, "name, column, comment, tag", live=True),
        Words(_AT, "newest; or a snapshot, its name, a time"),
    )
    acts: ClassVar[frozenset[str]] = frozenset({"preview"})
    fallback: ClassVar[Sequence[str]] = ("Table", "Kind", "Comment")

    def __init__(self, lake: Lakehouse, *, height: int = 440) -> None:
        super().__init__(height=height)
        self._lake = lake
        self._previews = 0
        self._showing = threading.Lock()
        self.label, self.hint = "Catalog of the lake", "Choose a table, a view or a snapshot."

    def entries(self, under: str | None, after: str | None, count: int, values: Mapping[str, Any]) -> Listed:
        if under == "snapshots":
            return self._snapshots(after, count, values)
        lake = self._at(values)
        if under is not None:
            return sliced(_relations(lake, _name(under, "schema")), after, count, _item)
        snapshot = lake.catalog.current_snapshot()
        when = f"snapshot {snapshot.id} of {cut(snapshot.time)}"
        if values[_SEARCH]:
            return self._hits(lake, values[_SEARCH], when, after, count)
        sizes = dict.fromkeys(lake.catalog.schemas(), 0)
        for one in _relations(lake):
            sizes[one.schema_name] = sizes.get(one.schema_name, 0) + 1
        shown = "main" if sizes.get("main") else next((name for name, size in sizes.items() if size), None)
        items = [
            Item(f"schema:{name}", name, f"{size:,}", group=True, opened=name == shown) for name, size in sizes.items()
        ]
        items.append(Item("snapshots", "Snapshots", "look at the past", group=True))
        said = f"{sum(sizes.values()):,} tables and views, {when}"
        return sliced(items, after, count, said=said, suggested=self._suggested())

    def opened(self, key: str, values: Mapping[str, Any]) -> Opened:
        kind, _, name = key.partition(":")
        if kind == "table" and name:
            return _described(self._at(values), name)
        if kind == "snapshot" and name:
            return self._snapshot(place_of(name))
        if kind == "schema" and name:
            found = _relations(self._at(values), name)
            views = sum(one.kind == "view" for one in found)
            return Opened(name, [facts(("Kind", "schema"), ("Tables", len(found) - views), ("Views", views))])
        if key == "snapshots":
            return Opened("Snapshots", [text("", "Every commit made one. Open one to look at the lake as of it.")])
        raise MessageInvalid("a catalog has tables, schemas and snapshots")

    def act(self, name: str, key: str, values: Mapping[str, Any]) -> str:
        with self._showing:
            self._previews += 1
            number = self._previews
        lake = self._at(values)
        found = lake.catalog.table(_name(key, "table"))
        target = ".".join(_quoted(part) for part in ("lake", found.schema_name, found.name))
        result = lake.sql(f"SELECT * FROM {target}", limit=PREVIEW_ROWS, timeout=PREVIEW_SECONDS)
        with self._showing:
            if number != self._previews:
                raise LakehouseError("another table was asked for meanwhile")
            if self.grid is None:
                self.grid = Grid(result, height=260)
            else:
                self.grid.show(result)
        first = f"the first {PREVIEW_ROWS:,} rows" if len(result) >= PREVIEW_ROWS else counted(len(result), "row")
        return f"{found.full_name}, snapshot {result.snapshot}: {first}"

    def overview(self) -> tuple[str, list[Sequence[Any]]]:
        found = _relations(self._lake)
        return (
            f"{len(found):,} tables and views, snapshot {self._lake.catalog.current_snapshot().id}",
            [(one.full_name, one.kind, _comment(one)) for one in found],
        )

    def close(self) -> None:
        """Take the browser from the page and let go of the rows of the preview."""
        if self.grid is not None:
            self.grid.close()
        super().close()

    def _at(self, values: Mapping[str, Any]) -> Lakehouse:
        return self._lake.at(values[_AT]) if values[_AT] else self._lake

    def _hits(self, lake: Lakehouse, words: str, when: str, after: str | None, count: int) -> Listed:
        items = []
        for hit in lake.catalog.search(words, limit=_HITS):
            why = ", ".join(f"{one.where}: {one.text}" for one in hit.matches if one.where != "name")
            place = "schema" if hit.kind == "schema" else "table"
            status = "view" if hit.kind == "view" else ""
            items.append(Item(f"{place}:{hit.name}", hit.name, cut(why), status, group=hit.kind == "schema"))
        found = f"the best {_HITS} hits" if len(items) == _HITS else counted(len(items), "hit")
        return sliced(items, after, count, said=f"{found}, {when}")

    def _snapshots(self, after: str | None, count: int, values: Mapping[str, Any]) -> Listed:
        first = place_of(after)
        found = self._lake.catalog.snapshots(first + count + 1)[first:]
        names: dict[int, list[str]] = {}
        for name, id in self._lake.catalog.snapshot_tags().items():
            names.setdefault(id, []).append(name)
        items = [
            Item(f"snapshot:{one.id}", str(one.id), " · ".join([*names.get(one.id, ()), cut(one.time), _done(one)]))
            for one in found[:count]
        ]
        return Listed(items, str(first + count) if len(found) > count else None)

    def _snapshot(self, id: int) -> Opened:
        one = self._lake.at(id).catalog.current_snapshot()
        named = [name for name, snapshot in self._lake.catalog.snapshot_tags().items() if snapshot == id]
        note = _note(one)
        sql = note.get("sql")
        parts = [
            facts(
                ("Time", one.time),
                ("Named", ", ".join(named)),
                ("Author", one.author),
                ("Message", one.message),
                ("Changes", one.changes),
                *((name.capitalize(), note.get(name)) for name in _NOTED),
            ),
            buttons({"label": "Look at the lake as of this snapshot", "set": {_AT: str(id), _SEARCH: ""}}),
        ]
        if isinstance(sql, str):
            parts.append(text("SQL", sql, code=True))
        return Opened(f"Snapshot {id}", parts)

    def _suggested(self) -> dict[str, list[str]]:
        named = list(self._lake.catalog.snapshot_tags())
        return {_AT: [*named, *(str(one.id) for one in self._lake.catalog.snapshots(_SUGGESTED))]}


def _described(lake: Lakehouse, name: str) -> Opened:
    """All that is known of a table or view; what cannot be told says why."""
    catalog = lake.catalog
    found = catalog.table(name)
    parts: list[dict[str, Any]] = []
    if comment := _comment(found):
        parts.append(text("", comment))
    known: list[tuple[str, Any]] = [("Kind", found.kind), ("Snapshot", str(found.version))]
    if found.kind == "table":  # counting a view would run its query
        rows, size = catalog.sizes([found])[found.full_name]
        known += [("Rows", rows), ("Bytes", size)]
        known += [("Partitioned by", ", ".join(found.partitioning)), ("Sorted by", ", ".join(found.sorting))]
    known.append(("Tags", ", ".join(f"{name}={value}" if value else name for name, value in found.tags.items())))
    parts += [facts(*known), buttons({"label": "Preview", "act": "preview"})]
    try:
        columns = found.schema
        facts_of = [(one.name, one.type, "" if one.nullable else "not null", one.comment) for one in columns[:_COLUMNS]]
        note = f"the first {_COLUMNS:,} of {len(columns):,}" if len(columns) > _COLUMNS else ""
        parts.append(table(counted(len(columns), "column"), ("Name", "Type", "Nulls", "Comment"), facts_of, note))
    except LakehouseError as error:
        parts.append(problem(error))
    query = getattr(getattr(found, "relation", None), "sql", None)  # a server does not tell it
    if query:
        parts.append(text("Query", query, code=True))
    return Opened(found.full_name, parts)


def _relations(lake: Lakehouse, schema: str | None = None) -> list[Table]:
    found = [*lake.catalog.tables(schema), *lake.catalog.views(schema)]
    return sorted(found, key=lambda one: (one.schema_name, one.name.casefold(), one.name))


def _item(one: Table) -> Item:
    status = "view" if one.kind == "view" else ""
    return Item(f"table:{one.full_name}", one.name, " ".join(_comment(one).split())[:200], status)


def _comment(one: Table) -> str:
    listed: Any = getattr(one, "entry", one)  # what a server has listed is not asked for again
    return listed.comment or ""


def _name(key: str, kind: str) -> str:
    found, _, name = key.partition(":")
    if found != kind or not name:
        raise MessageInvalid(f"this is said of a {kind}")
    return name


def _note(snapshot: Snapshot) -> dict[str, Any]:
    try:
        note = json.loads(snapshot.note or "{}")
    except ValueError:  # another program's commit
        return {}
    return note if isinstance(note, dict) else {}


def _done(snapshot: Snapshot) -> str:
    return " ".join((snapshot.message or snapshot.changes or "").split())[:200]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
