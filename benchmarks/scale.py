"""A large lake: 10,000 tables and 100,000 snapshots; what its calls cost before and after maintenance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _report import Report, main, median, plain, rounds, scratch, timed

import lakehouse
from lakehouse.catalog import extensions

REAL = 100  # tables that are made by DuckLake, in one commit


def measure(quick: bool) -> Report:
    """Open, list, count and query, before and after the old snapshots are expired."""
    tables, snapshots, repeats = (500, 5_000, 3) if quick else (10_000, 100_000, 5)
    report = Report(
        f"A lake of {tables:,} tables and {snapshots:,} snapshots, median of {repeats} rounds",
        "the same call before `lake.maintenance.expire()`",
    )
    with scratch() as folder:
        path = folder / "lake"
        made = _fill(path, tables)
        _age(path, snapshots)
        before = _calls(path, repeats)
        with lakehouse.open(path) as lake:
            expiring = timed(lambda: lake.maintenance.expire("0s", dry_run=False))
            left = len(lake.catalog.snapshots())
        after = _calls(path, repeats)
    for what, seconds in after.items():
        report.add(what, median(seconds) * 1000, "ms", median(before[what]) * 1000)
    report.add(f"make {REAL - 1} tables in one commit, in an empty lake", made * 1000, "ms")
    report.add(f"expire {snapshots:,} snapshots", expiring, "s")
    report.notes.append(
        f"{tables - REAL:,} tables and {snapshots:,} snapshots were written into the catalog as DuckLake would have done"
    )
    report.notes.append(f"{left:,} snapshots are left after maintenance")
    return report


def _calls(path: Path, repeats: int) -> dict[str, list[float]]:
    works = {"open and close": lambda: lakehouse.open(path).close()}
    seconds = rounds(repeats, **works)
    with lakehouse.open(path, settings={"query": {"cache_size": "0MB"}}) as lake:
        works = {
            "list the tables": lake.catalog.tables,
            "the newest 20 snapshots": lambda: lake.catalog.snapshots(20),
            "query a row of a file": lambda: lake.sql("SELECT * FROM t00008 WHERE id = 7").fetchall(),
            "query rows of the catalog": lambda: lake.sql("SELECT * FROM t00006").fetchall(),
            "insert one row, and query it": lambda: lake.sql(
                "INSERT INTO t00007 VALUES (1, 'a'); SELECT * FROM t00007"
            ).fetchall(),
            "search": lambda: lake.catalog.search("t00042"),
            "search, misspelled": lambda: lake.catalog.search("t0042O"),
        }
        for work in works.values():
            work()  # the first of each reads what later ones know
        return seconds | rounds(repeats, **works)


def _fill(path: Path, tables: int) -> float:
    """Make so many tables, and return the seconds that the commit of the first ones took.

    DuckLake looks at every table for every table that is made in a commit: the ten-thousandth costs 0.2 s, all of them
    an hour. So the others are written into the catalog of a lake that nobody has open, as DuckLake would have done it.
    """
    with lakehouse.open(path) as lake:
        create = [f"CREATE TABLE t{i:05d} (id BIGINT, name VARCHAR)" for i in range(REAL - 1)]
        took = timed(lambda: lake.sql(";\n".join(["BEGIN", *create, "COMMIT"])))
        lake.sql(f"CREATE TABLE t{REAL - 1:05d} (id BIGINT, name VARCHAR)")  # the one that the others are copies of
    with _catalog(path) as connection:
        newest, version, id, name, inlined = connection.execute(
            "SELECT s.snapshot_id, s.schema_version, t.table_id, t.table_name, i.table_name FROM raw.ducklake_snapshot s,"
            " raw.ducklake_table t JOIN raw.ducklake_inlined_data_tables i USING (table_id)"
            " ORDER BY s.snapshot_id DESC, t.table_id DESC LIMIT 1"
        ).fetchone()
        assert (name, inlined) == (f"t{REAL - 1:05d}", f"ducklake_inlined_data_{id}_{version}")
        connection.execute("BEGIN")
        more = f"range({REAL}, {tables}) r(i)"
        new = f"{id} + i - {REAL - 1}"
        label = "printf('t%05d', i)"
        for table, changed in {
            "snapshot": f"snapshot_id + 1 AS snapshot_id, next_catalog_id + {tables - REAL} AS next_catalog_id,"
            " schema_version + 1 AS schema_version",
            "snapshot_changes": "snapshot_id + 1 AS snapshot_id",
        }.items():
            of = f"raw.ducklake_{table}"
            connection.execute(f"INSERT INTO {of} SELECT * REPLACE ({changed}) FROM {of} WHERE snapshot_id = {newest}")
        for table, changed in {
            "table": f"uuid()::VARCHAR AS table_uuid, {label} AS table_name, {label} || '/' AS path,",
            "column": "",
            "schema_versions": f"{version + 1} AS schema_version,",
            "inlined_data_tables": f"{version + 1} AS schema_version,"
            f" printf('ducklake_inlined_data_%d_%d', {new}, {version + 1}) AS table_name,",
        }.items():
            of = f"raw.ducklake_{table}"
            born = "" if table == "inlined_data_tables" else f"{newest + 1} AS begin_snapshot,"
            connection.execute(
                f"INSERT INTO {of} SELECT o.* REPLACE ({changed} {born} {new} AS table_id) FROM {of} o, {more}"
                f" WHERE o.table_id = {id}"
            )
        for number in range(id + 1, id + 1 + tables - REAL):
            connection.execute(
                f"CREATE TABLE raw.ducklake_inlined_data_{number}_{version + 1} AS FROM raw.{inlined} LIMIT 0"
            )
        connection.execute("COMMIT")
    with lakehouse.open(path) as lake:
        lake.sql("INSERT INTO t00006 VALUES (0, 'first'); INSERT INTO t00007 VALUES (0, 'first')")
        lake.sql("INSERT INTO t00008 SELECT i, 'in a file' FROM range(1000) r(i)")
        lake.sql(f"INSERT INTO t{tables - 1:05d} VALUES (0, 'last')")  # those that were written by hand work as well
        assert lake.sql(f"SELECT * FROM t{tables - 1:05d}").fetchall() == [(0, "last")]
        assert len(lake.catalog.tables()) == tables
    return took


@contextmanager
def _catalog(path: Path) -> Iterator[Any]:
    """The catalog of a lake that nobody has open, to be written by hand: what no lake that is used may know."""
    with plain() as connection:
        extensions.load(connection, *extensions.CORE)
        connection.execute(f"ATTACH 'sqlite:{path / 'catalog.sqlite'}' AS raw")
        yield connection


def _age(path: Path, snapshots: int) -> None:
    """Give a lake that nobody has open so many snapshots; a hundred thousand commits would take half an hour."""
    with _catalog(path) as connection:
        newest, version, catalog, file = connection.execute(
            "SELECT snapshot_id, schema_version, next_catalog_id, next_file_id FROM raw.ducklake_snapshot"
            " ORDER BY snapshot_id DESC LIMIT 1"
        ).fetchone()
        connection.execute(
            f"INSERT INTO raw.ducklake_snapshot SELECT {newest} + i, now()::VARCHAR, {version}, {catalog}, {file}"
            f" FROM range(1, {snapshots + 1}) r(i)"
        )
        connection.execute(
            f"INSERT INTO raw.ducklake_snapshot_changes (snapshot_id, changes_made, author, commit_message)"
            f" SELECT {newest} + i, '', 'benchmark', 'a commit' FROM range(1, {snapshots + 1}) r(i)"
        )


if __name__ == "__main__":
    main(measure)
