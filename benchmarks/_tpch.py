"""TPC-H data, made once by DuckDB's own generator and kept as Parquet files."""

from __future__ import annotations

from pathlib import Path

import duckdb
from _report import KEPT, kept, plain

from lakehouse.catalog import extensions

TABLES = ("customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier")


def parquet(scale: float) -> Path:
    """The folder with one Parquet file per table."""
    name = f"tpch-sf{scale:g}"
    with kept(name) as folder:
        if folder is not None:
            print(f"making TPC-H data, scale factor {scale:g} …", flush=True)
            with _generator() as connection:
                connection.execute(f"CALL dbgen(sf = {scale})")
                for table in TABLES:
                    connection.execute(f"COPY {table} TO '{folder / table}.parquet' (FORMAT parquet)")
    return KEPT / name


def csv(scale: float) -> Path:
    """The largest table, `lineitem`, as one CSV file."""
    source = parquet(scale) / "lineitem.parquet"
    name = f"lineitem-sf{scale:g}"
    with kept(name) as folder:
        if folder is not None:
            print(f"writing lineitem as CSV, scale factor {scale:g} …", flush=True)
            with plain() as connection:
                connection.execute(f"COPY (FROM '{source}') TO '{folder / 'lineitem.csv'}' (FORMAT csv, HEADER)")
    return KEPT / name / "lineitem.csv"


def queries() -> dict[int, str]:
    """The 22 queries by number."""
    with _generator() as connection:
        rows = connection.execute("SELECT query_nr, query FROM tpch_queries() ORDER BY 1").fetchall()
    return dict(rows)


def _generator() -> duckdb.DuckDBPyConnection:
    connection = plain()
    extensions.load(connection, "tpch")
    return connection
