"""`Table.profile()` against DuckDB's own `SUMMARIZE` of the same table."""

from __future__ import annotations

import _tpch
from _report import Report, main, median, rounds, scratch

import lakehouse


def measure(quick: bool) -> Report:
    """Profile TPC-H lineitem: exact, and sampled."""
    scale, count = (0.05, 3) if quick else (1.0, 3)
    source = _tpch.csv(scale)
    with scratch() as folder, lakehouse.open(folder / "lake") as lake:
        rows = lake.ingest(source, "lineitem").rows
        table = lake.catalog.table("lineitem")
        report = Report(f"Profile of {rows:,} rows × 16 columns, median of {count} interleaved rounds", "SUMMARIZE")
        connection = lake._database.connection()  # the same files and settings
        seconds = rounds(
            count,
            ours=table.profile,
            exact=lambda: table.profile(sample=None),
            theirs=lambda: connection.execute("SUMMARIZE lake.main.lineitem").fetchall(),
        )
    theirs = median(seconds["theirs"])
    report.add("as it comes (sampled past a size)", median(seconds["ours"]), "s", theirs)
    report.add("exact", median(seconds["exact"]), "s", theirs)
    report.notes.append("ours adds histograms and the most frequent values of every column")
    return report


if __name__ == "__main__":
    main(measure)
