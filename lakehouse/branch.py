"""Write, audit, publish: `with lake.branch("staging") as b:` is a place where tables are written and checked first.

A branch is a lake of its own in `branches/<name>` of the lake's folder: a copy of the catalog, taken under the writer
lock, and hard links to the data files, which nobody ever changes. It sees the lake as it was then and its own writes;
the lake sees nothing of it. `publish()` brings what changed into the lake in one transaction. The folder goes when the
block ends. One that a killed process left behind is known by its lock, which nobody holds any more.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.catalog import copying
from lakehouse.catalog.attach import CATALOG_FILE, DATA_FOLDER, MARKER_FILE, Database
from lakehouse.catalog.history.definition import Definitions, changed_ids
from lakehouse.catalog.history.past import attached
from lakehouse.catalog.history.revert import Revert, Source, touched
from lakehouse.catalog.history.rollback import between, carry_tags, note
from lakehouse.catalog.metadata import Relation, Snapshot
from lakehouse.catalog.names import quote, shown
from lakehouse.errors import AlreadyExists, Conflict, DiskFull, LakehouseError, LakeReadOnly, QueryError
from lakehouse.ingest import types
from lakehouse.state import FILE_NAME as STATE_FILE

if TYPE_CHECKING:
    from types import TracebackType

    from lakehouse.catalog.catalog import Catalog
    from lakehouse.catalog.table import Table
    from lakehouse.ingest.load import Ingest
    from lakehouse.lake import Lakehouse
    from lakehouse.query.result import Result

BRANCHES_FOLDER = "branches"
_LOCK = "branch.lock"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


class Branch:
    """A branch of a lake; made by `lake.branch(name)`, used in a `with` block.

    Args:
        lake: the lake it comes from and is published to.
        database: that lake's database.
        name: what it is called; one branch of a name at a time.
        opened: opens a lake folder with the settings of the lake.

    Attributes:
        base: the snapshot of the lake that it began from.
    """

    def __init__(self, lake: Lakehouse, database: Database, name: str, opened: Callable[[Path], Lakehouse]) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise LakehouseError(
                f"{name!r} cannot be the name of a branch", hint="letters, digits, - and _, 63 at most, such as staging"
            )
        if lake.read_only:
            raise LakeReadOnly(f"the lake {lake.path} is open for reading only")
        self._origin = lake
        self._database = database
        self._opened = opened
        self.name = name
        self.path = lake.path / BRANCHES_FOLDER / name
        self.base = 0
        self._lake: Lakehouse | None = None
        self._lock: int | None = None

    @property
    def lake(self) -> Lakehouse:
        """The branch as a lake, with everything that a lake can do.

        Raises:
            LakehouseError: the block has ended, or has not begun.
        """
        if self._lake is None:
            raise LakehouseError(
                f"the branch {self.name} is not open", hint=f"use it inside: with lake.branch('{self.name}') as b: …"
            )
        return self._lake

    @property
    def catalog(self) -> Catalog:
        """Schemas, tables and views of the branch."""
        return self.lake.catalog

    @property
    def ingest(self) -> Ingest:
        """Loads files and frames into tables of the branch."""
        return self.lake.ingest

    def sql(self, query: str, params: Any = None, **options: Any) -> Result:
        """Run SQL in the branch; see `Lakehouse.sql`."""
        return self.lake.sql(query, params, **options)

    def table(self, name: str) -> Table:
        """A table or view of the branch."""
        return self.lake.catalog.table(name)

    def publish(self, message: str | None = None) -> int:
        """Bring everything that was changed in the branch into the lake, in one commit, whose snapshot is returned.

        The branch then goes on from there: what is written to it after that can be published again.

        Raises:
            Conflict: what the branch changed was changed in the lake as well since it began; names the tables, and
                nothing is published.
            QueryError: a transaction is open.
        """
        branch, origin = self.lake, self._origin
        if branch.catalog.writer.active is not None:
            raise QueryError("a transaction is open in the branch", hint="publish after it has ended")
        head = branch.catalog.metadata.current()
        made = between(branch.catalog, self.base + 1, head)
        if not made:
            return self.base
        before, after = Definitions(branch.catalog.metadata, self.base), Definitions(branch.catalog.metadata, head)
        was, there = _changed(before, after, made)
        made_anew = _made_anew(branch.catalog, before, there)
        there = {made_anew.get(id, id): relation for id, relation in there.items()}
        was |= {id: before.by_id[id] for id in made_anew.values()}
        gone = set(before.schemas) - set(after.schemas)
        with attached(self._database, self.path, head) as alias:
            text = message or f"publish the branch {self.name}"
            with origin.catalog.writer.transaction("publish", text, branch=self.name, base=self.base) as transaction:
                now = Definitions(origin.catalog.metadata, origin.catalog.metadata.current())
                self._check(before, was, there, gone, now)
                source = Source(
                    alias,
                    after,
                    lambda _, then: (
                        f"SELECT rowid FROM {quote(alias, then.schema, then.name)} WHERE snapshot_id <= {self.base}"
                    ),
                )
                revert = Revert(transaction, now, source)
                here = {id: now.by_id[id] for id in was}
                renewed = set(made_anew.values())
                revert.everything(here, there, lambda r: r.id in renewed or touched(made, r), gone & set(now.schemas))
                # What the branch made itself has an id that means nothing in the lake, or another table.
                kept = revert.done.anew = {name: id for name, id in revert.done.anew.items() if id in was}
                note(transaction, revert.done)
                transaction.note["anew"] = _without_deleted(kept, made, made_anew)
                transaction.note["parts"] = [json.loads(s.note) for s in reversed(made) if s.note]
        carry_tags(origin.catalog, revert.done)
        for name, id in kept.items():
            types.carry(origin.catalog, id, origin.catalog.find(name).id)
        self._restart()
        return transaction.committed

    def _check(
        self,
        before: Definitions,
        was: dict[int, Relation],
        there: dict[int, Relation],
        gone: set[str],
        now: Definitions,
    ) -> None:
        """Refuse what the lake has changed as well since the branch began."""
        origin = self._origin.catalog
        since = between(origin, self.base + 1, now.snapshot)
        complete = len(since) == now.snapshot - self.base
        names = {(r.schema.lower(), r.name.lower()): r for r in now.by_id.values()}
        clashes = set()
        for id, relation in was.items():
            same = id in now.by_id and now.of(now.by_id[id]) == before.of(relation)
            if not same or not complete or touched(since, relation):
                clashes.add(shown(relation.schema, relation.name))
        for relation in there.values():
            found = names.get((relation.schema.lower(), relation.name.lower()))
            if found is not None and found.id not in was:
                clashes.add(shown(relation.schema, relation.name))
            if relation.schema in before.schemas and relation.schema not in now.schemas:
                clashes.add(shown(relation.schema, relation.name))
        clashes |= {shown(r.schema, r.name) for id, r in now.by_id.items() if r.schema in gone and id not in was}
        if clashes:
            raise Conflict(
                f"the branch {self.name} cannot be published: since it began at snapshot {self.base} the lake has"
                f" changed {', '.join(sorted(clashes))}",
                hint="nothing was published; begin a new branch from what is there now",
            )

    def _restart(self) -> None:
        """Begin again from what is in the lake now."""
        self.lake.close()
        self._lake = None
        self._begin()

    def _begin(self) -> None:
        """Copy the catalog and link the data files while nobody writes."""
        origin = self._origin
        for entry in self.path.iterdir():
            if entry.name != _LOCK:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        try:
            with origin.catalog.writer.plain():
                files = [name for name in (CATALOG_FILE, STATE_FILE) if (origin.path / name).exists()]
                copying.copy(*((origin.path / name, self.path / name) for name in files))
                shutil.copytree(origin.path / DATA_FOLDER, self.path / DATA_FOLDER, copy_function=_link)
            shutil.copyfile(origin.path / MARKER_FILE, self.path / MARKER_FILE)
        except (OSError, shutil.Error) as error:
            raise DiskFull(f"the branch {self.name} could not be made: {error}") from None
        self._lake = self._opened(self.path)
        self.base = self._lake.catalog.metadata.current()

    def __enter__(self) -> Branch:
        if self._lake is not None:
            raise QueryError(f"the branch {self.name} is open already")
        self._lock = _claimed(self.path, self.name)
        try:
            self._begin()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._lake is not None:
            self._lake.close()
            self._lake = None
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = None

    def __repr__(self) -> str:
        return f"<Branch {self.name} of {self._origin.path} from snapshot {self.base}>"


def _claimed(path: Path, name: str) -> int:
    """The lock of a branch's folder, which is made if need be and holds nothing that still counts.

    Raises:
        AlreadyExists: another process, or this one, has that branch open.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise DiskFull(f"the branch {name} could not be made: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        same = os.stat(path / _LOCK).st_ino == os.fstat(descriptor).st_ino  # it may have been cleared away just now
    except OSError:
        same = False
    if not same:
        os.close(descriptor)
        raise AlreadyExists(
            f"there is a branch '{name}' already", hint="it goes when its block ends; take another name"
        )
    return descriptor


def _changed(
    before: Definitions, after: Definitions, made: list[Snapshot]
) -> tuple[dict[int, Relation], dict[int, Relation]]:
    """What the branch changed: as it was, and as it is, by id."""
    ids = changed_ids(before, after) | {id for id, relation in after.by_id.items() if touched(made, relation)}
    return (
        {id: before.by_id[id] for id in ids if id in before.by_id},
        {id: after.by_id[id] for id in ids if id in after.by_id},
    )


def _made_anew(catalog: Catalog, before: Definitions, there: dict[int, Relation]) -> dict[int, int]:
    """Tables of a branch that it made anew, with wider types or as they once were, and the ids they began with."""
    found = {id: catalog.known_as(relation, before.by_id) for id, relation in there.items()}
    return {id: old for id, old in found.items() if old is not None and old != id and old not in there}


def _without_deleted(anew: dict[str, int], made: list[Snapshot], made_anew: dict[int, int]) -> dict[str, int]:
    """The tables that lost no row in the branch: of the others nobody knows which loads are still in them."""
    names = made_anew | {id: id for id in anew.values()}
    changes = {change for snapshot in made for change in snapshot.changes.split(",")}
    deleted = {old for id, old in names.items() if {f"deleted_from_table:{id}", f"inlined_delete:{id}"} & changes}
    return {name: id for name, id in anew.items() if id not in deleted}


def _link(source: str, target: str) -> str:
    os.link(source, target)
    return target
