"""Rows that do not fit are set aside: into `<table>__rejects`, with where they stood, why, and their raw text."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa

from lakehouse.catalog.attach import ALIAS
from lakehouse.catalog.catalog import Catalog
from lakehouse.catalog.metadata import Relation
from lakehouse.catalog.names import exactly, literal, quote
from lakehouse.errors import IngestError
from lakehouse.ingest import exact, rejected
from lakehouse.ingest.jsonlines import JsonRecords, members
from lakehouse.ingest.land import Columns
from lakehouse.ingest.receipt import Target
from lakehouse.ingest.records import Layout, Records, Splitter

COLUMNS = {
    "id": "VARCHAR",
    "load": "VARCHAR",
    "source": "VARCHAR",
    "sha256": "VARCHAR",
    "line": "BIGINT",
    "field": "VARCHAR",
    "reason": "VARCHAR",
    "raw": "VARCHAR",
    "time": "TIMESTAMP WITH TIME ZONE",
    "layout": "VARCHAR",
}
"""The table of rejected rows. `id` names one, `load` is the same for all of one load; `line` counts from 1, or is
the number of the row where there are no lines; `field` is the first column that did not fit; `layout` says how to
read `raw` again."""

_STAGED = "lakehouse_staged"
_JUDGED = "lakehouse_judged"
_CANDIDATES = ("BIGINT", "DOUBLE", "BOOLEAN", "DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")
_SAMPLE = 20_480  # rows that decide a type, as many as DuckDB's sniffer reads

Run = Callable[[str], duckdb.DuckDBPyConnection]


@dataclass(frozen=True, slots=True)
class Staged:
    """Rows in a temporary table: `origin`, `line`, `raw`, `fault`, and the values as `c0`, `c1`."""

    columns: Columns
    """Names and types of the values, in order."""
    layout: Layout


def stage_records(connection: duckdb.DuckDBPyConnection, run: Run, records: Records | JsonRecords) -> Staged:
    """Stage every record of CSV files as text, of JSON files as JSON."""
    reader = pa.RecordBatchReader.from_batches(records.schema, records.batches())
    return _stage_texts(connection, run, reader, records.layout)


def stage_rows(run: Run, reading: str, columns: Columns, origin: str, layout: Layout) -> Staged:
    """Stage the rows that a FROM clause gives, with their types; the raw text is JSON."""
    values = ", ".join(f"r.{quote(name)} AS c{number}" for number, (name, _) in enumerate(columns))
    run(
        f"CREATE OR REPLACE TEMP TABLE {_STAGED} AS SELECT {literal(origin)} AS origin, row_number() OVER () AS line,"
        f" CAST(to_json(r) AS VARCHAR) AS raw, CAST(NULL AS VARCHAR) AS fault, {values} FROM {reading} r"
    )
    return Staged(columns, layout)


def stage_again(
    connection: duckdb.DuckDBPyConnection, run: Run, rows: Sequence[tuple[str, str | None]], layout: Layout
) -> Staged:
    """Stage rejected rows (id and raw text) once more; `origin` is their id."""
    splitter = Splitter(layout)
    split = splitter.split if layout.format == "csv" else partial(members, columns=layout.columns)
    records = [(id, raw or "", *split(raw or "")) for id, raw in rows]
    width = range(len(layout.columns))
    table = pa.table(
        [
            pa.array([record[0] for record in records], pa.string()),
            pa.array(range(len(records)), pa.int64()),
            pa.array([record[1] for record in records], pa.string()),
            pa.array([record[3] for record in records], pa.string()),
            *(pa.array([r[2][n] if r[2] is not None else None for r in records], pa.string()) for n in width),
        ],
        names=["origin", "line", "raw", "fault", *(f"c{number}" for number in width)],
    )
    return _stage_texts(connection, run, table, layout)


def _stage_texts(connection: duckdb.DuckDBPyConnection, run: Run, rows: object, layout: Layout) -> Staged:
    columns, kind = "*", "VARCHAR"
    if layout.format == "json":
        kind = "JSON"
        bad = f"CASE WHEN fault IS NULL AND NOT json_valid(raw) THEN {literal('the text is not JSON')} END"
        places = [f"c{number}" for number in range(len(layout.columns))]
        casts = ", ".join(
            f"CASE WHEN json_valid({place}) THEN CAST({place} AS JSON) END AS {place}" for place in places
        )
        columns = f"origin, line, raw, coalesce(fault, {bad}) AS fault, {casts}"
    connection.register("lakehouse_records", rows)
    try:
        run(f"CREATE OR REPLACE TEMP TABLE {_STAGED} AS SELECT {columns} FROM lakehouse_records")
    finally:
        connection.unregister("lakehouse_records")
    return Staged([(name, kind) for name in layout.columns], layout)


def infer(run: Run, staged: Staged, temp: Path) -> Columns:
    """Types for a new table: of each column the first type that all of its first values fit.

    Args:
        run: executes SQL.
        staged: the rows, of CSV or JSON files.
        temp: where a file may be made for a moment.
    """
    if staged.layout.format == "json":
        return _infer_json(run, staged, temp)
    tests = [
        f"bool_and({_fits(staged.layout, f'c{number}', kind)}) AND count(c{number}) > 0"
        for number in range(len(staged.columns))
        for kind in _CANDIDATES
    ]
    row = run(f"SELECT {', '.join(tests)} FROM (FROM {_STAGED} WHERE fault IS NULL LIMIT {_SAMPLE})").fetchone() or ()
    step = len(_CANDIDATES)
    found = []
    for number, (name, _) in enumerate(staged.columns):
        fits = row[number * step : (number + 1) * step]
        found.append((name, next((kind for kind, ok in zip(_CANDIDATES, fits, strict=True) if ok), "VARCHAR")))
    return found


def _infer_json(run: Run, staged: Staged, temp: Path) -> Columns:
    """What DuckDB's reader makes of the first good records."""
    rows = run(f"SELECT raw FROM {_STAGED} WHERE fault IS NULL ORDER BY line LIMIT {_SAMPLE}").fetchall()
    temp.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=temp, suffix=".json", encoding="utf-8") as file:
        file.writelines(" ".join(raw.split("\n")) + "\n" for (raw,) in rows)
        file.flush()
        reader = f"read_json({literal(exactly(file.name))}, sample_size = -1, format = 'newline_delimited')"
        found = {row[0]: row[1] for row in run(f"DESCRIBE FROM {reader}").fetchall()}
    return [(name, found.get(name, "VARCHAR")) for name, _ in staged.columns]


def judge(run: Run, staged: Staged, wanted: Columns, required: Iterable[str]) -> tuple[int, int, str]:
    """Decide of every staged row whether it fits.

    Args:
        run: executes SQL in the open transaction.
        staged: the rows.
        wanted: names and types of the table's columns that the rows have.
        required: lower-cased names of columns that must have a value.

    Returns:
        How many fit, how many do not, and the FROM clause that reads those that do.
    """
    places = {name.lower(): (f"c{number}", kind) for number, (name, kind) in enumerate(staged.columns)}
    needed = set(required)
    fields, reasons, values = [], [], []
    for number, (name, kind) in enumerate(wanted):
        column, given = places[name.lower()]
        value, misfit = _value(staged.layout, column, given, kind)
        values.append(f"CASE WHEN fault IS NULL THEN {value} END AS v{number}")
        text = exact.plain_text(column) if given == "JSON" else f"CAST({column} AS VARCHAR)"
        shown = f"left({text}, 100)"
        says = f"'the value ' || {shown} || {literal(f' does not fit {kind}')}"
        cases = [(misfit, says)]
        if name.lower() in needed:
            cases.append((f"{column} IS NULL", literal("there is no value, and the column needs one")))
        for test, reason in cases:
            reasons.append(f"WHEN {test} THEN {reason}")
            fields.append(f"WHEN {test} THEN {literal(name)}")
    run(
        f"CREATE OR REPLACE TEMP TABLE {_JUDGED} AS SELECT origin, line, raw,"
        f" CASE WHEN fault IS NOT NULL THEN fault {' '.join(reasons)} END AS reason,"
        f" CASE WHEN fault IS NOT NULL THEN NULL {' '.join(fields)} END AS field, {', '.join(values)} FROM {_STAGED}"
    )
    row = run(f"SELECT count(*) FILTER (reason IS NULL), count(reason) FROM {_JUDGED}").fetchone()
    assert row is not None
    names = ", ".join(f"v{number} AS {quote(name)}" for number, (name, _) in enumerate(wanted))
    return int(row[0]), int(row[1]), f"(SELECT {names} FROM temp.main.{_JUDGED} WHERE reason IS NULL)"


def keep(run: Run, catalog: Catalog, target: Target, layout: Layout, digest: str) -> None:
    """Write the rows that did not fit into the table of rejects, which is made when missing."""
    table = quote(ALIAS, target.schema, target.rejects)
    if not renamed(run, catalog, target):
        run(f"CREATE TABLE {table} ({', '.join(f'{quote(name)} {kind}' for name, kind in COLUMNS.items())})")
    load = uuid.uuid4().hex[:12]
    described = literal(msgspec.json.encode(layout).decode())
    run(
        f"INSERT INTO {table} SELECT '{load}-' || row_number() OVER (), '{load}', origin, {literal(digest)}, line,"
        f" field, reason, raw, now(), {described} FROM temp.main.{_JUDGED} WHERE reason IS NOT NULL"
    )


def settle(run: Run, target: Target) -> None:
    """After a retry: take out the rows that fitted, and say of the others why they still do not."""
    table = quote(ALIAS, target.schema, target.rejects)
    run(f"DELETE FROM {table} WHERE id IN (SELECT origin FROM temp.main.{_JUDGED} WHERE reason IS NULL)")
    run(
        f"UPDATE {table} t SET reason = j.reason, field = j.field FROM temp.main.{_JUDGED} j WHERE j.origin = t.id"
        " AND j.reason IS NOT NULL AND (t.reason, t.field) IS DISTINCT FROM (j.reason, j.field)"
    )


def clear(run: Run) -> None:
    """Remove the temporary tables."""
    run(f"DROP TABLE IF EXISTS temp.main.{_STAGED}")
    run(f"DROP TABLE IF EXISTS temp.main.{_JUDGED}")


def find(catalog: Catalog, target: Target) -> Relation | None:
    """The table of rejects, if there is one; it may still be called after an earlier name of its table.

    Raises:
        IngestError: there is another table of that name.
    """
    relation = rejected.of(catalog, target.schema, target.name)
    if relation is None:
        return None
    if relation.kind != "table" or not set(COLUMNS) <= {name for name, _ in catalog.describe(relation)}:
        raise IngestError(
            f"{relation.name} is there already and is no table of rejected rows", hint="rename or drop it first"
        )
    return relation


def renamed(run: Run, catalog: Catalog, target: Target) -> bool:
    """Let rejects be called after what their tables are called now; whether this table has any.

    Raises:
        IngestError: a name is taken.
    """
    found, moves, name = find(catalog, target), dict[int, tuple[Relation, str]](), target.name
    while (other := rejected.misplaced(catalog, target.schema, name)) is not None and other[0].id not in moves:
        name = other[1].name  # whose own rejects may be in the way in turn
        moves[other[0].id] = (other[0], name + rejected.REJECTS)
    if found is not None and found.name.lower() != target.rejects.lower():
        moves[found.id] = (found, target.rejects)
    _rename(run, catalog, list(moves.values()))
    return found is not None


def _rename(run: Run, catalog: Catalog, moves: list[tuple[Relation, str]]) -> None:
    """By way of names that nobody has: tables may have exchanged theirs."""
    there = catalog.metadata.relations(catalog.metadata.current())
    for relation, name in moves:
        taken = there.get((relation.schema.lower(), name.lower()))
        if taken is not None and taken.id not in {moved.id for moved, _ in moves}:
            raise IngestError(
                f"{relation.name} should be called {name} as its table is, and another table has that name",
                hint="rename or drop one of them",
            )
    between = [f"__{uuid.uuid4().hex}" for _ in moves]
    for (relation, _), name in zip(moves, between, strict=True):
        run(f"ALTER TABLE {quote(ALIAS, relation.schema, relation.name)} RENAME TO {quote(name)}")
    for (relation, name), old in zip(moves, between, strict=True):
        run(f"ALTER TABLE {quote(ALIAS, relation.schema, old)} RENAME TO {quote(name)}")


def _value(layout: Layout, column: str, given: str, wanted: str) -> tuple[str, str]:
    """SQL of a staged value as another type, and of whether it does not fit; formats as the layout says."""
    if given != "VARCHAR" or layout.format != "csv":
        return exact.fitting(column, given, wanted)
    form = {"DATE": layout.date_format}.get(wanted, layout.time_format if wanted.startswith("TIMESTAMP") else None)
    if form:
        parsed = f"TRY_CAST(try_strptime({column}, {literal(form)}) AS {wanted})"
        plain, misfit = exact.fitting(column, given, wanted)
        value = f"coalesce({parsed}, {plain})"
        return value, f"({value} IS NULL AND {column} IS NOT NULL OR ({parsed} IS NULL AND {misfit}))"
    if exact.number(wanted) and (layout.thousands or layout.decimal != "."):
        bare = f"replace({column}, {literal(layout.thousands)}, '')" if layout.thousands else column
        column = f"replace({bare}, {literal(layout.decimal)}, '.')" if layout.decimal != "." else bare
    return exact.fitting(column, given, wanted)


def _fits(layout: Layout, column: str, kind: str) -> str:
    if kind == "BOOLEAN":
        return f"lower({column}) IN ('true', 'false')"  # a cast takes y, n, t and f as well
    fits = f"NOT {_value(layout, column, 'VARCHAR', kind)[1]}"
    if kind in ("BIGINT", "DOUBLE"):  # 007 is a code, not a number; so says DuckDB's sniffer, too
        fits += f" AND NOT regexp_matches({column}, '^\\s*[+-]?0[0-9]')"
    return fits
