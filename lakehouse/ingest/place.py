"""Which table a load writes, with which columns: the contract is applied here, inside the transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import duckdb

from lakehouse.catalog import keeping
from lakehouse.catalog.attach import ALIAS, Database
from lakehouse.catalog.catalog import Catalog
from lakehouse.catalog.metadata import Relation
from lakehouse.catalog.names import quote
from lakehouse.errors import IngestError, TableNotFound
from lakehouse.ingest import contract, rejects
from lakehouse.ingest.land import Columns, Landing
from lakehouse.ingest.receipt import Target
from lakehouse.ingest.sources import Reading, Source


@dataclass(frozen=True, slots=True)
class Work:
    """One load under way, inside its transaction."""

    database: Database
    catalog: Catalog
    connection: duckdb.DuckDBPyConnection
    run: Callable[[str], duckdb.DuckDBPyConnection]
    """Executes SQL in the transaction; can be cancelled."""
    target: Target
    types: Mapping[str, str]
    """Types that were fixed for columns, by lower-cased name."""
    undo: ExitStack
    """What to do when the transaction is not committed after all."""

    def described(self, reading: str) -> Columns:
        """The columns that a FROM clause gives."""
        return [(row[0], row[1]) for row in self.connection.execute(f"DESCRIBE FROM {reading}").fetchall()]


def relation_of(work: Work) -> Relation | None:
    """The table as it is, None when there is none.

    Raises:
        IngestError: it is a view.
    """
    try:
        relation = work.catalog.find(quote(work.target.schema, work.target.name))
    except TableNotFound:
        return None
    if relation.kind == "view":
        raise IngestError(f"{work.target.full_name} is a view", hint="give the name of a table")
    return relation


def placed(work: Work, source: Source, reading: Reading) -> tuple[Landing, str]:
    """Where the rows of a source go, and the FROM clause that reads them."""
    target = work.target
    relation = relation_of(work)
    known = work.catalog.describe(relation) if relation is not None else []
    if relation is None or (target.mode == "replace" and target.contract is None):
        return _anew(work, source, reading, relation, known)
    whole = True
    if target.contract in ("evolve", "freeze"):
        plain = reading(work.types)
        found = work.described(plain)
        source.check([name for name, _ in found])
        contract.check_case(source.name, target.full_name, found, known)
        if target.contract == "freeze":
            typed = source.typed
            contract.freeze(work.run, source.name, target.full_name, plain, found, known, typed=typed)
        else:
            table = quote(ALIAS, relation.schema, relation.name)
            contract.evolve(work.run, source, table, reading, work.types, found, known)
    sql = reading({name.lower(): kind for name, kind in known})
    found = work.described(sql)
    source.check([name for name, _ in found])
    contract.check_case(source.name, target.full_name, found, known)
    if target.contract == "evolve":
        have = {name.lower() for name, _ in found}
        whole = all(name.lower() in have for name, _ in known)
        known = [(name, kind) for name, kind in known if name.lower() in have]  # the others read their default
    else:
        contract.check_names(source.name, target.full_name, found, known)
    return existing(work, relation, known, found, direct=whole), sql


def existing(work: Work, relation: Relation, known: Columns, found: Columns, *, direct: bool = True) -> Landing:
    """The landing of rows in a table that keeps its columns; a replaced one loses its rows and rejects."""
    empty = work.target.mode == "replace"
    if empty:
        _forget_rejects(work)
    return Landing(relation.schema, relation.name, known, found, relation, create=False, empty=empty, direct=direct)


def _anew(
    work: Work, source: Source, reading: Reading, relation: Relation | None, known: Columns
) -> tuple[Landing, str]:
    """A table of the source's own columns, in place of what is there."""
    target = work.target
    sql = reading(work.types)
    found = work.described(sql)
    source.check([name for name, _ in found])
    columns = [(name, work.types.get(name.lower(), keeping.kept(kind))) for name, kind in found]
    _forget_rejects(work)
    if relation is not None and columns == known:  # the table keeps its identity: comments, history, partitions
        return Landing(relation.schema, relation.name, known, found, relation, create=False, empty=True), sql
    if relation is not None:
        work.connection.execute(f"DROP TABLE {quote(ALIAS, relation.schema, relation.name)}")
        return Landing(relation.schema, relation.name, columns, found, None, create=True, empty=False), sql
    return Landing(target.schema, target.name, columns, found, None, create=True, empty=False), sql


def _forget_rejects(work: Work) -> None:
    """Rows that an earlier load set aside belong to what is replaced now; older snapshots keep both."""
    if work.target.mode == "replace" and (found := rejects.find(work.catalog, work.target)):
        work.run(f"DELETE FROM {quote(ALIAS, found.schema, found.name)}")
