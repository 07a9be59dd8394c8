"""`lake.maintenance`: fewer and larger files, no snapshots older than wanted, no files that nobody reads.

Everything that changes the catalog or deletes a file holds the writer lock. Readers hold none, so a file that no
snapshot reads any more stays for a while (`maintenance.keep_files`): a query that began before may still need it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from lakehouse.arguments import arguments_told
from lakehouse.catalog import faults, notes
from lakehouse.catalog.attach import ALIAS, Database
from lakehouse.catalog.catalog import Catalog
from lakehouse.catalog.metadata import Relation, visible
from lakehouse.catalog.names import literal, shown
from lakehouse.config import Settings, parse_age, parse_size
from lakehouse.errors import LakeReadOnly, LakeUnusable, QueryError, TableNotFound
from lakehouse.health import checksums, inventory, leftovers
from lakehouse.health.guard import guarded
from lakehouse.health.inventory import Footprint, footprint
from lakehouse.storage.local import LocalStore
from lakehouse.wording import counted

_FEW = 100  # rows and deletes that may stay in the catalog: a file of so few costs more than it saves
_DISORDER = 8  # so many small files among large ones are worth another order of the rows
_BATCH = 10_000  # snapshots expired under one hold of the lock: each costs a look at every table
_UNION_LIMIT = 400  # SQLite joins at most 500 parts in one compound SELECT

Age = str | timedelta | datetime
"""How old something must be: `30d`, `12 hours`, a timedelta; or the moment before which it was made."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a step of maintenance did, or would do."""

    operation: str
    """`compact`, `expire`, `clean`, or `events` for the journal of the observer."""
    dry_run: bool
    before: Footprint
    """compact: the files that the newest snapshot reads; expire: those that any snapshot reads; clean: all on disk."""
    after: Footprint
    done: tuple[str, ...] = ()
    """One line for each thing that was done."""
    snapshots: tuple[int, ...] = ()
    """expire: the snapshots that went; compact: those that were made."""
    elapsed: float = 0.0
    """Seconds."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        head = f"{self.operation}{' (dry run: nothing was changed)' if self.dry_run else ''}"
        lines = [f"{head}: {self.before} before; {self.after} after"]
        return "\n  ".join([*lines, *(self.done or ("nothing to do",))])

    __str__ = __repr__


class Dropped(Protocol):
    """What became of a journal that was written anew without its old records."""

    @property
    def dropped(self) -> int: ...
    @property
    def bytes_before(self) -> int: ...
    @property
    def bytes_after(self) -> int: ...


@arguments_told
class Maintenance:
    """The keeping of one lake; `lake.maintenance` is one.

    Args:
        database: the lake's database.
        catalog: its catalog.
        settings: the effective settings.
        objects: the store of its objects.
        events: leaves old events out of the journal of the observer; None: there were none.
    """

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        settings: Settings,
        objects: LocalStore,
        events: Callable[[], Dropped | None],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._settings = settings
        self._objects = objects
        self._events = events

    def compact(self, table: str | None = None) -> Report:
        """Move rows that collected in the catalog into files, and merge small files; no row changes.

        Every kept snapshot reads as before. One commit for each table and step, so that other writers wait for
        one table at most. Rows stay in their order unless many small files lie among large ones. Deleted rows are
        not taken out of their files: DuckLake's rewriting would make older snapshots read wrongly.

        Args:
            table: only this one, and all rows of it that are in the catalog; None: every table where it is worth it.

        Raises:
            TableNotFound: there is no such table.
            LakeReadOnly: the lake is read-only or pinned.
            LockTimeout: another writer held the lake too long.
            DiskFull: there is no space; what was merged before stays merged.
        """
        started = time.monotonic()
        self._check("compact")
        relations = self._relations() if table is None else [self._table(table)]
        before, done, made = self._live(), [], []
        waiting = self._rows_in_catalog(relations)
        for relation in relations:
            try:
                for line, snapshot in self._compact(relation, waiting.get(relation.id, 0), least=1 if table else _FEW):
                    done.append(line)
                    made.append(snapshot)
            except TableNotFound:  # dropped or renamed meanwhile
                if table is not None:
                    raise
        elapsed = time.monotonic() - started
        return Report("compact", False, before, self._live(), tuple(done), tuple(made), elapsed)

    def expire(self, older_than: Age | None = None, *, dry_run: bool = True) -> Report:
        """Give up reading the lake as of snapshots that are older than this.

        Never the newest one, never a tagged one, and not the last one before the limit: the lake can be read as of
        any moment from the limit on. What the commits did (their notes) is kept. No file goes: `clean()` does that.

        Args:
            older_than: an age such as `30d`, or a moment; None: `maintenance.keep_snapshots`.
            dry_run: only say what would go.
        """
        started = time.monotonic()
        limit = _moment(older_than, self._settings.maintenance.keep_snapshots)
        if not dry_run:
            self._check("expire")
        before = self._needed(set())
        going = self._expirable(limit)
        gone = going if dry_run else []
        for start in range(0, 0 if dry_run else len(going), _BATCH):
            gone = gone + self._expire(set(going[start : start + _BATCH]))
        after = self._needed(set(gone)) if dry_run else self._needed(set())
        done = (f"{counted(len(gone), 'snapshot')} from {min(gone)} to {max(gone)}",) if gone else ()
        return Report("expire", dry_run, before, after, done, tuple(sorted(gone)), time.monotonic() - started)

    def clean(self, older_than: Age | None = None, *, dry_run: bool = True) -> Report:
        """Delete files that no snapshot reads, and what processes that died have left.

        Args:
            older_than: files stay until nobody has needed them for so long; None: `maintenance.keep_files`. With `0s`
                everything goes: only when no other process reads the lake. Temporary files stay an hour at least.
            dry_run: only say what would go.
        """
        started = time.monotonic()
        limit = _moment(older_than, self._settings.maintenance.keep_files)
        if not dry_run:
            self._check("clean")
        folders = (self._database.data, self._database.temp)
        before = footprint(stat.st_size for folder in folders for _, stat in inventory.on_disk(folder))
        gone: list[tuple[str, Footprint]] = []
        wait = self._settings.catalog.lock_timeout
        if dry_run:
            gone += self._files(limit, dry_run=True)
        else:
            with guarded(self._database.data, wait, alone=True), self._catalog.writer.plain():
                gone += self._files(limit, dry_run=False)
        gone.append(("temporary files", leftovers.remove(self._database.temp, limit, dry_run=dry_run)))
        objects = self._objects.clean(dry_run=dry_run)
        before = Footprint(before.files + objects.files, before.bytes + objects.bytes)
        gone.append(("unfinished puts of objects", Footprint(objects.files, objects.bytes)))
        after = Footprint(before.files - sum(g.files for _, g in gone), before.bytes - sum(g.bytes for _, g in gone))
        done = tuple(f"{what}: {size}" for what, size in gone if size.files)
        if dead := leftovers.branches(self._database.folder, dry_run=dry_run):
            done = (*done, f"branches of processes that died: {', '.join(dead)}")
        return Report("clean", dry_run, before, after, done, (), time.monotonic() - started)

    def run(self) -> list[Report]:
        """What should be done now and then: compact, expire after `keep_snapshots`, clean after `keep_files`.

        Events that are older than `observer.keep` go from their journal too; where there are any, a report says so.
        """
        reports = [self.compact(), self.expire(dry_run=False), self.clean(dry_run=False)]
        started = time.monotonic()
        if (gone := self._events()) is not None:
            before, after = Footprint(1, gone.bytes_before), Footprint(1, gone.bytes_after)
            done = (
                f"{counted(gone.dropped, 'event')} older than {self._settings.observer.keep} left out of the journal",
            )
            reports.append(Report("events", False, before, after, done, (), time.monotonic() - started))
        return reports

    def _check(self, what: str) -> None:
        if self._database.read_only:
            raise LakeReadOnly(f"{what} needs a lake that can be written")
        if self._catalog.writer.active is not None:
            raise QueryError(f"{what} cannot be part of a transaction", hint="run it before or after")

    def _relations(self) -> list[Relation]:
        metadata = self._catalog.metadata
        return [r for r in metadata.relations(metadata.current()).values() if r.kind == "table"]

    def _live(self) -> Footprint:
        current = self._catalog.metadata.current()
        return inventory.take(self._catalog.metadata, self._database.data).needed([current])

    def _needed(self, without: set[int]) -> Footprint:
        kept = [s for s in inventory.snapshots(self._catalog.metadata) if s not in without]
        return inventory.take(self._catalog.metadata, self._database.data).needed(kept)

    def _rows_in_catalog(self, relations: list[Relation]) -> dict[int, int]:
        """Rows and deletes of each table, of any snapshot, that the catalog itself holds."""
        metadata = self._catalog.metadata
        metadata.current()
        wanted = {relation.id for relation in relations}
        sources = metadata.rows("is", "SELECT table_id, table_name FROM ducklake_inlined_data_tables")
        sources += [(t, f"ducklake_inlined_delete_{t}") for t in metadata.tables_with_deletes()]
        there = {row[0] for row in metadata.rows("s", "SELECT name FROM sqlite_master WHERE type = 'table'")}
        asked = [(table, name) for table, name in sources if table in wanted and name in there]
        parts = [f'SELECT {table} t, count(*) n FROM "{name}"' for table, name in asked]
        found: dict[int, int] = {}
        for start in range(0, len(parts), _UNION_LIMIT):
            for table, rows in metadata.rows("ii", " UNION ALL ".join(parts[start : start + _UNION_LIMIT])):
                found[table] = found.get(table, 0) + rows
        return found

    def _table(self, name: str) -> Relation:
        relation = self._catalog.find(name)
        if relation.kind == "view":
            raise QueryError(f"{shown(relation.schema, relation.name)} is a view", hint="it has no files of its own")
        return relation

    def _compact(self, relation: Relation, rows: int, *, least: int) -> Iterator[tuple[str, int]]:
        """What was done to a table, and the snapshot that it made."""
        if rows >= least:
            yield self._flush(relation, rows)
        yield from self._merge(relation)

    def _flush(self, relation: Relation, rows: int) -> tuple[str, int]:
        name = shown(relation.schema, relation.name)
        call = f"CALL ducklake_flush_inlined_data({literal(ALIAS)}, schema_name => {literal(relation.schema)}"
        self._commit(name, f"{call}, table_name => {literal(relation.name)})", rows=rows)
        return f"{name}: {rows:,} rows and deletes moved from the catalog into files", self._catalog.metadata.current()

    def _merge(self, relation: Relation) -> list[tuple[str, int]]:
        name = shown(relation.schema, relation.name)
        limit = parse_size(self._settings.maintenance.small_file)
        sizes = self._sizes(relation)
        small = [size < limit for size in sizes]
        ordered = small == sorted(small)  # the small files are the last ones: the merged one takes their place
        if sum(small) < (2 if ordered else _DISORDER):
            return []
        call = f"CALL ducklake_merge_adjacent_files({literal(ALIAS)}, {literal(relation.name)}"
        before = self._catalog.metadata.current()
        after = self._commit(name, f"{call}, schema => {literal(relation.schema)}, max_file_size => {limit})")
        merged = len(sizes) - len(self._sizes(relation))
        if after == before or merged <= 0:
            return []
        return [(f"{name}: {merged + 1:,} files merged{'' if ordered else ', in another order'}", after)]

    def _sizes(self, relation: Relation) -> list[int]:
        """Bytes of the table's files in the order in which they are read, those with deleted rows left out."""
        metadata = self._catalog.metadata
        rows = metadata.rows(
            "i",
            f"SELECT file_size_bytes FROM ducklake_data_file f WHERE table_id = {relation.id}"
            f" AND {visible(metadata.current(), 'f')} AND NOT EXISTS (SELECT 1 FROM ducklake_delete_file d"
            " WHERE d.data_file_id = f.data_file_id) ORDER BY data_file_id",
        )
        return [row[0] for row in rows]

    def _commit(self, name: str, sql: str, **note: Any) -> int:
        with self._catalog.writer.transaction(notes.COMPACT, f"compact {name}", table=name, **note) as transaction:
            transaction.execute(sql).fetchall()
        return transaction.committed

    def _expirable(self, limit: datetime) -> list[int]:
        """The snapshots that may go, oldest first."""
        old = [s.id for s in self._catalog.snapshots() if s.time < limit]
        kept = self._tagged() | set(old[:1]) | {self._catalog.metadata.current()}
        return sorted(id for id in old if id not in kept)

    def _tagged(self) -> set[int]:
        return {row[0] for row in self._catalog.state.read("SELECT snapshot FROM snapshot_tag")}

    def _expire(self, wanted: set[int]) -> list[int]:
        with self._catalog.writer.plain() as connection:
            wanted = wanted - self._tagged()  # somebody may have tagged one meanwhile
            between = f"s.snapshot_id BETWEEN {min(wanted, default=0)} AND {max(wanted, default=0)}"
            going = [s for s in self._catalog.metadata.snapshots(between) if s.id in wanted]
            if not going:
                return []
            notes.keep(self._catalog.state, going)
            gone = sorted(s.id for s in going)
            versions = ", ".join(map(str, gone))
            connection.execute(f"CALL ducklake_expire_snapshots({literal(ALIAS)}, versions => [{versions}])").fetchall()
        return gone

    def _files(self, limit: datetime, *, dry_run: bool) -> list[tuple[str, Footprint]]:
        """Delete the files that were scheduled before the limit, and those that no catalog entry names."""
        there = inventory.take(self._catalog.metadata, self._database.data)
        before = literal(limit.isoformat())
        call = f"FROM ducklake_cleanup_old_files({literal(ALIAS)}, older_than => TIMESTAMPTZ {before}, dry_run => {{}})"
        with faults.translated():
            rows = self._database.connection().execute(call.format("true")).fetchall()
            unneeded = [Path(row[0]) for row in rows]
            if needed := {file.path for file in there.known} & set(unneeded):
                raise LakeUnusable(
                    f"the catalog wants files deleted that it needs, such as {min(needed)}; nothing was deleted",
                    hint="lakehouse doctor looks at it",
                )
            sizes = footprint(size for file in unneeded if (size := _size(file)) is not None)
            if unneeded and not dry_run:
                self._database.connection().execute(call.format("false")).fetchall()
        known = there.paths()
        orphans = []
        for file, stat in inventory.on_disk(self._database.data):
            if file not in known and stat.st_mtime < limit.timestamp():
                orphans.append(stat.st_size)
                if not dry_run:
                    file.unlink(missing_ok=True)
        if not dry_run:
            self._forget_hashes(there)
        return [("files that no snapshot reads", sizes), ("files of writes that did not end", footprint(orphans))]

    def _forget_hashes(self, there: inventory.Inventory) -> None:
        data = self._database.data
        names = {file.path.relative_to(data).as_posix() for file in there.known if file.path.is_relative_to(data)}
        if stale := [name for name in checksums.known(self._catalog.state) if name not in names]:
            checksums.forget(self._catalog.state, stale)


def _size(file: Path) -> int | None:
    try:
        return os.stat(file).st_size
    except FileNotFoundError:
        return None  # an earlier cleaning died before it could say that it was gone


def _moment(age: Age | None, default: str) -> datetime:
    if isinstance(age, datetime):
        return age.astimezone(UTC)
    length = age if isinstance(age, timedelta) else parse_age(default if age is None else age)
    return datetime.now(UTC) - length
