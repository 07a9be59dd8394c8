"""CSV ingest: `lake.ingest` against DuckDB's own `COPY (FROM read_csv(…)) TO … parquet` of the same file."""

from __future__ import annotations

import os
from pathlib import Path

import _tpch
from _report import Report, fresh, main, median, plain, scratch, sync, timed

import lakehouse


def measure(quick: bool) -> Report:
    """TPC-H lineitem as CSV into a table, against a raw COPY to Parquet; every load in a fresh process."""
    scale, count = (0.05, 3) if quick else (1.0, 7)
    source = _tpch.csv(scale)
    rows = sum(1 for _ in source.open("rb")) - 1
    size = source.stat().st_size / 1e6
    report = Report(
        f"CSV ingest, {rows:,} rows, {size:,.0f} MB, {count} interleaved rounds, fresh processes",
        "raw DuckDB: COPY (FROM read_csv(file)) TO a Parquet file; no hash, no commit",
    )
    works = {"ours": _ours, "raw": _raw, "synced": _synced}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    peaks: dict[str, list[float]] = {name: [] for name in works}
    wrong = 0
    order = list(works)
    for _ in range(count):
        for name in order:
            with scratch() as folder:
                sync()
                (took, found), peak = fresh(works[name], folder, source)
                wrong += found != rows
            seconds[name].append(took)
            peaks[name].append(peak)
        order.reverse()
    ours, raw, synced = (median(seconds[name]) for name in works)
    report.add("median, raw leaves the file to the page cache", ours, "s", raw, at_most=1.10)
    report.add("median, raw also flushes file and folder", ours, "s", synced)
    report.add("best round, raw not flushed", min(seconds["ours"]), "s", min(seconds["raw"]))
    report.add("best round, raw flushed", min(seconds["ours"]), "s", min(seconds["synced"]))
    report.add("peak memory of the process (median)", median(peaks["ours"]), "MB", median(peaks["raw"]))
    report.add("loads whose row count is wrong", wrong, "", at_most=0)
    for name in works:
        report.notes.append(f"{name}: {' '.join(f'{value:.2f}' for value in seconds[name])} s")
    report.notes.append("ours always flushes the data file, hashes the source and commits a snapshot")
    return report


def _ours(folder: Path, source: Path) -> tuple[float, int]:
    with lakehouse.open(folder / "lake", settings={"query": {"progress": False}}) as lake:
        took = timed(lambda: lake.ingest(source, "lineitem"))
        return took, lake.catalog.table("lineitem").row_count


def _raw(folder: Path, source: Path, *, flush: bool = False) -> tuple[float, int]:
    target = folder / "lineitem.parquet"
    with plain(temp_directory=str(folder / "tmp")) as connection:

        def load() -> None:
            connection.execute(f"COPY (FROM read_csv('{source}')) TO '{target}' (FORMAT parquet)")
            if flush:
                _flush(target)
                _flush(folder)

        took = timed(load)
        return took, connection.execute(f"SELECT count(*) FROM '{target}'").fetchone()[0]


def _synced(folder: Path, source: Path) -> tuple[float, int]:
    return _raw(folder, source, flush=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main(measure)
