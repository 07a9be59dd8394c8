"""The one composition root: `open()` puts the parts together and gives a `Lakehouse`."""

from __future__ import annotations

import os
import socket
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse import config, state
from lakehouse.arguments import arguments_told
from lakehouse.branch import Branch
from lakehouse.catalog import foreign
from lakehouse.catalog.attach import Database
from lakehouse.catalog.catalog import Catalog
from lakehouse.catalog.history.diff import Diff, diff
from lakehouse.catalog.history.rollback import rollback_lake
from lakehouse.catalog.metadata import Metadata, Version
from lakehouse.catalog.running import Runner
from lakehouse.catalog.writer import Transaction, Writer
from lakehouse.errors import LakeUnusable
from lakehouse.folder import (
    FORMAT,
    OBJECTS_FOLDER,
    OBSERVER_FOLDER,
    PATHWAY_FOLDER,
    WORKFLOWS_FOLDER,
    create,
    folder_of,
    is_lake,
)
from lakehouse.health import restore as restoring
from lakehouse.health.backup import Backup, BackupReport
from lakehouse.health.doctor import Doctor
from lakehouse.health.findings import Diagnosis
from lakehouse.health.maintenance import Maintenance
from lakehouse.health.manifest import Manifest
from lakehouse.health.restore import RestoreReport
from lakehouse.ingest.load import Ingest
from lakehouse.observer.observer import Observer
from lakehouse.pathway.recorder import Recorder
from lakehouse.pathway.table import TraceTable
from lakehouse.query import history
from lakehouse.query.engine import Engine
from lakehouse.query.sandbox.confine import protection
from lakehouse.query.sandbox.pool import Pool
from lakehouse.query.sandbox.sandbox import Sandbox
from lakehouse.query.saved import Saved
from lakehouse.query.script import Parameters
from lakehouse.reports.dashboards import Dashboards
from lakehouse.reports.reports import Reports
from lakehouse.storage.caps import CappedStore, ReadOnlyStore
from lakehouse.storage.local import LocalStore
from lakehouse.workflow.workflows import Workflows

if TYPE_CHECKING:
    from lakehouse.catalog.running import Running
    from lakehouse.observer.openlineage import OpenLineage
    from lakehouse.query.result import Result
    from lakehouse.storage.base import ObjectStore

_PINNED_KEPT = 4


@arguments_told
class Lakehouse:
    """An opened lake; made by `lakehouse.open()`, closed by `close()` or at the end of a `with` block.

    Attributes:
        path: the lake folder.
        catalog: schemas, tables, views, snapshots.
        ingest: `lake.ingest(source, table)` loads files and frames.
        storage: objects (bytes by key), with a cap on the size of each by key prefix.
        maintenance: `compact()`, `expire()`, `clean()` and `run()`.
        saved: queries kept by name, to be built upon.
        pathway: how questions were answered before: traces, found again by words.
        reports: notebooks with parameters, executed on one snapshot, and what came of them.
        dashboards: notebooks for viewers: `list()`, `publish(name)`, `unpublish(name)`.
        observer: what ran and what came of it: events of all processes.
        workflows: nodes that depend on each other, run with a true account of each.
        settings: the effective settings.
        snapshot: the snapshot id the lake is pinned to, or None.
    """

    def __init__(
        self,
        path: Path,
        settings: config.Settings,
        *,
        read_only: bool,
        version: int | None,
        runner: Runner | None = None,
        beside: Database | None = None,
    ) -> None:
        self.path = path
        self.settings = settings
        self.snapshot = version
        self.read_only = read_only or version is not None
        self._beside = beside  # its catalog is this one's, as long as this one lives
        catalog = None if beside is None else beside.catalog
        self._database = Database(path, settings, read_only=read_only, version=version, catalog=catalog)
        try:
            self._metadata = metadata = Metadata(self._database)
        except BaseException:
            self._database.close()
            raise
        self._writer = Writer(self._database, metadata, settings.catalog)
        self._state = state.State(path / state.FILE_NAME, state.SCHEMA)
        self.catalog = Catalog(self._database, metadata, self._writer, self._state)
        self._runner = runner or Runner(progress=settings.query.progress)
        self._history = history.History(path, settings.query.history_rows, writable=not self.read_only)
        self.saved = Saved(self._state, lambda: self._engine.parser, read_only=self.read_only)
        self._engine = Engine(
            self._database, self.catalog, settings, self._runner, lambda version: self._at(version)._engine
        )
        objects = LocalStore(path / OBJECTS_FOLDER, lock_timeout=settings.catalog.lock_timeout)
        self._objects = objects
        self.observer = Observer(
            path / OBSERVER_FOLDER, settings.observer, read_only=self.read_only, sink=self._openlineage()
        )
        self.maintenance = Maintenance(self._database, self.catalog, settings, objects, self.observer.tidy)
        capped = CappedStore(objects, settings.storage.put_caps, settings.storage.max_put_bytes)
        self.storage: ObjectStore = ReadOnlyStore(capped) if self.read_only else capped
        self.ingest = Ingest(self._database, self.catalog, settings, self._runner, self.storage)
        self.reports = Reports(
            path, settings, self.catalog, self.storage, self._database.temp, read_only=self.read_only
        )
        self.dashboards = Dashboards(path, settings, read_only=self.read_only)
        self.pathway = Recorder(path / PATHWAY_FOLDER, self)
        self.workflows = Workflows(self, path / WORKFLOWS_FOLDER, f"{__name__}:{open.__name__}")
        self._traces = TraceTable(self.pathway, self._database, metadata)
        self._strangers = Pool(
            path, settings, read_only=self.read_only, temp=self._database.temp, catalog=self._database.catalog
        )
        self._kept: OrderedDict[int, Lakehouse] = OrderedDict()
        self._children: weakref.WeakSet[Lakehouse] = weakref.WeakSet()
        self._lock = threading.Lock()

    def sql(
        self,
        query: str,
        params: Parameters = None,
        *,
        at: Version | None = None,
        limit: int | None = None,
        timeout: float | None = None,
        tables: Mapping[str, Any] | None = None,
    ) -> Result:
        """Run SQL and return the result of the last statement.

        Args:
            query: one or several statements; `BEGIN … COMMIT` makes several one commit.
            params: values for `$name` (a mapping) or `?` (a sequence); always values, never SQL.
            at: read the whole lake as of this snapshot id, tagged snapshot or time.
            limit: give at most this many rows.
            timeout: seconds until the query is stopped; None: `query.timeout`.
            tables: further tables by name, for this call: pandas, Arrow or Polars frames, or earlier
                results. One with the name of a table of the lake hides it.

        Raises:
            QueryError: the query is wrong, too slow, too large, or was cancelled.
            NotFound: a table, schema or snapshot is not there.
            LakeReadOnly: a write on a read-only or pinned lake.
            LockTimeout: another writer held the lake too long.
        """
        work = partial(self._asked, query, params, at=at, limit=limit, timeout=timeout, tables=tables)
        noted = partial(self._history.noted, query, params, work)
        return self.pathway.noted(query, params, {"at": at, "limit": limit, "tables": tables}, noted)

    def sandbox(self, principal: str = "local") -> Sandbox:
        """Where SQL runs that nobody here has read: in a process that can read this lake, or change it, and nothing else.

        Args:
            principal: whose SQL it is; a worker process only ever serves one.
        """
        self._database.check_open()
        return Sandbox(
            self._strangers,
            principal,
            self.settings,
            self.catalog,
            version=self.snapshot,
            history=self._history,
            traces=self._traces.lent,
        )

    def queries(
        self, limit: int | None = 100, *, text: str | None = None, status: history.Status | None = None
    ) -> list[history.Query]:
        """What `sql` was asked on this lake by any process, newest first.

        Args:
            limit: give at most so many; None: all that are kept (`query.history_rows`).
            text: only those with this in their SQL, in any case.
            status: only those that ended so: `ok`, `failed`, `cancelled` or `timeout`.
        """
        return self._history.queries(limit, text, status)

    @contextmanager
    def transaction(self, message: str = "transaction") -> Iterator[Transaction]:
        """Everything this thread does inside is committed as one snapshot, or nothing is.

        Inside may stand `lake.sql` (reading sees what was written before), and of `lake.catalog` and its tables
        what creates a schema, drops, comments, or changes columns (once for each table). Another transaction, a
        script with `BEGIN`, `create_view` and `lake.ingest` are commits of their own and are refused there.

        Raises:
            LakeReadOnly: the lake is read-only or pinned.
            LockTimeout: another writer held the lake too long.
        """
        with self._writer.transaction("transaction", message) as transaction:
            yield transaction

    def rollback(self, version: Version) -> int:
        """Make all tables, views and schemas what they were at a snapshot, in one new commit, whose snapshot is returned.

        What was made since is dropped, what was dropped is made again, what changed gets its rows, columns, name and
        comments back; the rest is not touched. It can be undone: roll back to the snapshot before it.
        """
        return rollback_lake(self.catalog, self._database, version)

    def diff(self, a: Version, b: Version | None = None) -> Diff:
        """What differs from snapshot `a` to `b` (None: the newest): schemas, tables, views, columns, numbers of rows."""
        return diff(self.catalog, self._database, a, b)

    def branch(self, name: str) -> Branch:
        """A place to write and check first: `with lake.branch("staging") as b: …; b.publish()`.

        The branch sees the lake as it is now and its own writes; nobody else sees those. `publish()` brings them into
        the lake in one commit, or not at all; a block that ends without it leaves nothing. Names of snapshots, tags,
        saved queries and objects belong to the lake and are not published.

        Raises:
            AlreadyExists: a branch of that name is open, in this process or another.
        """
        opened = partial(Lakehouse, settings=self.settings, read_only=False, version=None)
        return Branch(self, self._database, name, opened)

    def backup(self, dest: str | os.PathLike[str]) -> BackupReport:
        """Copy the lake as it is now to a folder, which `restore` makes a lake of; others may write meanwhile.

        A backup that broke off goes on where it stopped, and a later one to the same folder copies what is new.

        Raises:
            BackupUnusable: the folder holds something else.
            DiskFull: there is no space; a backup that was there before is as it was.
        """
        return Backup(self._database, self.catalog, self.settings, self._objects, Path(dest).absolute()).run()

    def doctor(self, *, checksums: bool = False, repair: bool = False) -> Diagnosis:
        """Look whether everything holds that the lake promises; a lake that cannot be opened: `lake.diagnose()`.

        Args:
            checksums: also read every data file and object and compare its hash.
            repair: remove or write again what nobody can miss; it is said what was done.
        """
        return diagnose(self.path, checksums=checksums, repair=repair)

    def at(self, version: Version) -> Lakehouse:
        """The whole lake as it was at a snapshot id, tagged snapshot or time, to read; this lake closes it.

        Raises:
            SnapshotNotFound: there is no such snapshot.
        """
        self._database.check_open()
        return self._at(self.catalog.resolve(version))

    def running(self) -> list[Running]:
        """The queries under way in this process, oldest first."""
        return self._runner.running()

    def cancel(self, query_id: str) -> bool:
        """Stop a query from another thread; False when none of that id is under way."""
        for (_, name), answer in list(self._strangers.running.items()):
            if name == query_id:
                answer.cancel()
                return True
        return self._runner.cancel(query_id)

    def close(self) -> None:
        """Stop what runs and let go of every file."""
        self.workflows.close()
        self._runner.close()
        self._strangers.close()
        for child in list(self._children):
            child.close()
        self._history.close()
        self._traces.close()
        self.pathway.close()
        self.observer.close()
        self._engine.close()
        self._metadata.close()
        self._database.close()

    def __enter__(self) -> Lakehouse:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        at = "" if self.snapshot is None else f" at snapshot {self.snapshot}"
        return f"<Lakehouse {self.path}{at}>"

    def _openlineage(self) -> OpenLineage | None:
        """Where run events go as well, if the settings name a place."""
        chosen = self.settings.observer
        if chosen.openlineage is None:
            return None
        from lakehouse.observer.describing import described
        from lakehouse.observer.openlineage import OpenLineage, endpoint

        make = partial(endpoint, chosen.openlineage, chosen.openlineage_key)
        make()  # a setting that cannot be used is told now
        namespace = chosen.openlineage_namespace or f"lakehouse://{socket.gethostname()}{self.path}"
        return OpenLineage(make, namespace, partial(described, self.catalog))

    def _asked(self, query: str, params: Parameters, *, at: Version | None, **options: Any) -> Result:
        """What the engine of the lake, or of the lake at a version, answers."""
        self._database.check_open()
        there = self if at is None else self._at(self.catalog.resolve(at))
        there._traces.offer(query)
        return there._engine.sql(query, params, **options)

    def _at(self, version: int) -> Lakehouse:
        """The same lake pinned to a snapshot; the last few are kept open."""
        if version == self.snapshot:
            return self
        with self._lock:
            if version not in self._kept:
                child = Lakehouse(
                    self.path,
                    self.settings,
                    read_only=True,
                    version=version,
                    runner=self._runner,
                    beside=self._database,
                )
                self._kept[version] = child
                self._children.add(child)
                if len(self._kept) > _PINNED_KEPT:
                    self._kept.popitem(last=False)  # it goes with the last result that reads it, or with this lake
            self._kept.move_to_end(version)
            return self._kept[version]


def open(
    path: str | os.PathLike[str] | None = None,
    *,
    at: Version | None = None,
    read_only: bool = False,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Lakehouse:
    """Open a lake, creating it on first use.

    Args:
        path: the lake folder; None: `$LAKEHOUSE_PATH`, else `./lake`.
        at: pin the whole lake to this snapshot id, tagged snapshot or time; it is then read-only. None: the
            snapshot in `$LAKEHOUSE_SNAPSHOT` for the lake of `$LAKEHOUSE_PATH`, else the newest at any time.
        read_only: open without the right to write; the lake must exist. So it is too for the lake of
            `$LAKEHOUSE_PATH` where `$LAKEHOUSE_READ_ONLY` is set, and for a folder that this user may not write.
            What somebody there commits is then seen only if the lake was open there when it was opened here.
        settings: values by section and key that win over `lakehouse.toml` and the environment,
            such as `{"query": {"max_rows": 1000}}`.

    Raises:
        LakeUnusable: the path is a file, cannot be made, or is a folder of other things.
        LakeTooNew: a newer version wrote it.
        ConfigError: a setting is unknown or has the wrong type.
        SnapshotNotFound: there is no snapshot `at`.
    """
    folder = folder_of(path)
    effective = config.load(folder, settings)
    if at is None and folder == folder_of(None):
        at = config.snapshot()
        read_only = read_only or bool(os.environ.get(config.READ_ONLY_VARIABLE))
    if not is_lake(folder):
        if read_only or at is not None:
            raise LakeUnusable(f"there is no lake at {folder}", hint="create it with lakehouse init, or by opening it")
        create(folder, effective)
    read_only = read_only or not foreign.writable(folder)
    if at is None:
        return Lakehouse(folder, effective, read_only=read_only, version=None)
    with Lakehouse(folder, effective, read_only=True, version=None) as newest:
        version = newest.catalog.resolve(at)
    return Lakehouse(folder, effective, read_only=True, version=version)


def restore(src: str | os.PathLike[str], path: str | os.PathLike[str] | None = None) -> RestoreReport:
    """Make the lake of a backup again in a new or empty folder; it is there whole or not at all.

    Args:
        src: the folder that `Lakehouse.backup` wrote.
        path: the lake folder (the same default as `open`).

    Raises:
        BackupUnusable: the backup is unfinished or damaged.
        LakeUnusable: there is something at the path already.
        DiskFull: there is no space.
    """
    return restoring.restore(Path(src).absolute(), folder_of(path), OBJECTS_FOLDER)


def verify_backup(place: str | os.PathLike[str]) -> Manifest:
    """Read every content of a backup and compare its hash; BackupUnusable says what is missing or damaged."""
    return restoring.verify(Path(place).absolute())


def diagnose(path: str | os.PathLike[str] | None = None, *, checksums: bool = False, repair: bool = False) -> Diagnosis:
    """Look at a lake in whatever state it is; see `Lakehouse.doctor`."""
    doctor = Doctor(folder_of(path), objects=OBJECTS_FOLDER, format=FORMAT, protection=_protection)
    return doctor.examine(checksums=checksums, repair=repair)


def _protection(setting: str) -> tuple[str, str]:
    found = protection(setting)
    return found.level, found.reason
