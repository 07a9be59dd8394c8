"""What a write read, put into the note of its commit while it is known."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from lakehouse.catalog.attach import ALIAS
from lakehouse.catalog.lineage import reads
from lakehouse.catalog.lineage.reads import Named
from lakehouse.catalog.metadata import Metadata, visible
from lakehouse.catalog.names import literal, shown
from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    import duckdb

    from lakehouse.catalog.writer import Writer

UNKNOWN = "unknown"
NOTE_SQL = 20_000
"""Characters of SQL kept in a commit's note; the hash is always of all of it."""
_PART_SQL = 2_000  # characters of each statement of a longer transaction
_HASHED = 1 << 20  # bytes; a larger file that SQL reads is known by its name, size and time only
_DEPTH = 20  # views upon views
_FILE_LIKE = re.compile(r"[./\\*?]")
_MOVES = re.compile(r"\s*(?:use|set)\b", re.I)


class Read(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that a write read."""

    kind: str
    """`table`, `view`, `file`, `frame` or `function`."""
    name: str
    id: int | None = None
    """DuckLake's id of a table or view; None: made in the same commit, or not of the lake."""
    snapshot: int | None = None
    """The snapshot it was read at."""
    sha256: str | None = None
    size: int | None = None
    modified: float | None = None
    reads: tuple[Read, ...] = ()
    """What a view, or an earlier result, read itself."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One statement of a commit: what it wrote and what it read for that."""

    operation: str
    """That of `reads.Use`, or `unknown`."""
    table: str = ""
    id: int | None = None
    """DuckLake's id of the table written; None: it was made in this commit."""
    reads: tuple[Read, ...] = ()
    sql: str | None = None
    """The statement, where the commit's note has not exactly it."""


class Known(Protocol):
    """A table or view as some part of the catalog gives it."""

    @property
    def id(self) -> int: ...
    @property
    def schema(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def sql(self) -> str | None: ...


Lookup = Callable[[str, str, int], Known | None]
"""The table or view of that schema and name at a snapshot."""
Macro = Callable[[str, int], tuple[str, ...]]
"""The queries of the macro of that name at a snapshot."""


def headline(text: str) -> str:
    """The first words of a statement, as a commit's message."""
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:79] + "…"


def sql_note(text: str) -> dict[str, Any]:
    """The facts that every commit made by SQL notes."""
    return {"sql": text[:NOTE_SQL], "sql_sha256": hashlib.sha256(text.encode()).hexdigest(), "at": time.time()}


class Recorder:
    """Adds `lineage` to the note of the write under way: an `Entry` for each statement that reads or makes rows.

    A statement that reads no other table (VALUES, a simple UPDATE or DELETE) adds nothing: the commit itself says
    which table it changed. One that is not understood is noted as `unknown`; none ever fails because of its note.
    """

    def __init__(self, metadata: Metadata, writer: Writer) -> None:
        self._metadata = metadata
        self._writer = writer
        self._local = threading.local()

    def prepare(self, texts: Iterable[str]) -> None:
        """Parse statements that are about to write, before anybody waits for the lock that they will hold."""
        for text in texts:
            reads.uses(text)

    def record(
        self, text: str, connection: duckdb.DuckDBPyConnection, frames: Mapping[str, Any], values: Any = None
    ) -> None:
        """Note what a statement, just run, wrote and read.

        Args:
            text: the statement.
            connection: where it ran.
            frames: what was usable as a table beside those of the lake, by name.
            values: what its parameters were bound to.
        """
        transaction = self._writer.active
        entries: list[Entry] | None = None
        try:
            entries = self._entries(text, connection, frames, values)
        except Exception:  # of any kind: the rows are written, and the note says that it does not know
            pass
        if transaction is None:
            return
        note = transaction.note
        alone = text.startswith(note.get("sql") or "\0")
        if entries is None and alone:
            note["lineage"] = UNKNOWN
            return
        kept = note.setdefault("lineage", [])
        for entry in [Entry(UNKNOWN)] if entries is None else entries:
            found = entry if alone else msgspec.structs.replace(entry, sql=text[:_PART_SQL])
            if not any((e.operation, e.table, e.reads) == (entry.operation, entry.table, entry.reads) for e in kept):
                kept.append(found)
        if not kept:
            del note["lineage"]

    def _entries(
        self, text: str, connection: duckdb.DuckDBPyConnection, frames: Mapping[str, Any], values: Any
    ) -> list[Entry] | None:
        local = self._local.__dict__
        if _MOVES.match(text):
            local["moved"] = True
        if (found := reads.uses(text)) is None:
            return None
        if not found:
            return []
        database, schema = ALIAS, "main"
        if local.get("moved"):
            database, schema = connection.execute("SELECT current_database(), current_schema()").fetchall()[0]
        temporary: dict[str, tuple[Read, ...]] = local.setdefault("temporary", {})
        resolver = Resolver(
            self._lookup, self._metadata.resolve, self._metadata.macro, database=database, schema=schema
        )
        snapshot = self._metadata.current()
        entries = []
        for use in found:
            sources: list[Read] = []
            for named in use.sources:
                sources += self._sources(named, snapshot, resolver, temporary, frames, values)
            target = use.target
            name = target.name.lower() if target else ""
            made = use.operation in ("create", "view")
            if target is None or use.temporary or (not made and name in temporary and target.schema in ("", "temp")):
                kept = () if use.operation == "create" else temporary.get(name, ())
                temporary[name] = tuple(dict.fromkeys([*kept, *sources]))
                continue
            place, short = resolver.place(target)
            old = None if made else self._lookup(place, short, snapshot)
            full = shown(old.schema, old.name) if old else shown(place, short)
            entries.append(Entry(use.operation, full, old.id if old else None, tuple(dict.fromkeys(sources))))
        return entries

    def _sources(
        self,
        named: Named,
        snapshot: int,
        resolver: Resolver,
        temporary: Mapping[str, tuple[Read, ...]],
        frames: Mapping[str, Any],
        values: Any,
    ) -> tuple[Read, ...]:
        if named.kind == "file":
            return (_file(_bound(named.name, values)),)
        if named.kind == "table" and not named.catalog and named.schema in ("", "temp"):
            frame = next((name for name in frames if name.lower() == named.name.lower()), None)
            if frame is not None:
                return (_frame(frame, frames[frame], resolver),)
            if named.name.lower() in temporary:
                return temporary[named.name.lower()]
        return resolver.reads((named,), snapshot)

    def _lookup(self, schema: str, name: str, snapshot: int) -> Known | None:
        there = visible(snapshot, "o")
        rows = self._metadata.rows(
            "issss",
            "SELECT o.id, s.schema_name, o.name, o.kind, o.sql FROM ("
            " SELECT table_id id, schema_id, table_name name, 'table' kind, NULL sql, begin_snapshot, end_snapshot"
            " FROM ducklake_table UNION ALL"
            " SELECT view_id, schema_id, view_name, 'view', sql, begin_snapshot, end_snapshot FROM ducklake_view) o"
            f" JOIN ducklake_schema s ON s.schema_id = o.schema_id AND {visible(snapshot, 's')}"
            f" WHERE {there} AND lower(o.name) = lower({literal(name)})",
        )
        return next((_Found(*row) for row in rows if row[1].lower() == schema.lower()), None)


class _Found(msgspec.Struct, frozen=True):
    id: int
    schema: str
    name: str
    kind: str
    sql: str | None


class Resolver:
    """Says what a name in a statement means at a snapshot.

    Args:
        lookup: finds tables and views.
        moment: the snapshot id that a time or id means.
        macro: the queries of a macro of the lake at a snapshot; none where there is no such macro.
        database: where the statement ran: `lake`, unless somebody went elsewhere with USE.
        schema: the schema of names without one.
    """

    def __init__(
        self,
        lookup: Lookup,
        moment: Callable[[str], int],
        macro: Macro,
        *,
        database: str = ALIAS,
        schema: str = "main",
    ) -> None:
        self._lookup = lookup
        self._moment = moment
        self._macro = macro
        self._database = database
        self._schema = schema

    def place(self, named: Named) -> tuple[str, str]:
        """Schema and name of a table as it is written."""
        if not named.catalog and named.schema.lower() == ALIAS:
            return "main", named.name  # lake.orders
        return named.schema or ("main" if named.catalog else self._schema), named.name

    def reads(self, found: Iterable[Named], snapshot: int, depth: int = 0) -> tuple[Read, ...]:
        """What names mean, each once; functions of values only where they are macros that read something."""
        known = (self.read(named, snapshot, depth) for named in found)
        return tuple(dict.fromkeys(read for read in known if read.kind != "call"))

    def read(self, named: Named, snapshot: int, depth: int = 0) -> Read:
        """What a name means; a file where there is no table of that name and it looks like one, as DuckDB does."""
        if named.kind in ("function", "call"):
            return self._called(named, snapshot, depth)
        if named.kind != "table":
            return Read(named.kind, named.name)
        if named.catalog.lower() not in ("", ALIAS) or (not named.schema and self._database != ALIAS):
            return Read("function", ".".join(part for part in (named.catalog, named.schema, named.name) if part))
        if named.at is not None:
            try:
                snapshot = self._moment(named.at)
            except LakehouseError:
                return Read("table", f"{named.name} at {named.at}")
        schema, name = self.place(named)
        found = self._lookup(schema, name, snapshot)
        if found is None:
            looks = not named.schema and _FILE_LIKE.search(name)
            return _file(name) if looks else Read("table", shown(schema, name))
        full = shown(found.schema, found.name)
        inner: tuple[Read, ...] = ()
        if found.kind == "view" and depth < _DEPTH:
            inner = self._inside(found.sql or "", full, snapshot, depth)
        return Read(found.kind, full, found.id, snapshot, reads=inner)

    def _called(self, named: Named, snapshot: int, depth: int) -> Read:
        """A function; if it is a macro of the lake, with what that reads."""
        name = named.name.partition("(")[0]
        bodies = self._macro(name, snapshot) if depth < _DEPTH else ()
        inner = [read for body in bodies for read in self._inside(body, name, snapshot, depth)]
        if named.kind == "call":
            return Read("function", name, reads=tuple(dict.fromkeys(inner))) if inner else Read("call", name)
        return Read("function", named.name, reads=tuple(dict.fromkeys(inner)))

    def _inside(self, sql: str, name: str, snapshot: int, depth: int) -> tuple[Read, ...]:
        """What the query of a view or macro reads; its names are those of the default schema, wherever it is asked."""
        plain = Resolver(self._lookup, self._moment, self._macro)
        found = reads.query(sql)
        return (Read(UNKNOWN, name),) if found is None else plain.reads(found, snapshot, depth + 1)


def _bound(name: str, values: Any) -> str:
    """The path that a parameter stands for."""
    if not name.startswith("$") or not values:
        return name
    key = name[1:]
    value = values.get(key) if isinstance(values, Mapping) else values[0 if key == "?" else int(key) - 1]
    return name if value is None else str(value)


def _file(name: str) -> Read:
    """A file as it is now: hashed when small, as that costs little; else told by size and time."""
    if "://" in name or name.startswith("$"):
        return Read("file", name)
    path = Path(name).absolute()
    try:
        stat = path.stat()
        content = path.read_bytes() if path.is_file() and stat.st_size <= _HASHED else None
    except (OSError, ValueError):
        return Read("file", str(path))  # a pattern, or gone
    sha256 = hashlib.sha256(content).hexdigest() if content is not None else None
    return Read("file", str(path), sha256=sha256, size=stat.st_size, modified=stat.st_mtime)


def _frame(name: str, value: Any, resolver: Resolver) -> Read:
    """A frame by its name; an earlier result of this lake also by what it read."""
    inner: tuple[Read, ...] = ()
    facts = [getattr(value, name, None) for name in ("kind", "sql", "snapshot")]  # of a frame these may be columns
    if [type(fact) for fact in facts] == [str, str, int] and facts[0] == "read":
        inner = resolver.reads(reads.query(value.sql) or (), value.snapshot)
    return Read("frame", name, reads=inner)
