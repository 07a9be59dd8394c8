"""Statements that nobody wrote, against the gate alone and against the worker alone.

A grammar makes them: legal SQL of many forms, with something that must not be reached put into a random place, and then
often mangled: a token dropped, doubled, quoted, or a comment, a semicolon or an odd space put in. The gate must let none
pass that reads, tells or opens anything, and must answer each with an error of ours. The worker with the gate off must
hold all that a DuckDB of its own runs: the secret never comes out, and nothing is written.

Shared by a short run in the tests and a long one in benchmarks/sandbox_fuzz.py.
"""

from __future__ import annotations

import random
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import duckdb

import lakehouse
from lakehouse.errors import LakehouseError
from lakehouse.query.gate import Gate, Named, Names
from lakehouse.query.sandbox.pool import Pool
from lakehouse.query.sandbox.sandbox import Sandbox

SECRET = "the secret of the house"
TABLES = ("orders", "customers")
NAMES = Names({("main", name): Named("main", name) for name in TABLES}, {"main": "main"})

# What must not be reached: table functions, functions of a value, tables.
BAD_TABLES = (
    "read_text('{f}')", "read_csv('{f}')", "read_blob(['{f}'])", "glob('{d}/*')", "query('FROM orders')",
    "query_table('orders')", "duckdb_settings()", "duckdb_secrets()", "pragma_version()", "sqlite_scan('{f}', 't')",
    "'{f}'", '"{f}"', "__ducklake_metadata_lake.main.ducklake_table", "information_schema.tables", "memory.main.x",
    "enable_logging()", "checkpoint()", "json_execute_serialized_sql('x')", "ducklake_snapshots('lake')",
    "system.main.read_text('{f}')", "(SHOW ALL TABLES)", "parquet_metadata('{f}')", "lake.table_changes('orders', 0, 9)",
    "(PIVOT orders ON id IN (FROM read_text('{f}')))", "(PIVOT orders ON id IN (SELECT 1 FROM {t}), name)",
    '(WITH RECURSIVE "{f}" AS (SELECT 1 AS a UNION ALL SELECT a FROM (PIVOT "{f}" ON a)) FROM "{f}")',
    "(WITH c AS (SELECT 1 AS a) PIVOT orders ON id IN (FROM c))", "lake.table_changes('{f}', 0, 0)",
)  # fmt: skip
BAD_VALUES = (
    "getvariable('x')", "current_setting('home_directory')", "nextval('s')", "write_log('x')", "getenv('HOME')",
    "main.current_setting('threads')", "json_serialize_plan('SELECT 1')", "pg_sleep(1)", "list_aggregate([1], 'getvariable')",
    "a.finalize()", "x::nowhere.t", "name COLLATE nowhere", "(SELECT content FROM {t})", "EXISTS (FROM {t})",
    "1 IN (SELECT 1 FROM {t})",
)  # fmt: skip
GOOD_VALUES = (
    "1", "'x'", "id", "o.amount", "NULL", "$1", "?", "upper('x')", "id + 1", "-amount", "[1, 2]", "{{'a': 1}}", "now()",
    "count(*)", "sum(id) OVER ()", "CASE WHEN {v} THEN {v} END", "{v}::VARCHAR", "coalesce({v}, {v})", "({v})",
    "list_transform([1], lambda x: {v})", "{v} IN ({v}, {v})", "{v} AND NOT {v}", "{v} BETWEEN {v} AND {v}", "abs({v})",
    "(SELECT {v} FROM {s})", "EXISTS (SELECT {v} FROM {s})", "[x FOR x IN [{v}] IF {v}]", "{v} -> '$.a'", "date '2026-01-01'",
    "sum({v}) FILTER (WHERE {v})", "'it''s; -- /*'", "e'\\'; --'", "$$; DROP$$", "name.upper()", "row({v}, {v})",
)  # fmt: skip
GOOD_TABLES = (
    "orders", "orders o", "main.orders AS o", "lake.main.customers", "range(3)", "(SELECT {v} FROM {s})", "(VALUES ({v}))",
    "{s} JOIN {s} ON {v}", "{s}, {s}", "{s} LEFT JOIN {s} USING (id)", "unnest([{v}])", "(PIVOT orders ON id IN (1) USING sum({v}))",
    "(PIVOT orders ON id IN (SELECT {v} FROM {s}) USING max({v}))", "lake.table_changes('orders', 0, 0)",
    "(PIVOT {s} ON name)", "{s} TABLESAMPLE 10%", "(WITH c AS (SELECT {v} FROM {s}) FROM c)", "(FROM {s} UNION ALL FROM {s})",
)  # fmt: skip
READS = (
    "SELECT {v} FROM {s}", "FROM {s}", "SELECT {v}, {v} FROM {s} WHERE {v} GROUP BY {v} HAVING {v} ORDER BY {v} LIMIT 3",
    "WITH c AS (SELECT {v} FROM {s}) SELECT {v} FROM c", "VALUES ({v}, {v})", "DESCRIBE SELECT {v} FROM {s}",
    "EXPLAIN ANALYZE SELECT {v} FROM {s}", "SELECT DISTINCT ON ({v}) {v} FROM {s} QUALIFY {v}", "SUMMARIZE FROM {s}",
    "WITH RECURSIVE r AS (SELECT {v} UNION ALL SELECT {v} FROM r, {s}) FROM r", "PIVOT {s} ON {v} USING max({v})",
    "SELECT * REPLACE ({v} AS id) FROM {s}", "SELECT {v} UNION SELECT {v} FROM {s}", "SELECT {v} FROM {s} AT (VERSION => {v})",
)  # fmt: skip
WRITES = (
    "INSERT INTO orders SELECT {v} FROM {s}", "INSERT INTO orders (id) VALUES ({v}), (DEFAULT)", "DELETE FROM orders WHERE {v}",
    "UPDATE orders o SET id = {v}, name = {v} FROM {s} WHERE {v}", "DELETE FROM orders USING {s} WHERE {v}",
    "MERGE INTO orders USING {s} ON {v} WHEN MATCHED AND {v} THEN UPDATE SET id = {v} WHEN NOT MATCHED THEN INSERT VALUES ({v})",
    "CREATE TABLE z AS SELECT {v} FROM {s}", "CREATE TABLE z (a INT DEFAULT {v}, b VARCHAR)", "CREATE VIEW z AS FROM {s}",
    "ALTER TABLE orders ADD COLUMN z INT DEFAULT {v}", "ALTER TABLE orders SET PARTITIONED BY ({v})",
    "WITH c AS (FROM {s}) INSERT INTO orders FROM c", "COMMENT ON TABLE orders IS {v}", "TRUNCATE orders", "DROP TABLE orders",
    "CREATE OR REPLACE TABLE z AS (SELECT {v} FROM {s})", "UPDATE orders SET (id, name) = ({v}, {v})",
)  # fmt: skip
OTHERS = (
    "SET threads = 1", "PRAGMA version", "ATTACH '{f}' AS z", "COPY orders TO '{d}/out.csv'", "COPY (SELECT {v}) TO '{d}/out'",
    "INSTALL httpfs", "LOAD httpfs", "CALL pragma_version()", "EXPORT DATABASE '{d}/out'", "CREATE MACRO count(x) AS {v}",
    "USE memory", "DETACH lake", "CHECKPOINT", "PREPARE p AS SELECT {v}", "EXPLAIN ANALYZE DELETE FROM orders", "VACUUM",
    "CREATE TEMP TABLE z AS SELECT {v}", "CREATE SECRET s (TYPE s3)", "RESET ALL", "BEGIN", "CREATE TYPE t AS ENUM ('a')",
)  # fmt: skip
_HOLE = re.compile(r"\{(\w)\}")
_TOKEN = re.compile(r"\s+|\w+|'[^']*'|.", re.S)
_ODD = (" ", "\n", "\u00a0", "/* x */", "-- x\n", ";", "; DROP TABLE orders", "/*", "'", '"', "$$", "(", ")", "\\", "\u200b",
        "/* /* */", "*/", ",", " end ", " case ", "::", ".", "\uff1b", " UNION FROM duckdb_settings() ")  # fmt: skip


class Maker:
    """Makes statements; the same seed makes the same.

    Args:
        seed: of the random numbers.
        folder: where the file with the secret is.
    """

    def __init__(self, seed: int, folder: str) -> None:
        self.random = random.Random(seed)
        self._folder = folder

    def statement(self, kind: str, *, bad: bool) -> str:
        """One of `READS`, `WRITES` or `OTHERS`, with something bad in it or not."""
        forms = {"read": READS, "write": WRITES, "other": OTHERS}[kind]
        form = self.random.choice([form for form in forms if not bad or _HOLE.search(form)])
        return self._filled(form, 3, bad=bad)

    def mangled(self, sql: str) -> str:
        """The statement with a few of its tokens changed."""
        tokens = _TOKEN.findall(sql)
        for _ in range(self.random.randint(1, 3)):
            at = self.random.randrange(len(tokens))
            match self.random.randrange(6):
                case 0:
                    del tokens[at]
                case 1:
                    tokens.insert(at, tokens[at])
                case 2:
                    tokens[at] = f'"{tokens[at]}"'
                case 3:
                    tokens[at] = self.random.choice((str.upper, str.title, str.swapcase))(tokens[at])
                case _:
                    tokens.insert(at, self.random.choice(_ODD))
            tokens = tokens or [";"]
        return "".join(tokens)

    def _filled(self, form: str, depth: int, *, bad: bool) -> str:
        holes = [match for match in _HOLE.finditer(form) if match[1] in "vst"]
        chosen = self.random.randrange(len(holes)) if bad and holes else -1
        seen = -1

        def put(match: re.Match[str]) -> str:
            nonlocal seen
            if match[1] in "fd":
                return f"{self._folder}/secret.csv" if match[1] == "f" else self._folder
            seen += 1
            return self._part(match[1], depth - 1, bad=seen == chosen)

        return _HOLE.sub(put, form).replace("{{", "{").replace("}}", "}")

    def _part(self, kind: str, depth: int, *, bad: bool) -> str:
        good = GOOD_VALUES if kind == "v" else GOOD_TABLES
        deeper = [form for form in good if _HOLE.search(form)]
        if bad and (depth <= 0 or self.random.random() < 0.4):
            return self._filled(self.random.choice(BAD_VALUES if kind == "v" else BAD_TABLES), depth, bad=True)
        if bad:
            return self._filled(self.random.choice(deeper), depth, bad=True)
        if kind == "t":
            return self._filled(self.random.choice(BAD_TABLES), depth, bad=True)
        return self._filled(
            self.random.choice(good if depth > 0 else [f for f in good if f not in deeper]), depth, bad=False
        )


def gate_alone(count: int, seed: int = 0) -> Counter[str]:
    """Try statements on the gate; what it said, counted.

    Raises:
        AssertionError: it let something pass that it must not, or answered with an error that is none of ours.
    """
    maker, said = Maker(seed, "/nowhere"), Counter[str]()
    with duckdb.connect(config={"threads": 1}) as parser, duckdb.connect(config={"threads": 1}) as judge:
        gate = Gate(parser, NAMES)
        before = parser.execute("FROM duckdb_settings()").fetchall()
        for _ in range(count):
            kind = maker.random.choice(("read", "write", "write", "other"))
            bad = maker.random.random() < 0.6
            sql = maker.statement(kind, bad=bad and kind != "other")
            whole = maker.random.random() < 0.5
            sql = sql if whole else maker.mangled(sql)
            door = maker.random.choice(("read", "write")) if kind == "other" or not whole else kind
            try:
                passed = getattr(gate, door)(sql)
            except LakehouseError as error:
                said[error.code] += 1
                continue
            said["passed"] += 1
            assert not (whole and (bad or kind == "other")), f"the gate let pass: {sql!r}"
            parsed = judge.extract_statements(passed.sql)
            kinds = [str(one.type).rsplit(".", 1)[-1] for one in parsed]
            wanted = (
                ("SELECT", "EXPLAIN")
                if door == "read"
                else ("INSERT", "UPDATE", "DELETE", "MERGE_INTO", "CREATE", "ALTER", "DROP")
            )
            assert kinds[-1] in wanted or "TRANSACTION" in kinds, f"the gate let pass {kinds}: {sql!r}"
            assert not _named(judge, passed.sql) - {"orders", "customers", "z"}, f"the gate let pass: {sql!r}"
        assert parser.execute("FROM duckdb_settings()").fetchall() == before, "a setting of the parser has changed"
    return said


def _named(judge: duckdb.DuckDBPyConnection, sql: str) -> set[str]:
    """The tables that DuckDB itself finds in a statement, by their last part."""
    try:
        return {name.rsplit(".", 1)[-1].lower() for name in judge.get_table_names(sql)}
    except duckdb.Error:
        return set()


class _Forgiving(Pool):
    """Keeps a worker after an error, so that what one statement has set up is there for the next."""

    def release(self, worker, *, clean):
        try:
            worker.process.wait(timeout=0 if clean else 0.05)
        except subprocess.TimeoutExpired:
            clean = True
        super().release(worker, clean=clean)


def worker_alone(count: int, seed: int = 0) -> Counter[str]:
    """Try statements on a worker that has no gate; how they ended, counted.

    Raises:
        AssertionError: the secret came out, or something was written that must not be.
    """
    ended = Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "secret.csv").write_text(f"word\n{SECRET}\n")
        with lakehouse.open(folder / "lake") as lake:
            for table in TABLES:
                lake.sql(
                    f"CREATE TABLE {table} AS SELECT range AS id, range * 1.5 AS amount, 'x' AS name FROM range(20)"
                )
            before, snapshot = sorted(p.name for p in folder.iterdir()), lake.catalog.metadata.current()
            pool = _Forgiving(lake.path, lake.settings, read_only=False, entry="ungated")
            try:
                sandbox, maker = Sandbox(pool, "stranger", lake.settings, lake.catalog), Maker(seed, name)
                for _ in range(count):
                    kind = maker.random.choice(("read", "read", "write", "other"))
                    sql = maker.statement(kind, bad=kind != "other")
                    try:
                        rows = str(sandbox.sql(sql, timeout=3).arrow().to_pylist())
                        ended["answered"] += 1
                    except LakehouseError as error:
                        rows = str(error)
                        ended[error.code] += 1
                    assert SECRET not in rows, f"the secret came out: {sql!r}"
                    assert sorted(p.name for p in folder.iterdir()) == before, f"something was written: {sql!r}"
                    assert lake.catalog.metadata.current() == snapshot, f"the lake was changed: {sql!r}"
            finally:
                pool.close()
    return ended
