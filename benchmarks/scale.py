"""A large lake: 10,000 tables and 100,000 snapshots; what its calls cost before and after maintenance."""

from __future__ import annotations

from pathlib import Path

from _report import Report, main, median, plain, rounds, scratch

import lakehouse
from lakehouse.catalog import extensions

BATCH = 500  # tables created in one commit


def measure(quick: bool) -> Report:
    """Open, list, count and query, before and after the old snapshots are expired."""
    tables, snapshots, repeats = (500, 5_000, 3) if quick else (10_000, 100_000, 5)
    report = Report(
        f"A lake of {tables:,} tables and {snapshots:,} snapshots, median of {repeats} rounds",
        "the same call before `lake.maintenance.expire()`",
    )
    with scratch() as folder:
        path = folder / "lake"
        _fill(path, tables)
        _age(path, snapshots)
        before = _calls(path, repeats)
        with lakehouse.open(path) as lake:
            lake.maintenance.expire("0s", dry_run=False)
            left = len(lake.catalog.snapshots())
        after = _calls(path, repeats)
    for what, seconds in after.items():
        report.add(what, median(seconds) * 1000, "ms", median(before[what]) * 1000)
    report.notes.append(f"{left:,} snapshots are left after maintenance")
    return report


def _calls(path: Path, repeats: int) -> dict[str, list[float]]:
    works = {"open and close": lambda: lakehouse.open(path).close()}
    seconds = rounds(repeats, **works)
    with lakehouse.open(path, settings={"query": {"cache_size": "0MB"}}) as lake:
        works = {
            "list the tables": lake.catalog.tables,
            "the newest 20 snapshots": lambda: lake.catalog.snapshots(20),
            "query one row": lambda: lake.sql("SELECT * FROM t00007").fetchall(),
            "insert one row": lambda: lake.sql("INSERT INTO t00007 VALUES (1, 'a')"),
            "search": lambda: lake.catalog.search("t00042"),
        }
        for work in works.values():
            work()  # the first of each reads what later ones know
        return seconds | rounds(repeats, **works)


def _fill(path: Path, tables: int) -> None:
    with lakehouse.open(path) as lake:
        for start in range(0, tables, BATCH):
            create = [f"CREATE TABLE t{i:05d} (id BIGINT, name VARCHAR)" for i in range(start, start + BATCH)]
            lake.sql(";\n".join(["BEGIN", *create, "COMMIT"]))
        lake.sql("INSERT INTO t00007 VALUES (0, 'first')")


def _age(path: Path, snapshots: int) -> None:
    """Give a lake that nobody has open so many snapshots; a hundred thousand commits would take half an hour."""
    with plain() as connection:
        extensions.load(connection, *extensions.CORE)
        connection.execute(f"ATTACH 'sqlite:{path / 'catalog.sqlite'}' AS raw")
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
