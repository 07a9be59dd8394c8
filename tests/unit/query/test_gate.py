"""The gate for SQL from strangers: every function is classed, what passes is written anew, and errors say where."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import duckdb
import pytest

from lakehouse.errors import LakehouseError, SqlRefused, SyntaxFault, TableNotFound
from lakehouse.query.gate import Gate, Named, Names
from lakehouse.query.gate.functions import functions, read
from lakehouse.query.gate.walk import Walk

ROOT = Path(__file__).parents[3]
TABLES = ("orders", "customers", "x.csv")


@pytest.fixture(scope="module")
def gate():
    named = {("main", name): Named("main", name) for name in TABLES}
    named["main", "recent"] = Named("main", "recent", "SELECT * FROM orders")
    named["main", "leak"] = Named("main", "leak", "SELECT 1,\n read_text('/etc/passwd')")
    named["main", "loop"] = Named("main", "loop", "SELECT * FROM loop2")
    named["main", "loop2"] = Named("main", "loop2", "SELECT * FROM loop")
    named["stage", "raw"] = Named("stage", "raw")
    macros = {"twice": ("SELECT x * 2",), "peek": ("SELECT getvariable(x)",), "count": ("SELECT x",)}
    with duckdb.connect(config={"threads": 1}) as parser:
        yield Gate(parser, Names(named, {"main": "main", "stage": "stage"}, macros))


def refused(call, sql):
    with pytest.raises(SqlRefused) as caught:
        call(sql)
    return caught.value.message


# The allow-list


@pytest.fixture(scope="module")
def classify():
    spec = importlib.util.spec_from_file_location("classify_functions", ROOT / "scripts" / "classify_functions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_function_of_this_duckdb_is_classed_once(classify):
    sections = read(classify.FILE.read_text())
    listed = [(section.space, name) for section in sections for name in section.names]
    installed = {(space, name) for space, names in classify.installed().items() for name in names}
    assert installed - set(listed) == set(), "run scripts/classify_functions.py and class them by hand"
    assert set(listed) - installed == set(), "run scripts/classify_functions.py: DuckDB has these no more"
    assert len(listed) == len(set(listed))
    assert all(section.about for section in sections if not section.allowed)


def test_what_nobody_classed_is_refused(classify, tmp_path, monkeypatch):
    lines = classify.FILE.read_text()
    for name in ("levenshtein", "json_each"):
        assert f" {name} " in lines
        lines = lines.replace(f" {name} ", " ")
    (tmp_path / "functions.txt").write_text(lines)
    monkeypatch.setattr(classify, "FILE", tmp_path / "functions.txt")
    assert classify.main() == 1
    text = (tmp_path / "functions.txt").read_text()
    assert "[expression unclassed]\nlevenshtein\n" in text
    assert "[table unclassed]\njson_each\n" in text
    sections = read(text)
    assert not any(section.allowed and "levenshtein" in section.names for section in sections)


def test_nothing_that_reads_or_tells_is_allowed():
    allowed = functions().allowed
    for word in ("read_", "scan", "glob", "duckdb_", "pragma_", "query", "secret", "setting", "ducklake", "sqlite"):
        assert not [name for name in allowed["table"] | allowed["expression"] if word in name], word


def test_all_kinds_of_names_have_a_method_that_looks_at_them():
    from lakehouse.query.gate import nodes

    tables = [*nodes.QUERIES.values(), *nodes.MODIFIERS.values(), *nodes.TABLES.values(), *nodes.EXPRESSIONS.values()]
    tables += [*nodes.TYPES.values(), nodes.STATEMENT, nodes.WITH, nodes.CTE, nodes.ORDER, nodes.SAMPLE, nodes.AT]
    tables += [nodes.PIVOT_COLUMN, nodes.PIVOT_ENTRY, nodes.REPLACE, nodes.WHEN, nodes.CONSTANT, nodes.TYPE]
    checks = {check for table in [*tables, nodes.CHILD_TYPE, nodes.CALL] for check in table.values() if check}
    assert all(callable(getattr(Walk, f"_{check}")) for check in checks)


# Reads


def test_a_read_runs_as_it_came_and_names_its_tables(gate):
    passed = gate.read("SELECT * FROM Recent -- all\n")
    assert (passed.kind, passed.tables) == ("read", (("main", "recent"), ("main", "orders")))
    assert passed.sql == "SELECT * FROM Recent -- all\n"
    assert gate.read('FROM "x.csv"').tables == (("main", "x.csv"),)
    assert gate.read("explain /* why */ analyze FROM lake.stage.raw").sql == "EXPLAIN ANALYZE FROM lake.stage.raw"


def test_a_refusal_says_what_and_where(gate):
    assert refused(gate.read, "SELECT 1,\n  read_text('x')").endswith("(line 2, column 3)")
    assert "it reads files (line 1, column 15)" in refused(gate.read, "SELECT * FROM read_csv('x')")
    assert refused(gate.read, "SELECT 'é', getvariable('é')").endswith("(line 1, column 13)")
    assert refused(gate.read, "EXPLAIN SELECT getvariable('x')").endswith("(line 1, column 16)")
    assert refused(gate.read, "PIVOT orders ON a USING max(getvariable(b))").endswith("(line 1, column 29)")
    assert refused(gate.write, "UPDATE orders\nSET a = 1,\n    b = getvariable('x')").endswith("(line 3, column 9)")
    assert refused(gate.write, "INSERT INTO orders\n SELECT getvariable('x')").endswith("(line 2, column 9)")
    assert refused(gate.write, "DELETE FROM orders\nRETURNING 1").endswith("(line 2, column 1)")
    with pytest.raises(TableNotFound, match=r"nowhere \(line 1, column 22\)"):
        gate.read("SELECT * FROM orders,nowhere")
    with pytest.raises(SyntaxFault, match=r"line 2, column 6"):
        gate.read("SELECT 1\nFROM FROM")


def test_what_a_view_or_macro_stands_for_is_looked_at(gate):
    message = refused(gate.read, "SELECT * FROM orders, leak")
    assert message.startswith("the view leak has what SQL may not: the function read_text")
    assert message.endswith("(line 1, column 23)")
    assert "the macro peek has what SQL may not" in refused(gate.read, "SELECT peek('x')")
    assert gate.read("SELECT twice(1)").tables == ()
    assert gate.read("FROM loop").tables == (("main", "loop"), ("main", "loop2"))
    gate.read("SELECT count(a) FROM orders")  # a macro hides the function; what it stands for is looked at


def test_a_statement_may_not_be_longer_or_deeper_than_is_looked_at(gate):
    assert "bytes" in refused(gate.read, f"SELECT '{'x' * 300_000}'")
    assert "deeply" in refused(gate.read, f"SELECT 1{' + 1' * 800}")
    gate.read(f"SELECT 1{' + 1' * 150}")
    gate.read(f"SELECT a FROM orders WHERE a IN ({', '.join(map(str, range(30_000)))})")


def test_the_tree_has_all_that_a_newer_duckdb_knows(gate):
    """For the version that DuckDB writes files for by default, the tree leaves out what that version did not know."""
    with pytest.raises(SqlRefused, match="the type mood"):
        gate.read("SELECT 'x'::STRUCT(a ENUM ('q'), b mood)")


def test_a_field_that_is_not_known_is_refused(gate):
    node = gate._tree("SELECT 1")
    node["node"]["select_list"][0]["brand_new"] = "x"
    with pytest.raises(SqlRefused, match="'brand_new' of CONSTANT is not known"):
        gate._walk().statement(node)
    node = gate._tree("SELECT 1")
    node["node"]["select_list"][0]["class"] = "BRAND_NEW"
    with pytest.raises(SqlRefused, match="brand new is not allowed"):
        gate._walk().statement(node)


# Writes


@pytest.mark.parametrize(
    ("sql", "made"),
    [
        (
            "INSERT INTO orders (a, B) SELECT 1, 2 -- x",
            'INSERT INTO "lake"."main"."orders" ("a", "B") (SELECT 1, 2 -- x\n)',
        ),
        (
            "with q as (select 1) insert into stage.raw from q",
            'INSERT INTO "lake"."stage"."raw" (with q as (select 1) \n(from q\n))',
        ),
        (
            "update Orders o set a=case when b then 1 end where b",
            'UPDATE "lake"."main"."orders" AS "o" SET "a" = (case when b then 1 end \n) WHERE (b\n)',
        ),
        (
            "delete from orders using customers c where c.a=orders.a;",
            'DELETE FROM "lake"."main"."orders" USING customers c \n WHERE (c.a=orders.a\n)',
        ),
        ('create schema "A b"', 'CREATE SCHEMA "lake"."A b"'),
        ("drop view if exists recent cascade", 'DROP VIEW IF EXISTS "lake"."main"."recent" CASCADE'),
    ],
)
def test_a_write_is_written_anew(gate, sql, made):
    passed = gate.write(sql)
    assert (passed.sql, passed.kind) == (made, "write")


def test_a_pivot_in_a_write_may_take_its_columns_from_the_data(gate):
    passed = gate.write("CREATE TABLE wide AS PIVOT orders ON customer USING sum(amount)")
    assert passed.tables == (("main", "wide"), ("main", "orders"))
    assert "getvariable" in refused(gate.write, "CREATE TABLE wide AS PIVOT orders ON getvariable(a) USING sum(amount)")


def test_the_query_that_a_pivot_takes_its_values_from_is_looked_at_by_itself(gate):
    sql = "PIVOT orders ON customer IN (SELECT id\n FROM {}) USING sum(amount)"
    passed = gate.read(sql.format("customers"))
    assert (passed.sql, passed.tables) == (sql.format("customers"), (("main", "orders"), ("main", "customers")))
    assert refused(gate.read, sql.format("read_text('x')")).endswith("(line 2, column 7)")
    with pytest.raises(TableNotFound, match=r"there is no table c \(line 2, column 7\)"):
        gate.read("WITH c AS (SELECT 1 AS id) " + sql.format("c"))
    assert "may not give the name 'y.csv'" in refused(gate.read, 'WITH "y.csv" AS (SELECT 1 AS a) PIVOT "y.csv" ON a')
    assert gate.read('WITH "y.csv" AS (SELECT 1 AS a) PIVOT "y.csv" ON a IN (1)').tables == ()


def test_changes_are_those_of_a_table_up_to_the_snapshot(gate):
    names = Names(gate.names.relations, gate.names.schemas, snapshot=7)
    looking = Gate(gate._parser, names)
    assert looking.read("FROM lake.table_changes('ORDERS', 0, 7)").tables == (("main", "orders"),)
    assert looking.read("FROM stage.table_deletions('raw', 7, 7)").tables == (("stage", "raw"),)
    assert "between 0 and 7" in refused(looking.read, "FROM lake.table_changes('orders', 0, 8)")
    assert "recent is no table" in refused(looking.read, "FROM lake.table_changes('recent', 0, 7)")
    hidden = Gate(
        gate._parser, Names(gate.names.relations, {}, {"table_changes": ("SELECT getvariable('x')",)}, snapshot=7)
    )
    assert "is not allowed" in refused(hidden.read, "FROM lake.table_changes('orders', 0, 7)")


def test_a_write_needs_a_table_with_rows(gate):
    assert "has no rows of its own" in refused(gate.write, "DELETE FROM recent")
    with pytest.raises(TableNotFound):
        gate.write("DELETE FROM nowhere")
    gate.write("COMMENT ON VIEW recent IS 'x'")


@pytest.mark.parametrize("door", ["read", "write"])
@pytest.mark.parametrize("sql", ["", "\ud800", "\0", "SELECT 1" * 10, "'", "(" * 5000, "é" * 1000, "$$", "/*", "\\"])
def test_any_text_gets_an_error_of_ours(gate, door, sql):
    with pytest.raises(LakehouseError):
        getattr(gate, door)(sql)


def test_the_parser_gets_the_text_as_it_is(gate):
    """The text stands in a literal, whose own spaces and quotes must not be touched on the way."""
    for text in ("it''s", "a\u00a0b", "$$\u00a0$$", "'' || ''\u3000", "/* \u00a0 -- \n", "\\'", "caf\u00e9 \U0001f600"):
        tree = gate._tree(f"SELECT '{text.replace(chr(39), chr(39) * 2)}' AS \"{text}\"")
        (found,) = tree["node"]["select_list"]
        assert (found["value"]["value"], found["alias"]) == (text, text)


def test_what_is_no_sql_is_no_write(gate):
    with pytest.raises(SyntaxFault):
        gate.write("WITH x AS (SELECT 1) SELECT 1 UNION ALL INSERT INTO orders SELECT 1")
