"""The wider type that keeps every value of a column exactly, and the table made anew with it.

DuckLake 1.5 changes a column's type in the catalog only: the rows stay as they are, and what a filter compares them
with is cast to the old type. After INTEGER became DOUBLE, `x = 9.5` finds 10. Between whole numbers that goes well;
for every other pair the table is made anew in one commit, as a rollback does it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack

import duckdb

from lakehouse.catalog import faults, inlining, keeping
from lakehouse.catalog.attach import ALIAS, Database
from lakehouse.catalog.catalog import Catalog
from lakehouse.catalog.history.definition import Definitions, comments, create_table
from lakehouse.catalog.history.past import attached
from lakehouse.catalog.metadata import Relation
from lakehouse.catalog.names import quote, shown
from lakehouse.catalog.writer import Transaction
from lakehouse.ingest import exact, types
from lakehouse.ingest.land import Columns, Landing, land

Run = Callable[[str], duckdb.DuckDBPyConnection]

_DIGITS = {"TINYINT": 3, "SMALLINT": 5, "INTEGER": 10, "BIGINT": 19}
"""How many digits the whole numbers of a type may have; those of the types without a sign have one more at most."""
_MOST = 38  # digits of a DECIMAL
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_TIMES = frozenset({"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"})
_WRITTEN = r"[+-]?([0-9]+([.][0-9]*)?|[.][0-9]+)"


def wider(run: Run, table: str, reading: str, name: str, old: str, new: str) -> str | None:
    """The type that holds all values of a column and of a source exactly; None when we know none.

    Text is no such type: a column of numbers that quietly becomes one of texts sorts and compares otherwise.

    Args:
        run: executes SQL.
        table: the table's name in SQL.
        reading: the FROM clause that reads the source; numbers of text files as they are written.
        name: the column.
        old: its type in the table.
        new: its type in the source.
    """
    if old == "FLOAT":
        return "DOUBLE" if exact.number(new) else None
    if old in ("DATE", "TIMESTAMP_S", "TIMESTAMP_MS"):
        return "TIMESTAMP" if new in _TIMES else None
    if not exact.number(old) or not exact.number(new) or old == "DOUBLE":
        return None
    if exact.whole(old) and exact.whole(new):
        return _whole(run, old, new)
    digits, scale = _room(old)
    if new not in ("FLOAT", "DOUBLE"):
        more, finer = _room(new)
        if kind := _decimal(max(digits, more), max(scale, finer)):
            return kind
    plain, floats, more, finer = _measured(run, reading, name)
    if plain and not finer and exact.whole(old):  # whole numbers after all, though not written so
        return _whole(run, old, "BIGINT" if more <= 18 else "HUGEINT")
    if exact.whole(old) and new in ("FLOAT", "DOUBLE") and floats and _fits_float(run, table, name, old):
        return "DOUBLE"
    return _decimal(max(digits, more), max(scale, finer)) if plain else None


def in_place(old: str, new: str) -> bool:
    """Whether DuckLake may change the type and leave the rows where they are."""
    return exact.whole(old) and exact.whole(new)


def anew(
    catalog: Catalog,
    database: Database,
    transaction: Transaction,
    changes: Columns,
    relation: Relation,
    undo: ExitStack,
) -> None:
    """Make a table anew with other types and more columns; those that are there keep their order.

    It has the name, comments, defaults, NOT NULL, partitions, sort order and rows that it had, the rows in their
    order. Older snapshots keep the one before; `done` brings the tags along.

    Args:
        catalog: the lake's catalog.
        database: the lake's database.
        transaction: the open write, which has done nothing yet.
        changes: names and types of columns, changed ones as the table spells them, and new ones.
        relation: the table.
        undo: ends after the transaction.

    Raises:
        LakehouseError: a value of the table cannot be kept exactly.
    """
    before = catalog.metadata.current()
    past = Definitions(catalog.metadata, before).of(relation)
    alias = undo.enter_context(attached(database, database.folder, before))
    source, target = (quote(place, relation.schema, relation.name) for place in (alias, ALIAS))
    given = [(row[0], row[1]) for row in transaction.execute(f"DESCRIBE {source}").fetchall()]
    known = dict(given)
    columns = [(name, dict(changes).get(name, kind)) for name, kind in given]
    casts = ", ".join(f"NULL::{kind} AS {quote(name)}" for name, kind in columns)
    landing = Landing(
        relation.schema,
        relation.name,
        columns,
        given,
        None,
        create=False,
        empty=False,
        direct=past.layout.partitions == past.layout.order == () and all(field.nullable for field in past.fields),
    )
    transaction.execute(f"DROP TABLE {target}")
    if keeping.only_in_files(columns):
        inlining.write_files(transaction, relation.schema, relation.name, wide=keeping.wide(columns))
    for statement in create_table(transaction.connection, past, f"SELECT {casts}"):
        transaction.execute(statement)
    # A column named like one of DuckLake's own hides it; then the rows come as they come.
    ordered = f"(FROM {source} ORDER BY rowid)" if past.plain else source
    with faults.translated():
        land(database, catalog, transaction.connection.execute, landing, ordered, undo)
    for statement in comments(None, past):
        transaction.execute(statement)
    for name, kind in changes:
        if name not in known:
            transaction.execute(f"ALTER TABLE {target} ADD COLUMN {quote(name)} {kind}")
    transaction.note["version"] = before
    transaction.note["anew"] = {shown(relation.schema, relation.name): relation.id}


def carried(catalog: Catalog, before: Relation) -> None:
    """Give a table that was made anew the tags and the fixed types that it had."""
    after = catalog.find(quote(before.schema, before.name))
    catalog.tags.carry([(before.id, after.id)])
    types.carry(catalog, before.id, after.id)


def _whole(run: Run, old: str, new: str) -> str:
    """The whole numbers that hold both; beyond 64 bits a DECIMAL, as Parquet keeps a HUGEINT as a rounded DOUBLE."""
    row = run(f"SELECT typeof(CASE WHEN true THEN NULL::{old} ELSE NULL::{new} END)").fetchone()
    assert row is not None
    return f"DECIMAL({_MOST},0)" if row[0] == "DOUBLE" else keeping.kept(str(row[0]))


def _room(kind: str) -> tuple[int, int]:
    """Digits before and after the point."""
    if match := _DECIMAL.fullmatch(kind):
        return int(match[1]) - int(match[2]), int(match[2])
    bare = kind.removeprefix("U")
    return _DIGITS.get(bare, _MOST) + (kind == "UBIGINT"), 0


def _decimal(digits: int, scale: int) -> str | None:
    return f"DECIMAL({digits + scale},{scale})" if digits + scale <= _MOST else None


def _measured(run: Run, reading: str, name: str) -> tuple[bool, bool, int, int]:
    """Of the numbers in a column of a source: whether all are written with digits and a point, whether a DOUBLE
    holds all, and most digits before and after the point.
    """
    text = f"trim(CAST({quote(name)} AS VARCHAR))"
    whole = "ltrim(regexp_extract(t, '^[+-]?([0-9]*)', 1), '0')"
    part = "rtrim(regexp_extract(t, '[.]([0-9]*)$', 1), '0')"
    number = "TRY_CAST(t AS DOUBLE)"
    same = f"CAST({number} AS VARCHAR) IN (t, t || '.0') OR ({part} = '' AND {_exactly('t', f'DECIMAL({_MOST},0)')})"
    row = run(
        f"SELECT bool_and(regexp_full_match(t, '{_WRITTEN}')), bool_and({number} IS NOT NULL AND"
        f" (length({whole}) + length({part}) <= 15 OR {same})), max(length({whole})), max(length({part}))"
        f" FROM (SELECT {text} AS t FROM {reading}) WHERE t IS NOT NULL"
    ).fetchone()
    return (bool(row[0]), bool(row[1]), row[2] or 0, row[3] or 0) if row else (False, False, 0, 0)


def _fits_float(run: Run, table: str, name: str, kind: str) -> bool:
    row = run(f"SELECT bool_and({_exactly(quote(name), kind)}) FROM {table} WHERE {quote(name)} IS NOT NULL").fetchone()
    return row is None or row[0] is not False


def _exactly(value: str, kind: str) -> str:
    """Whether a DOUBLE keeps a value of a type of whole numbers."""
    return f"TRY_CAST(TRY_CAST({value} AS DOUBLE) AS {kind}) IS NOT DISTINCT FROM TRY_CAST({value} AS {kind})"
