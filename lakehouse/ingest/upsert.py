"""Upsert: rows of the source take the place of those with the same key, the others are added; one commit."""

from __future__ import annotations

from collections.abc import Callable

import duckdb

from lakehouse.catalog.names import literal, nearest, quote
from lakehouse.errors import Conflict, IngestError, SourceUnreadable
from lakehouse.ingest import exact
from lakehouse.ingest.land import Columns, Landing

STAGE = "temp.main.lakehouse_upsert"
"""The rows of the source, each key once, while they are merged."""

Run = Callable[[str], duckdb.DuckDBPyConnection]


def check_key(key: tuple[str, ...], columns: Columns, source: str) -> tuple[str, ...]:
    """The key columns as the source spells them.

    Raises:
        IngestError: the source has no such column.
    """
    known = {name.lower(): name for name, _ in columns}
    for name in key:
        if name.lower() not in known:
            hint = nearest(name, known.values()) or f"it has {', '.join(list(known.values())[:8])}"
            raise IngestError(f"{source} has no column '{name}' for the key", hint=hint)
    return tuple(known[name.lower()] for name in key)


def stage(run: Run, landing: Landing, reading: str, key: tuple[str, ...], source: str) -> int:
    """Put the rows into the stage, the last of each key only, and return how many were left out.

    Raises:
        SourceUnreadable: a row has no value in the key.
    """
    given = {name.lower(): kind for name, kind in landing.given}
    casts = ", ".join(exact.cast(name, given[name.lower()], kind) for name, kind in landing.columns)
    run(f"CREATE OR REPLACE TEMP TABLE lakehouse_upsert AS SELECT {casts} FROM {reading}")
    names = [quote(name) for name in key]
    empty = " OR ".join(f"{name} IS NULL" for name in names)
    rows, nulls, keys = _row(
        run(
            f"SELECT count(*), count(*) FILTER ({empty}), count(DISTINCT ({', '.join(names)}))"
            f" FILTER (NOT ({empty})) FROM {STAGE}"
        )
    )
    if nulls:
        what = "row has" if nulls == 1 else "rows have"
        raise SourceUnreadable(
            f"{nulls:,} {what} no value in the key ({', '.join(key)}) of {source}",
            hint="fill the key, or set such rows aside with contract='quarantine'",
        )
    if rows > keys:
        listed = ", ".join(names)
        run(f"DELETE FROM {STAGE} WHERE rowid NOT IN (SELECT max(rowid) FROM {STAGE} GROUP BY {listed})")
    return rows - keys


def merge(run: Run, landing: Landing, key: tuple[str, ...]) -> tuple[int, int]:
    """Merge the stage into the table; returns how many rows were inserted and how many updated.

    Raises:
        Conflict: the table has one of the keys more than once.
    """
    table = landing.sql
    on = " AND ".join(f"t.{quote(name)} = s.{quote(name)}" for name in key)
    joined = f"FROM {STAGE} s JOIN {table} t ON {on}"
    listed = ", ".join(f"s.{quote(name)}" for name in key)
    found, keys = _row(run(f"SELECT count(*), count(DISTINCT ({listed})) {joined}"))
    if found > keys:
        shown = " || ', ' || ".join(f"{literal(name + ' ')} || CAST(s.{quote(name)} AS VARCHAR)" for name in key)
        (example,) = run(f"SELECT {shown} {joined} GROUP BY {listed} HAVING count(*) > 1 LIMIT 1").fetchone() or ("",)
        raise Conflict(
            f"the table has {found - keys:,} row(s) too many with a key of the source, such as {str(example)[:100]}:"
            " which of them to update cannot be told",
            hint="remove the duplicates first, or give a key that is unique",
        )
    names = [name for name, _ in landing.columns]
    keyed = {name.lower() for name in key}
    values = ", ".join(f"{quote(name)} = s.{quote(name)}" for name in names if name.lower() not in keyed)
    update = f"WHEN MATCHED THEN UPDATE SET {values}" if values else "WHEN MATCHED THEN DO NOTHING"
    insert = f"({', '.join(map(quote, names))}) VALUES ({', '.join(f's.{quote(name)}' for name in names)})"
    (rows,) = _row(run(f"SELECT count(*) FROM {STAGE}"))
    run(f"MERGE INTO {table} t USING {STAGE} s ON {on} {update} WHEN NOT MATCHED THEN INSERT {insert}")
    return rows - keys, keys


def clear(run: Run) -> None:
    """Remove the stage."""
    run(f"DROP TABLE IF EXISTS {STAGE}")


def _row(connection: duckdb.DuckDBPyConnection) -> tuple[int, ...]:
    row = connection.fetchone()
    assert row is not None
    return tuple(int(value) for value in row)
