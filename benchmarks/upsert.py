"""Upserts: `lake.ingest(mode="upsert")` against a merge of delta-rs and an upsert of PyIceberg."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from _report import Report, main, median, scratch, sync, timed

import lakehouse


def measure(quick: bool) -> Report:
    """100,000 rows into 1,000,000 (half of them new) against delta-rs; 5,000 rows against PyIceberg."""
    base, many, few, count = (100_000, 10_000, 500, 2) if quick else (1_000_000, 100_000, 5_000, 3)
    report = Report(
        f"Upserts into {base:,} rows, half of the rows new, {count} interleaved rounds, fresh tables",
        "delta-rs merge (when matched update all, when not matched insert all); PyIceberg upsert",
    )
    delta = _rounds(count, base, many, ours=_ours, theirs=_delta)
    report.add(f"{many:,} rows, delta-rs", median(delta["ours"]), "s", median(delta["theirs"]), at_most=1.0)
    iceberg = _rounds(1 if quick else 2, base, few, ours=_ours, theirs=_iceberg)
    report.add(f"{few:,} rows, PyIceberg", median(iceberg["ours"]), "s", median(iceberg["theirs"]), at_most=1.0)
    report.notes.append("ours hashes the source, takes the writer lock, flushes the files and commits a snapshot")
    return report


def _rounds(count: int, base: int, rows: int, **works: Any) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in works}
    order = list(works)
    for number in range(count):
        for name in order:
            with scratch() as folder:
                sync()
                took, found = works[name](folder, _rows(0, base), _rows(base - rows // 2, rows, number + 1))
                assert found == (base + rows - rows // 2, base), (name, found)
            seconds[name].append(took)
        order.reverse()
    return seconds


def _rows(start: int, count: int, version: int = 0) -> pa.Table:
    ids = range(start, start + count)
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "name": [f"customer {i}" for i in ids],
            "amount": pa.array([(i * 7919 % 100_000) / 100 for i in ids], pa.float64()),
            "version": pa.array([version] * count, pa.int64()),
        }
    )


def _ours(folder: Path, base: pa.Table, source: pa.Table) -> tuple[float, tuple[int, int]]:
    with lakehouse.open(folder / "lake", settings={"query": {"progress": False}}) as lake:
        lake.ingest(base, "t")
        took = timed(lambda: lake.ingest(source, "t", mode="upsert", key="id"))
        total, old, distinct = lake.sql(
            "SELECT count(*), count(*) FILTER (version = 0), count(DISTINCT id) FROM t"
        ).fetchall()[0]
    return took, (distinct if distinct == total else -1, old + source.num_rows // 2)


def _delta(folder: Path, base: pa.Table, source: pa.Table) -> tuple[float, tuple[int, int]]:
    from deltalake import DeltaTable, write_deltalake

    write_deltalake(folder / "t", base)

    def merge() -> None:
        merging = DeltaTable(folder / "t").merge(source, "t.id = s.id", source_alias="s", target_alias="t")
        merging.when_matched_update_all().when_not_matched_insert_all().execute()

    took = timed(merge)
    return took, _checked(pa.table(DeltaTable(folder / "t").to_pyarrow_table()), source)


def _iceberg(folder: Path, base: pa.Table, source: pa.Table) -> tuple[float, tuple[int, int]]:
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.schema import Schema
    from pyiceberg.types import DoubleType, LongType, NestedField, StringType

    catalog = SqlCatalog("bench", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")
    catalog.create_namespace("bench")
    kinds = {"id": LongType(), "name": StringType(), "amount": DoubleType(), "version": LongType()}
    fields = [
        NestedField(i, name, kind, required=name == "id") for i, (name, kind) in enumerate(kinds.items(), start=1)
    ]
    schema = Schema(*fields, identifier_field_ids=[1])
    table = catalog.create_table("bench.t", schema=schema)
    arrow = schema.as_arrow()
    table.append(base.cast(arrow))
    took = timed(lambda: table.upsert(source.cast(arrow)))
    return took, _checked(table.scan().to_arrow(), source)


def _checked(found: pa.Table, source: pa.Table) -> tuple[int, int]:
    """Rows (distinct keys), and how many rows the base had."""
    versions = found.column("version").to_pylist()
    assert len(set(found.column("id").to_pylist())) == found.num_rows
    return found.num_rows, versions.count(0) + source.num_rows // 2


if __name__ == "__main__":
    main(measure)
