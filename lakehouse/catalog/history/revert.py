"""Giving tables and views of the lake the state they have elsewhere: at an older snapshot, or in a branch.

All of it happens in one open transaction. A table whose columns are the same keeps its identity, and only the rows
that differ are deleted and inserted; DuckLake's row ids tell which. One with other columns is dropped and made
anew: DuckLake takes one change of the columns per table and transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

import duckdb

from lakehouse.catalog.attach import ALIAS
from lakehouse.catalog.history.definition import Definition, Definitions, comments, create_table, create_view
from lakehouse.catalog.inlining import write_files
from lakehouse.catalog.keeping import only_in_files, wide
from lakehouse.catalog.metadata import Relation, Snapshot
from lakehouse.catalog.names import quote, shown
from lakehouse.catalog.writer import Transaction
from lakehouse.errors import LakehouseError, QueryError

_ROWS = ("inserted_into_table", "deleted_from_table", "inlined_insert", "inlined_delete")
_MOVED = ("inline_flush", "rewrite_delete", "merge_adjacent")  # the same rows in other files


@dataclass(frozen=True, slots=True)
class Source:
    """Where the wanted state is: a catalog that is attached beside the lake's own."""

    alias: str
    definitions: Definitions
    kept: Callable[[Relation, Relation], str]
    """Given a table as it is in the lake and as it is wanted, the query for the ids of the rows that both have."""


@dataclass
class Done:
    """What was changed, by name."""

    dropped: list[str]
    created: list[str]
    changed: list[str]
    anew: dict[str, int]
    """Tables that were made anew: the ids they had."""


class Revert:
    """One such change of the lake.

    Args:
        transaction: the open write.
        now: what the lake has.
        source: what it is to have.
    """

    def __init__(self, transaction: Transaction, now: Definitions, source: Source) -> None:
        self._transaction = transaction
        self._now = now
        self._source = source
        self.done = Done([], [], [], {})

    def table(self, now: Definition, then: Definition) -> None:
        """Give a table the columns and rows it has in the source; its name, comments and layout stay as they are."""
        if now.shape == then.shape:
            self._rows(now.relation, then)
            self.done.changed.append(_shown(now.relation))
            return
        self._execute(f"DROP TABLE {_name(now.relation)}")
        said = {f.id: f.comment for f in now.fields}
        fields = tuple(replace(f, comment=said.get(f.id, f.comment)) for f in then.fields)
        self._make(replace(then, relation=now.relation, fields=fields), then.relation, now.relation.id)

    def everything(
        self, now: dict[int, Relation], then: dict[int, Relation], rows: Callable[[Relation], bool], schemas: set[str]
    ) -> None:
        """Make the relations `then` out of the relations `now`, which are the same where their ids are.

        Args:
            now: what may be changed of what the lake has.
            then: what there is to be instead.
            rows: whether the rows of a table that is in both may differ.
            schemas: of the schemas that the lake has and the source has not, those to drop.
        """
        before = {id: self._now.of(relation) for id, relation in now.items()}
        after = {id: self._source.definitions.of(relation) for id, relation in then.items()}
        kept = {id for id in before.keys() & after.keys() if _can_stay(before[id], after[id])}
        for id, definition in before.items():
            if id not in kept:
                self._execute(f"DROP {definition.relation.kind.upper()} {_name(definition.relation)}")
                if id not in after:
                    self.done.dropped.append(_shown(definition.relation))
        for schema in self._source.definitions.schemas:
            if schema not in self._now.schemas:
                self._execute(f"CREATE SCHEMA {quote(ALIAS, schema)}")
        self._rename([(before[id].relation, after[id].relation) for id in kept])
        for id, definition in after.items():
            if definition.relation.kind == "view":
                continue
            if id not in kept:
                self._make(definition, definition.relation, id)
                continue
            if changed := rows(before[id].relation):
                self._rows(definition.relation, definition)
            told = comments(before[id], definition)
            self._execute(*told)
            if changed or told or _shown(before[id].relation) != _shown(definition.relation):
                self.done.changed.append(_shown(definition.relation))
        self._views([after[id] for id in after if after[id].relation.kind == "view" and id not in kept], set(before))
        for schema in schemas:
            self._execute(f"DROP SCHEMA {quote(ALIAS, schema)}")

    def _rows(self, here: Relation, then: Definition) -> None:
        """Make the rows of the table that is called `here` in this transaction those of the source."""
        target, source = _name(here), quote(self._source.alias, then.relation.schema, then.relation.name)
        if then.plain:
            kept = self._source.kept(here, then.relation)
            self._execute(
                f"DELETE FROM {target} WHERE rowid NOT IN ({kept})",
                f"INSERT INTO {target} SELECT * FROM {source} WHERE rowid NOT IN ({kept})",
            )
        else:
            self._execute(f"DELETE FROM {target}", f"INSERT INTO {target} SELECT * FROM {source}")
        self._check(target, source)

    def _make(self, definition: Definition, stored: Relation, id: int) -> None:
        """Make a table with the rows that the source has under `stored`, in the place of the one of that id."""
        target, source = _name(definition.relation), quote(self._source.alias, stored.schema, stored.name)
        described = self._transaction.execute(f"DESCRIBE {source}").fetchall()
        columns = [(row[0], row[1]) for row in described]
        if only_in_files(columns):
            made = definition.relation
            write_files(self._transaction, made.schema, made.name, wide=wide(columns))
        self._execute(
            *create_table(self._transaction.connection, definition, source),
            f"INSERT INTO {target} SELECT * FROM {source}",
            *comments(None, definition),
        )
        self._check(target, source)
        self.done.created.append(_shown(definition.relation))
        self.done.anew[_shown(definition.relation)] = id

    def _check(self, target: str, source: str) -> None:
        """A last look before it is committed: as many rows as there are to be."""
        (there, wanted), *_ = self._transaction.execute(
            f"SELECT (SELECT count(*) FROM {target}), (SELECT count(*) FROM {source})"
        ).fetchall()
        if there != wanted:
            raise LakehouseError(
                f"{target} would have {there:,} rows instead of {wanted:,}; nothing was changed",
                hint="lakehouse doctor looks at the lake",
            )

    def _rename(self, pairs: list[tuple[Relation, Relation]]) -> None:
        """By way of names that nobody has: two tables may have exchanged theirs."""
        pairs = [(old, new) for old, new in pairs if (old.schema, old.name) != (new.schema, new.name)]
        between = [f"__{uuid.uuid4().hex}" for _ in pairs]
        for (old, _), name in zip(pairs, between, strict=True):
            self._execute(f"ALTER {old.kind.upper()} {_name(old)} RENAME TO {quote(name)}")
        for (old, new), name in zip(pairs, between, strict=True):
            self._execute(f"ALTER {old.kind.upper()} {quote(ALIAS, old.schema, name)} RENAME TO {quote(new.name)}")

    def _views(self, views: list[Definition], replaced: set[int]) -> None:
        """Make views in an order in which each finds what it reads."""
        while views:
            waiting: list[Definition] = []
            fault: duckdb.Error | None = None
            for view in views:
                try:
                    self._transaction.connection.execute(create_view(view))
                except (duckdb.BinderException, duckdb.CatalogException) as error:
                    waiting.append(view)
                    fault = error
                    continue
                self._execute(*comments(None, view))
                known = view.relation.id in replaced
                (self.done.changed if known else self.done.created).append(_shown(view.relation))
            if len(waiting) == len(views):
                names = ", ".join(_shown(view.relation) for view in waiting)
                raise QueryError(
                    f"the query of the view {names} cannot be run: {fault}; nothing was changed",
                    hint="it was broken before as well: drop it there, or go to another snapshot",
                )
            views = waiting

    def _execute(self, *statements: str) -> None:
        for statement in statements:
            self._transaction.execute(statement)


def touched(snapshots: list[Snapshot], relation: Relation) -> bool:
    """Whether one of these commits put rows into a table or took some out."""
    wanted = {f"{change}:{relation.id}" for change in _ROWS}
    moved = {f"{change}:{relation.id}" for change in _MOVED}
    changes = (set(snapshot.changes.split(",")) for snapshot in snapshots)
    return any(wanted & made and not moved & made for made in changes)


def _can_stay(now: Definition, then: Definition) -> bool:
    """Whether what the lake has can stay: a view that is the very same, a table with the same columns and layout."""
    if then.relation.kind == "view":
        one, other = now.relation, then.relation
        return (one.schema, one.name, one.sql, one.comment, now.aliases) == (
            *(other.schema, other.name, other.sql, other.comment),
            then.aliases,
        )
    return (now.relation.schema, now.shape, now.layout) == (then.relation.schema, then.shape, then.layout)


def _name(relation: Relation) -> str:
    return quote(ALIAS, relation.schema, relation.name)


def _shown(relation: Relation) -> str:
    return shown(relation.schema, relation.name)
