"""The commits of a lake as lineage sees them: which tables each one wrote, and what it read for that."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from lakehouse.catalog.lineage import reads
from lakehouse.catalog.lineage.recording import UNKNOWN, Entry, Read, Resolver
from lakehouse.catalog.metadata import Metadata, Relation
from lakehouse.catalog.names import shown, split
from lakehouse.catalog.notes import ANEW, COMPACT

if TYPE_CHECKING:
    from lakehouse.catalog.catalog import Catalog

_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_WRITTEN = re.compile(r"(inserted_into_table|inlined_insert|deleted_from_table|inlined_delete):(\d+)")
_CREATED = re.compile(r'created_table:"((?:[^"]|"")*)"\."((?:[^"]|"")*)"')
_ROWS = "c.changes_made LIKE '%insert%' OR c.changes_made LIKE '%delete%' OR c.changes_made LIKE '%created_table%'"
_REJECTS = "__rejects"
_FRAME = re.compile(r"[A-Z]\w*$")  # a load notes a frame by the name of its class


class Note(msgspec.Struct, frozen=True):
    """What lineage needs of a commit's note; other keys are passed over."""

    operation: str = ""
    source: str | None = None
    sha256: str | None = None
    mode: str | None = None
    sql: str | None = None
    lineage: msgspec.Raw = msgspec.Raw()
    """What `recording` noted; decoded only when it is asked for."""
    notebook: str | None = None
    script: str | None = None
    table: str | None = None
    """What a load went into."""
    version: int | None = None
    """The snapshot that a rollback went back to."""
    anew: dict[str, int] = {}
    """Tables that were made anew, by name, and the ids that they had."""
    base: int | None = None
    """The snapshot that a published branch began from."""
    parts: tuple[msgspec.Raw, ...] = ()
    """The notes of its commits."""


_ENTRIES = msgspec.json.Decoder(list[Entry])


@dataclass(frozen=True, slots=True)
class Row:
    """A table or view under one name, from one snapshot to another."""

    id: int
    kind: str
    schema: str
    name: str
    begin: int
    end: int | None
    """The first snapshot without it under this name; None: it is still there."""
    sql: str | None

    @property
    def full_name(self) -> str:
        return shown(self.schema, self.name)


class Names:
    """All tables and views that the catalog knows of, by id and by name, up to a snapshot."""

    def __init__(self, metadata: Metadata, version: int) -> None:
        rows = metadata.rows(
            "issiiss",
            "SELECT o.id, o.kind, o.name, o.begin_snapshot, o.end_snapshot, o.sql, s.schema_name FROM ("
            " SELECT table_id id, schema_id, table_name name, 'table' kind, NULL sql, begin_snapshot, end_snapshot"
            " FROM ducklake_table UNION ALL"
            " SELECT view_id, schema_id, view_name, 'view', sql, begin_snapshot, end_snapshot FROM ducklake_view) o"
            " LEFT JOIN (SELECT schema_id, max(schema_name) schema_name FROM ducklake_schema GROUP BY schema_id) s"
            f" USING (schema_id) WHERE o.begin_snapshot <= {version} ORDER BY o.begin_snapshot",
        )
        self.moment = metadata.resolve
        self.macro = metadata.macro
        self.by_id: dict[int, list[Row]] = defaultdict(list)
        self.born: dict[int, list[Row]] = defaultdict(list)
        """What was created at each snapshot."""
        self._by_name: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for id, kind, name, begin, end, sql, schema in rows:
            row = Row(id, kind, schema or "main", name, begin, None if end is None or end > version else end, sql)
            if id not in self.by_id:
                self.born[begin].append(row)
            self.by_id[id].append(row)
            self._by_name[row.schema.lower(), name.lower()].append(row)

    def at(self, schema: str, name: str, snapshot: int) -> Row | None:
        """What had that name at a snapshot."""
        for row in self._by_name.get((schema.lower(), name.lower()), ()):
            if row.begin <= snapshot and (row.end is None or row.end > snapshot):
                return row
        return None

    def at_or_before(self, schema: str, name: str, snapshot: int) -> Row | None:
        """What had that name at a snapshot, or else had it last before."""
        found = self._by_name.get((schema.lower(), name.lower()), ())
        return self.at(schema, name, snapshot) or next((r for r in reversed(found) if r.begin <= snapshot), None)

    def last(self, id: int) -> int | None:
        """Of a table or view that was dropped: the last snapshot that had it; None while it is there."""
        ends = [row.end for row in self.by_id.get(id, ())]
        known = [end for end in ends if end is not None]
        return max(known) - 1 if known and len(known) == len(ends) else None

    def of(self, id: int, snapshot: int) -> Row | None:
        """The table or view of that id as it was at a snapshot, or last before."""
        return next((row for row in reversed(self.by_id.get(id, [])) if row.begin <= snapshot), None)


@dataclass(frozen=True, slots=True)
class Step:
    """One statement or load: rows of some tables, made from what was read."""

    snapshot: int
    targets: frozenset[int]
    operation: str
    reads: tuple[Read, ...]
    sql: str | None


class Commit:
    """One snapshot that wrote rows."""

    def __init__(self, id: int, message: str | None, changes: str, note: str | None, names: Names) -> None:
        self.id = id
        self.message = message
        self.note = _decoded(note)
        self._names = names
        bare = _QUOTED.sub('""', changes)
        inserted: set[int] = set()
        deleted: set[int] = set()
        for change, table in _WRITTEN.findall(bare):
            (inserted if "insert" in change else deleted).add(int(table))
        self.inserted = frozenset(inserted)
        self.deleted = frozenset(deleted - inserted)
        self.updated = frozenset(deleted & inserted)
        self.created = frozenset(row.id for row in names.born.get(id, ()) if row.kind == "table")
        self.written = frozenset(inserted | deleted) | self.created
        self._changes = changes

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """What was done, statement by statement where the note tells."""
        note = self.note
        if note.operation == COMPACT:
            return ()  # the same rows in other files
        if note.operation == "":
            return (self._step(self.written, UNKNOWN),)
        if note.operation in ANEW and note.version is not None:
            return tuple(self._rolled_back(table, note.version) for table in sorted(self.written))
        if note.operation == "retry":
            rows = [self._names.of(id, self.id) for id in sorted(self.written)]
            rejects = [row for row in rows if row and row.name.endswith(_REJECTS)]
            found = tuple(Read("table", row.full_name, row.id, self.id - 1) for row in rejects)
            return (self._step(self.written - {row.id for row in rejects}, "retry", found),)
        if note.operation == "publish":
            made = [step for part in note.parts for step in self._steps_of(_decoded(bytes(part)))]
        else:
            made = self._steps_of(note)
        for table in sorted(self.written - frozenset[int]().union(*(step.targets for step in made))):
            made.append(self._step({table}, self._operation(table), sql=note.sql))
        return tuple(step for step in made if step.targets)

    def _steps_of(self, note: Note) -> list[Step]:
        """The steps of one note: this commit's own, or that of a branch that it publishes."""
        own = note is self.note
        if note.operation == "ingest" and note.source:
            kind = "frame" if _FRAME.match(note.source) else "file"
            names = (note.table or "", f"{note.table}{_REJECTS}")
            targets = self.written if own else self._called(*names)
            return [self._step(targets, "ingest", (Read(kind, note.source, sha256=note.sha256),))]
        entries = self._entries(note)
        if entries is None:
            return [self._step(self.written, UNKNOWN, sql=note.sql)]
        found = [
            self._step(self._targets(entry), entry.operation, entry.reads, entry.sql or note.sql)
            for entry in entries
            if entry.operation != UNKNOWN
        ]
        if len(found) < len(entries):  # it may be all that the others did not write, or what they did as well
            rest = self.written - frozenset[int]().union(*(step.targets for step in found))
            found.append(self._step(rest or self.written, UNKNOWN, sql=note.sql))
        return found

    def _entries(self, note: Note) -> list[Entry] | None:
        """The statements of a note, or those that a parse of its SQL finds; None when nothing is known of them."""
        if bytes(note.lineage):
            try:
                found = _ENTRIES.decode(note.lineage)
            except msgspec.MsgspecError:
                return None
            adopt = self._adopted if note is not self.note else self._born
            return [msgspec.structs.replace(e, reads=tuple(adopt(read) for read in e.reads)) for e in found]
        if note.sql is None:
            return []
        parsed = reads.uses(note.sql)
        if parsed is None:
            return None
        resolver = Resolver(self._lookup, self._names.moment, self._names.macro)
        entries = []
        for use in parsed:
            if use.target is None or use.temporary:
                continue
            schema, name = resolver.place(use.target)
            sources = resolver.reads(use.sources, self.id - 1)
            entries.append(Entry(use.operation, shown(schema, name), None, sources))
        return entries

    def _operation(self, table: int) -> str:
        """The word for what was done to a table by a statement that the note has no word of."""
        if self.note.operation not in ("sql", "transaction"):
            return self.note.operation
        if table in self.created and table not in self.inserted:
            return "create"
        return "delete" if table in self.deleted else "update" if table in self.updated else "insert"

    def _rolled_back(self, table: int, version: int) -> Step:
        row = self._names.of(table, self.id)
        old = self.note.anew.get(row.full_name, table) if row else table
        name = row.full_name if row else f"table {table}"
        if row and self._names.of(old, version) is None and (then := self._names.at(row.schema, row.name, version)):
            old = then.id  # it was made anew between the two
        return self._step({table}, self.note.operation, (Read("table", name, old, version),))

    @cached_property
    def keys_read(self) -> frozenset[str]:
        """The keys of everything that was read, through views as well."""
        return frozenset(key(read) for step in self.steps for _, read in pairs(step.reads))

    def may_read(self, wanted: str, names: Iterable[str]) -> bool:
        """Whether it read what has that key and one of those lower-cased names; most are ruled out without a parse."""
        noted = bytes(self.note.lineage)
        kind, _, id = wanted.partition(":")
        if noted and kind in ("table", "view") and not self.created and b'"id":' + id.encode() not in noted:
            return False
        if not noted and self.note.sql is not None:
            text = self.note.sql.lower()
            if not any(name in text for name in names):
                return False
        return wanted in self.keys_read

    def created_here(self, full_name: str) -> Row | None:
        """The table of that name that this commit made."""
        return next((r for r in self._names.born.get(self.id, ()) if r.full_name.lower() == full_name.lower()), None)

    @property
    def created_names(self) -> list[str]:
        """What the tables were called that it made, also those that the catalog has forgotten since."""
        unquoted = [[part.replace('""', '"') for part in pair] for pair in _CREATED.findall(self._changes)]
        return [shown(schema, name) for schema, name in unquoted]

    def _born(self, read: Read) -> Read:
        """A read with the id of the table where it was made in this same commit."""
        row = self.created_here(read.name) if read.id is None and read.kind == "table" else None
        return read if row is None else msgspec.structs.replace(read, id=row.id, kind=row.kind, snapshot=self.id)

    def _adopted(self, read: Read) -> Read:
        """A read of a branch in terms of the lake: ids and snapshots that the branch made itself are not the lake's."""
        inner = tuple(self._adopted(one) for one in read.reads)
        if read.kind not in ("table", "view"):
            return msgspec.structs.replace(read, reads=inner)
        base = self.note.base or 0
        old = self._names.of(read.id, base) if read.id is not None else None
        row = old if old and old.full_name == read.name else self.created_here(read.name)
        if row is None:
            return msgspec.structs.replace(read, id=None, snapshot=None, reads=inner)
        own = row.id in self.written or (read.snapshot or 0) > base
        return msgspec.structs.replace(read, id=row.id, snapshot=self.id if own else read.snapshot, reads=inner)

    def _step(
        self, targets: Iterable[int], operation: str, read: tuple[Read, ...] = (), sql: str | None = None
    ) -> Step:
        return Step(self.id, frozenset(targets), operation, read, sql)

    def _targets(self, entry: Entry) -> frozenset[int]:
        if entry.operation == "view":
            return frozenset()
        if entry.id is not None and self.note.operation != "publish":
            return frozenset({entry.id})
        if found := self._called(entry.table):
            return found
        return self.written if len(self.written) == 1 else frozenset()

    def _called(self, *names: str) -> frozenset[int]:
        """The tables written that have one of those names, or had it once; one made here comes first."""
        wanted = {name.lower() for name in names}
        made = {row.id for name in names if (row := self.created_here(name))}
        had = {t for t in self.written for row in self._names.by_id.get(t, ()) if row.full_name.lower() in wanted}
        return frozenset(made or had)

    def _lookup(self, schema: str, name: str, snapshot: int) -> Row | None:
        return self._names.at(schema, name, snapshot) or self.created_here(shown(schema, name))


def commits(catalog: Catalog, names: Names, version: int) -> list[Commit]:
    """All commits up to a snapshot that wrote rows, oldest first; also those whose snapshots have expired."""
    live = {s.id: Commit(s.id, s.message, s.changes, s.note, names) for s in catalog.metadata.snapshots(_ROWS)}
    kept = catalog.state.read("SELECT snapshot, message, changes, note FROM note ORDER BY snapshot")
    for id, message, changes, note in kept:
        if id not in live:
            live[id] = Commit(id, message, changes or "", note, names)
    return [live[id] for id in sorted(live) if id <= version and live[id].written]


def dropped(catalog: Catalog, name: str, version: int) -> Relation | None:
    """The table or view that had a name last before a snapshot, where nothing has it now."""
    schema, short = split(name)
    row = Names(catalog.metadata, version).at_or_before(schema, short, version)
    return None if row is None else Relation(row.id, row.schema, row.name, row.kind, None, None, row.sql)


def _decoded(note: str | bytes | None) -> Note:
    try:
        return msgspec.json.decode(note or "{}", type=Note)
    except msgspec.MsgspecError:
        return Note()


def key(read: Read) -> str:
    """What tells a source from others: tables by id, content by its hash, an earlier result also by what it read."""
    if read.id is not None:
        return f"{read.kind}:{read.id}"
    inner = ",".join(key(one) for one in read.reads)
    return f"{read.kind}:{read.sha256 or read.name}" + (f"({inner})" if inner else "")


def pairs(found: Iterable[Read], owner: Read | None = None) -> Iterator[tuple[Read | None, Read]]:
    """Everything that was read, with the view or the result that it was read for."""
    for read in found:
        yield owner, read
        yield from pairs(read.reads, read)
