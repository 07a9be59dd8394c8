"""`Table.rollback` of a large table against copying the older state into a new table."""

from __future__ import annotations

from _report import Report, main, scratch, sync, timed

import lakehouse


def measure(quick: bool) -> Report:
    """10,000,000 rows: roll back a small change, and a change of every row."""
    rows = 200_000 if quick else 10_000_000
    report = Report(f"Rollback of a table of {rows:,} rows", "CREATE TABLE AS SELECT … AT (VERSION => …)")
    with scratch() as folder, lakehouse.open(folder / "lake", settings={"query": {"progress": False}}) as lake:
        lake.sql(f"CREATE TABLE t AS SELECT i AS id, i % 97 AS kind, (i * 7919) % 1000003 AS x FROM range({rows}) r(i)")
        table = lake.catalog.table("t")
        want = _sums(lake)
        for what, change in (
            ("one row in a thousand deleted", "DELETE FROM t WHERE id % 1000 = 1"),
            ("one row in a thousand updated", "UPDATE t SET kind = -1 WHERE id % 1000 = 1"),
            ("every row updated", "UPDATE t SET kind = kind + 1"),
        ):
            good = lake.catalog.current_snapshot().id
            lake.sql(change)
            sync()
            copied = timed(lambda good=good: lake.sql(f"CREATE TABLE c AS FROM t AT (VERSION => {good})"))
            lake.sql("DROP TABLE c")
            sync()
            report.add(what, timed(lambda good=good: table.rollback(good)), "s", copied)
            assert _sums(lake) == want, what
    return report


def _sums(lake: lakehouse.Lakehouse) -> object:
    return lake.sql("SELECT count(*), sum(id), sum(kind), sum(x) FROM t").fetchall()


if __name__ == "__main__":
    main(measure)
