"""Where statements end, what each does, and what a SELECT refers to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.errors import SyntaxFault
from lakehouse.query.statements import Parser, split


@pytest.fixture(scope="module")
def parser():
    made = Parser()
    yield made
    made.close()


def test_semicolons_in_strings_names_and_comments_end_nothing():
    script = """SELECT 'ä;b' ; -- x;y
    INSERT INTO "t;q" VALUES ($a, $$x;y$$) /* ; */; ; FROM t"""
    pieces = split(script)
    assert [piece.split()[0] for piece in pieces] == ["SELECT", "--", "FROM"]


@given(
    st.lists(
        st.sampled_from(["SELECT 1", "SELECT ';'", 'SELECT 1 AS "a;b"', "SELECT $$;$$ -- ;\n", "/* ; */ SELECT 2"])
    )
)
def test_split_gives_back_the_statements_that_were_joined(pieces):
    assert [piece.strip() for piece in split(";".join(pieces))] == [piece.strip() for piece in pieces]


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT 1", "read"),
        ("FROM t", "read"),
        ("WITH x AS (SELECT 1) FROM x", "read"),
        ("VALUES (1)", "read"),
        ("DESCRIBE t", "read"),
        ("SUMMARIZE t", "read"),
        ("PIVOT t ON i", "read"),
        ("SHOW TABLES", "read"),
        ("EXPLAIN SELECT 1", "read"),
        ("EXPLAIN ANALYZE SELECT 1", "read"),
        ("EXPLAIN (ANALYZE, FORMAT json) SELECT 1", "read"),
        ("EXPLAIN INSERT INTO t VALUES (1)", "read"),
        ("COPY t TO 'x.csv'", "read"),
        ("COPY (SELECT 1) TO 'x.csv'", "read"),
        ("COPY t (a, b) TO 'x.csv'", "read"),
        ("COPY t FROM 'x.csv'", "write"),
        ("COPY t (a, b) FROM 'x.csv'", "write"),
        ("EXPLAIN ANALYZE INSERT INTO t VALUES (1)", "write"),
        ("INSERT INTO t VALUES (1)", "write"),
        ("WITH x AS (SELECT 1) INSERT INTO t FROM x", "write"),
        ("UPDATE t SET i = 1", "write"),
        ("DELETE FROM t", "write"),
        ("TRUNCATE t", "write"),
        ("MERGE INTO t USING u ON t.i = u.i WHEN MATCHED THEN DELETE", "write"),
        ("CALL ducklake_merge_adjacent_files('lake')", "write"),
        ("SELECT * FROM ducklake_expire_snapshots('lake', versions => [1])", "write"),
        ("CHECKPOINT", "write"),
        ("CALL lake.snapshots()", "session"),
        ("CREATE TABLE t (i INT)", "ddl"),
        ("CREATE OR REPLACE VIEW v AS SELECT 1", "ddl"),
        ("DROP TABLE t", "ddl"),
        ("ALTER TABLE t ADD COLUMN k INT", "ddl"),
        ("COMMENT ON TABLE t IS 'x'", "ddl"),
        ("CREATE TEMP TABLE t (i INT)", "session"),
        ("CREATE OR REPLACE TEMPORARY TABLE t (i INT)", "session"),
        ("SET threads = 2", "session"),
        ("USE memory", "session"),
        ("ATTACH ':memory:' AS x", "session"),
        ("BEGIN", "transaction"),
        ("ROLLBACK", "transaction"),
    ],
)
def test_each_statement_is_classified(parser, sql, kind):
    (statement,) = parser.parse(f"/* first; */ -- then\n {sql}")
    assert statement.kind == kind


def test_a_syntax_error_anywhere_runs_nothing_and_points_at_the_place(parser):
    with pytest.raises(SyntaxFault) as caught:
        parser.parse("SELECT 1; SELECT * FRM x")
    assert "^" in caught.value.message
    assert '"x"' in caught.value.message


@pytest.mark.parametrize("sql", ["", "   ", ";;", "-- nothing\n", "/* nothing */"])
def test_nothing_to_run_is_said(parser, sql):
    with pytest.raises(SyntaxFault, match="no SQL statement"):
        parser.parse(sql)


def test_parameters_are_named(parser):
    (statement,) = parser.parse("SELECT $a, $b, '$c'")
    assert statement.parameters == {"a", "b"}


def test_shape_names_tables_functions_and_columns(parser):
    shape = parser.inspect(
        "WITH c AS (SELECT Max(x) AS m FROM lake.main.t) SELECT m, (SELECT count(*) FROM s.u) FROM c JOIN v USING (id)"
    )
    assert shape.tables == {("lake", "main", "t"), ("", "s", "u"), ("", "", "v")}
    assert {"max", "count_star"} & shape.functions
    assert {"x", "m"} <= shape.columns
    assert shape.plain


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT current_date",
        "SELECT * FROM t USING SAMPLE 10",
        "FROM read_csv('x.csv')",
        "FROM range(3)",
        "DESCRIBE t",
        "SELECT * FROM t AT (VERSION => 3)",
    ],
)
def test_what_depends_on_more_than_the_snapshot_is_not_plain(parser, sql):
    shape = parser.inspect(sql)
    assert shape is None or not shape.plain


def test_only_selects_have_a_shape(parser):
    assert parser.inspect("INSERT INTO t VALUES (1)") is None
    assert parser.inspect("SELECT 1; SELECT 2") is None
