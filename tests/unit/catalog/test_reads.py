"""What a statement writes and reads, from its text alone."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lakehouse.catalog.lineage import reads

RAW = {"raw"}


def read(sql):
    found = reads.uses(sql)
    return None if found is None else {named.name for use in found for named in use.sources}


@pytest.mark.parametrize(
    ("sql", "operation", "expected"),
    [
        ("CREATE OR REPLACE TABLE t AS FROM raw", "create", RAW),
        ("create table if not exists t as (select * from raw)", "create", RAW),
        ("CREATE TABLE t AS PIVOT raw ON b USING sum(a)", "create", RAW),
        ("CREATE TABLE t AS TABLE raw", "create", RAW),
        ("CREATE VIEW v (x) AS SELECT a FROM raw", "view", RAW),
        ("INSERT INTO t BY NAME FROM raw", "insert", RAW),
        ("INSERT OR REPLACE INTO t SELECT * EXCLUDE (a) FROM raw ON CONFLICT DO NOTHING", "insert", RAW),
        ("INSERT INTO t VALUES ((SELECT max(a) FROM raw), 2)", "insert", RAW),
        ("INSERT INTO t VALUES (E'it\\'s', (SELECT max(a) FROM raw), 'x')", "insert", RAW),
        ("INSERT INTO t VALUES (1 /* it's */, (SELECT max(a) FROM raw) /* ' */)", "insert", RAW),
        ('UPDATE t SET "it\'s" = (FROM raw), "that\'s" = 1', "update", RAW),
        ("WITH x AS (SELECT * FROM raw) INSERT INTO t SELECT * FROM x", "insert", RAW),
        ("INSERT INTO t WITH RECURSIVE x AS (FROM raw UNION ALL FROM x) FROM x", "insert", RAW),
        ("INSERT INTO t SELECT (WITH x AS (FROM raw) SELECT max(a) FROM x) FROM x", "insert", {"raw", "x"}),
        ("INSERT INTO t SELECT * FROM t", "insert", {"t"}),
        ("UPDATE t SET a = raw.a FROM raw WHERE raw.b = t.b", "update", RAW),
        ("UPDATE t SET a = (SELECT max(a) FROM raw)", "update", RAW),
        ("DELETE FROM t USING raw WHERE raw.b = t.b", "delete", RAW),
        ("DELETE FROM t WHERE a IN (FROM raw)", "delete", RAW),
        ("MERGE INTO t USING raw ON t.a = raw.a WHEN MATCHED THEN DELETE", "merge", RAW),
        ("COPY t FROM 'a.csv' (HEADER)", "copy", {"a.csv"}),
        ("INSERT INTO t SELECT * FROM read_parquet(['a.parquet', 'b.parquet'])", "insert", {"a.parquet", "b.parquet"}),
        ("INSERT INTO t SELECT * FROM read_csv($path)", "insert", {"$path"}),
        ("INSERT INTO t SELECT * FROM lake.table_changes('raw', 1, 2)", "insert", RAW),
        ("INSERT INTO t SELECT * FROM query_table('raw')", "insert", RAW),
        ("INSERT INTO t SELECT * FROM a ASOF JOIN b ON a.t >= b.t, LATERAL (FROM c)", "insert", {"a", "b", "c"}),
        ("INSERT INTO t SELECT x FROM range(3) r(x), unnest([1]) u, (VALUES (1)) v", "insert", set()),
        ("INSERT INTO t SELECT * FROM my_macro(1)", "insert", {"my_macro(1)"}),
    ],
)
def test_sources(sql, operation, expected):
    (use,) = reads.uses(sql)
    assert use.operation == operation
    assert {named.name for named in use.sources} == expected
    assert use.target.name in ("t", "v")


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (1, 'select from raw')",
        '-- first\nINSERT INTO "a b".t (a, b) VALUES (1, 2);',
        "/* x */ UPDATE t SET a = 1 WHERE b = 'from'",
        "DELETE FROM t WHERE a = 1",
        "CREATE TABLE t (a INT, b VARCHAR)",
        "ALTER TABLE t RENAME TO u",
        "DROP TABLE t",
        "COMMENT ON TABLE t IS 'from raw'",
        "SELECT * FROM raw",
    ],
)
def test_what_reads_nothing_for_a_table(sql):
    assert read(sql) == set()


@pytest.mark.parametrize(
    "sql", ["EXECUTE p(1)", "CALL lake.merge_adjacent_files()", "INSERT INTO t SELECT * FROM (SHOW ALL TABLES)", "%"]
)
def test_what_is_not_understood(sql):
    assert reads.uses(sql) is None


def test_a_huge_or_deep_statement_is_given_up_at_once():
    assert reads.uses("INSERT INTO t SELECT " + "+".join(["a"] * 5000) + " FROM raw") is None
    assert reads.uses("INSERT INTO t SELECT '" + "a" * 30_000 + "' FROM raw") is None
    assert read("INSERT INTO t VALUES ('" + "-- from " * 30_000 + "')") == set()


def test_time_travel_and_names():
    (use,) = reads.uses('CREATE TEMP TABLE t AS SELECT * FROM lake.s."R 1" x AT (VERSION => 3)')
    assert use.temporary
    (named,) = use.sources
    assert (named.catalog, named.schema, named.name, named.at) == ("lake", "s", "R 1", "3")
    (use,) = reads.uses("INSERT INTO t SELECT * FROM raw AT (TIMESTAMP => TIMESTAMP '2026-01-01')")
    assert use.sources[0].at == "2026-01-01"


def test_a_script_is_several():
    found = reads.uses("CREATE TABLE a AS FROM raw;\nINSERT INTO b SELECT * FROM a; DROP TABLE c")
    assert [(use.operation, use.target.name) for use in found] == [("create", "a"), ("insert", "b")]


@given(
    st.text(alphabet="()'\";*-/$ abt1,=", max_size=60),
    st.sampled_from(["INSERT INTO t ", "UPDATE t SET ", "", "CREATE TABLE t AS "]),
)
@example("'" * 20_001, "INSERT INTO t VALUES (")
@example("\x00", "")
def test_no_text_makes_it_fail(text, start):
    found = reads.uses(start + text)
    assert found is None or all(isinstance(use, reads.Use) for use in found)
