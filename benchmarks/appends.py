"""Many small appends: `lake.ingest` of frames against delta-rs, and reading them before and after compaction."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow as pa
from _report import Report, main, median, rounds, scratch, sync, timed

import lakehouse


def measure(quick: bool) -> Report:
    """100 appends of 1,000 rows; then a query over them before and after `lake.maintenance.compact()`."""
    appends, rows, count = (20, 1000, 2) if quick else (100, 1000, 3)
    report = Report(
        f"{appends} appends of {rows:,} rows, {count} interleaved rounds, fresh tables", "delta-rs: write_deltalake"
    )
    ours, theirs, before, after, compacting, optimizing = [], [], [], [], [], []
    for _ in range(count):
        with scratch() as folder:
            sync()
            theirs.append(_delta(folder, appends, rows))
            optimizing.append(_optimized(folder))
        with scratch() as folder, lakehouse.open(folder / "lake", settings={"query": {"cache_size": "0MB"}}) as lake:
            sync()
            ours.append(timed(lambda lake=lake: [lake.ingest(_frame(i, rows), "t") for i in range(appends)]))
            ask = partial(_asked, lake)
            first = ask()
            before.append(median(rounds(5, ask=ask)["ask"]))
            compacting.append(timed(lake.maintenance.compact))
            assert ask() == first == [(sum(range(appends * rows)), appends * rows)]
            after.append(median(rounds(5, ask=ask)["ask"]))
    report.add("one append", median(ours) / appends * 1000, "ms", median(theirs) / appends * 1000)
    report.add("compaction of all of them", median(compacting) * 1000, "ms", median(optimizing) * 1000)
    report.add("a query, compacted (theirs: before)", median(after) * 1000, "ms", median(before) * 1000)
    report.notes.append("ours hashes each frame and flushes each file; the peer's compaction is its optimize.compact")
    return report


def _frame(number: int, rows: int) -> pa.Table:
    start = number * rows
    return pa.table({"x": pa.array(range(start, start + rows), pa.int64()), "name": [f"row {i}" for i in range(rows)]})


def _asked(lake: lakehouse.Lakehouse) -> list[tuple]:
    return lake.sql("SELECT sum(x), count(*) FROM t").fetchall()


def _delta(folder: Path, appends: int, rows: int) -> float:
    from deltalake import write_deltalake

    return timed(lambda: [write_deltalake(folder / "t", _frame(i, rows), mode="append") for i in range(appends)])


def _optimized(folder: Path) -> float:
    from deltalake import DeltaTable

    return timed(DeltaTable(folder / "t").optimize.compact)


if __name__ == "__main__":
    main(measure)
