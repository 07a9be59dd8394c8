"""TPC-H: the 22 queries through `lake.sql` against raw DuckDB over the Parquet files the lake was loaded from."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import _tpch
import duckdb
import pyarrow as pa
from _report import Report, main, median, plain, rounds, scratch

import lakehouse

ROUNDS = 5
TOLERANCE = 1e-9  # relative: sums of floats depend on the order in which threads finish


def measure(quick: bool) -> Report:
    """22 TPC-H queries, result cache off and on, against raw DuckDB with the same threads."""
    scale = 0.05 if quick else 1.0
    files, queries = _tpch.parquet(scale), _tpch.queries()
    report = Report(
        f"TPC-H, scale factor {scale:g}, Arrow tables, {ROUNDS} interleaved rounds",
        "raw DuckDB, views over the source Parquet files, same threads",
    )
    with scratch() as folder, plain() as raw:
        _load(folder / "lake", files)
        for name in _tpch.TABLES:
            raw.execute(f"CREATE VIEW {name} AS FROM read_parquet('{files / name}.parquet')")
        threads = raw.execute("SELECT current_setting('threads')").fetchone()[0]
        off: dict[str, Any] = {"query": {"cache_size": "0B", "threads": threads, "progress": False}}
        on: dict[str, Any] = {"query": {"threads": threads, "progress": False}}
        with (
            lakehouse.open(folder / "lake", settings=off) as lake,
            lakehouse.open(folder / "lake", settings=on) as cached,
        ):
            _compare(report, queries, raw, lake, cached)
    return report


def _load(folder: Path, files: Path) -> None:
    with lakehouse.open(folder) as lake:
        for name in _tpch.TABLES:
            lake.ingest(files / f"{name}.parquet", name)


def _compare(
    report: Report,
    queries: dict[int, str],
    raw: duckdb.DuckDBPyConnection,
    lake: lakehouse.Lakehouse,
    cached: lakehouse.Lakehouse,
) -> None:
    first_ours = first_theirs = total_ours = total_theirs = total_again = 0.0
    wrong = []
    for number, sql in queries.items():
        seconds = rounds(ROUNDS, ours=lambda sql=sql: lake.sql(sql).arrow(), theirs=lambda sql=sql: _raw(raw, sql))
        if problem := difference(lake.sql(sql).arrow(), _raw(raw, sql)) or difference(
            cached.sql(sql).arrow(), _raw(raw, sql)
        ):
            wrong.append(f"Q{number}: {problem}")
        again = rounds(ROUNDS, again=lambda sql=sql: cached.sql(sql).arrow())["again"]
        ours, theirs = min(seconds["ours"]), min(seconds["theirs"])
        first_ours, first_theirs = first_ours + seconds["ours"][0], first_theirs + seconds["theirs"][0]
        total_ours, total_theirs, total_again = total_ours + ours, total_theirs + theirs, total_again + median(again)
        report.add(f"Q{number:02d}", ours * 1000, "ms", theirs * 1000)
    report.add("all 22, the very first run of each", first_ours, "s", first_theirs)
    report.add("all 22, best round, result cache off", total_ours, "s", total_theirs, at_most=1.05)
    report.add("all 22 again, snapshot unchanged", total_again, "s", total_theirs, inverse=True, at_least=50.0)
    report.add("queries with other answers than raw DuckDB", len(wrong), "", at_most=0)
    report.notes.extend(wrong)


def _raw(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    return connection.execute(sql).to_arrow_table()


def difference(ours: pa.Table, theirs: pa.Table) -> str | None:
    """What distinguishes two results (rows in the same order, floats within the tolerance); None: nothing."""
    if ours.column_names != theirs.column_names:
        return f"columns {ours.column_names} instead of {theirs.column_names}"
    if ours.schema.types != theirs.schema.types:
        return f"types {ours.schema.types} instead of {theirs.schema.types}"
    if ours.num_rows != theirs.num_rows:
        return f"{ours.num_rows} rows instead of {theirs.num_rows}"
    for name, mine, other in zip(ours.column_names, ours.columns, theirs.columns, strict=True):
        for row, (a, b) in enumerate(zip(mine.to_pylist(), other.to_pylist(), strict=True)):
            if not _same(a, b):
                return f"row {row}, {name}: {a!r} instead of {b!r}"
    return None


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float | Decimal) and isinstance(b, float | Decimal):
        return math.isclose(a, b, rel_tol=TOLERANCE)
    return bool(a == b)


if __name__ == "__main__":
    main(measure)
