"""Catalog calls on a lake of 1,000 tables against the same questions asked of DuckDB's own views of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
from _report import Report, main, median, plain, rounds, scratch

import lakehouse
from lakehouse.catalog import extensions
from lakehouse.notebook import completion
from lakehouse.notebook.suggestions import CatalogNames

COLUMNS = 10
COMPLETION_MS = 100.0
SLOW = 2.0  # seconds

Ask = Callable[[], Any]


def measure(quick: bool) -> Report:
    """Open, list, describe, count and complete on a lake of 1,000 tables × 10 columns."""
    count, repeats = (100, 3) if quick else (1000, 9)
    report = Report(
        f"Catalog calls, {count:,} tables × {COLUMNS} columns, median of {repeats} interleaved rounds",
        "the same lake attached in plain DuckDB, asked through duckdb_tables(), duckdb_columns() and SQL",
    )
    report.notes.append(f"a peer's answer that takes over {SLOW:g} s is asked for once")
    with scratch() as folder:
        path = folder / "lake"
        _fill(path, count)

        def open_lake() -> None:
            lakehouse.open(path).close()

        seconds = rounds(repeats, ours=open_lake, theirs=lambda: _attached(path).close())
        _line(report, "open and close", seconds)
        with lakehouse.open(path) as lake, _attached(path) as raw:
            for what, ours, theirs in _questions(lake, raw, count):
                _line(report, what, _seconds(what, ours, theirs, repeats))
            _complete(report, lake, count, repeats)
    return report


def _seconds(what: str, ours: Ask, theirs: Ask, repeats: int) -> dict[str, list[float]]:
    """Seconds of both, interleaved; a peer that takes very long is asked once. Both must say the same."""
    answers: list[Any] = []
    works = {"ours": lambda: answers.append(ours()), "theirs": lambda: answers.append(theirs())}
    seconds = rounds(1, **works)
    if seconds["theirs"][0] > SLOW:
        seconds["ours"] = rounds(repeats, ours=works["ours"])["ours"]
    else:
        seconds = rounds(repeats, **works)
    assert all(answer == answers[0] for answer in answers), what
    return seconds


def _line(report: Report, what: str, seconds: dict[str, list[float]]) -> None:
    report.add(what, median(seconds["ours"]) * 1000, "ms", median(seconds["theirs"]) * 1000)


def _fill(path: Path, count: int) -> None:
    columns = ", ".join(f"c{i} {'BIGINT' if i % 2 else 'VARCHAR'}" for i in range(COLUMNS))
    row = ", ".join(f"'{i}'" for i in range(COLUMNS))
    with lakehouse.open(path) as lake:
        create = [f"CREATE TABLE t{i:04d} ({columns})" for i in range(count)]
        lake.sql(";\n".join(["BEGIN", *create, "COMMIT"]))
        # A row in every tenth table, so that counting has something to count.
        insert = [f"INSERT INTO t{i:04d} VALUES ({row})" for i in range(0, count, 10)]
        lake.sql(";\n".join(["BEGIN", *insert, "COMMIT"]))


def _attached(path: Path) -> duckdb.DuckDBPyConnection:
    """What a user without us would do."""
    connection = plain()
    extensions.load(connection, *extensions.CORE)
    options = f"DATA_PATH '{path / 'data'}/', META_JOURNAL_MODE 'WAL', META_BUSY_TIMEOUT 10000"
    connection.execute(f"ATTACH 'ducklake:sqlite:{path / 'catalog.sqlite'}' AS lake ({options}); USE lake")
    return connection


Question = tuple[str, Ask, Ask]


def _questions(lake: lakehouse.Lakehouse, raw: duckdb.DuckDBPyConnection, count: int) -> list[Question]:
    """What is asked, how we answer and how plain DuckDB does: both must say the same."""
    name = f"t{count // 2:04d}"
    lookup = "FROM duckdb_tables() WHERE database_name = 'lake'"

    def asked(sql: str) -> list[tuple[Any, ...]]:
        return raw.execute(sql).fetchall()

    def all_counts() -> dict[str, int]:
        parts = [f"SELECT 't{i:04d}', count(*) FROM t{i:04d}" for i in range(count)]
        found: dict[str, int] = {}
        for start in range(0, len(parts), 100):
            found.update(dict(asked(" UNION ALL ".join(parts[start : start + 100]))))
        return found

    def our_counts() -> dict[str, int]:
        tables = lake.catalog.tables()
        counts = lake.catalog.counts([table._relation for table in tables], lake.catalog.metadata.current())
        return {table.name: counts[table._relation.id][0] for table in tables}

    return [
        (
            "tables(), first call after a commit",
            lambda: _forget(lake) or [table.name for table in lake.catalog.tables()],
            lambda: [row[0] for row in asked(f"SELECT table_name {lookup} ORDER BY 1")],
        ),
        (
            "tables(), snapshot unchanged",
            lambda: [table.name for table in lake.catalog.tables()],
            lambda: [row[0] for row in asked(f"SELECT table_name {lookup} ORDER BY 1")],
        ),
        (
            "table(name), first call after a commit",
            lambda: _forget(lake) or lake.catalog.table(name).name,
            lambda: asked(f"SELECT table_name {lookup} AND table_name = '{name}'")[0][0],
        ),
        (
            "table(name), snapshot unchanged",
            lambda: lake.catalog.table(name).name,
            lambda: asked(f"SELECT table_name {lookup} AND table_name = '{name}'")[0][0],
        ),
        (
            "table(name).schema",
            lambda: [(column.name, column.type) for column in lake.catalog.table(name).schema],
            lambda: asked(
                "SELECT column_name, data_type FROM duckdb_columns()"
                f" WHERE database_name = 'lake' AND table_name = '{name}' ORDER BY column_index"
            ),
        ),
        (
            "table(name).schema, against DESCRIBE",
            lambda: [(column.name, column.type) for column in lake.catalog.table(name).schema],
            lambda: [row[:2] for row in asked(f"DESCRIBE {name}")],
        ),
        (
            "table(name).row_count",
            lambda: lake.catalog.table("t0000").row_count,
            lambda: asked("SELECT count(*) FROM t0000")[0][0],
        ),
        (
            "current_snapshot()",
            lambda: lake.catalog.current_snapshot().id,
            lambda: asked("FROM lake.current_snapshot()")[0][0],
        ),
        ("rows of every table", our_counts, all_counts),
    ]


def _forget(lake: lakehouse.Lakehouse) -> None:
    """Make the next call read the catalog, as it must when somebody has committed."""
    lake.catalog.metadata._newest = lake.catalog.metadata._relations = None


def _complete(report: Report, lake: lakehouse.Lakehouse, count: int, repeats: int) -> None:
    """Completion of a table name and of a column behind an alias, with names just read and names at hand."""
    typed = {
        "complete a table name": ("SELECT * FROM t0", min(count, completion.MOST)),
        "complete a column behind an alias": (f"SELECT a.c FROM t{count // 2:04d} a", COLUMNS),
    }
    kept = CatalogNames()
    for what, (text, least) in typed.items():
        cursor = text.index("a.c") + 3 if "a.c" in text else len(text)

        def first(text: str = text, cursor: int = cursor) -> int:
            _forget(lake)
            return len(completion.complete(text, cursor, CatalogNames().read(lake, {})).items)

        def after_commit(text: str = text, cursor: int = cursor) -> int:
            _forget(lake)
            kept._kept = None
            return len(completion.complete(text, cursor, kept.read(lake, {})).items)

        def again(text: str = text, cursor: int = cursor) -> int:
            return len(completion.complete(text, cursor, kept.read(lake, {})).items)

        assert first() == after_commit() == again() >= least, what
        seconds = rounds(repeats, first=first, commit=after_commit, again=again)
        report.add(f"{what}, first in a lake", median(seconds["first"]) * 1000, "ms", at_most=COMPLETION_MS)
        report.add(f"{what}, after a commit", median(seconds["commit"]) * 1000, "ms", at_most=COMPLETION_MS)
        report.add(f"{what}, snapshot unchanged", median(seconds["again"]) * 1000, "ms", at_most=COMPLETION_MS)


if __name__ == "__main__":
    main(measure)
