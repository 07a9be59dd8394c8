"""PIVOT is one statement to whoever writes it, whatever DuckDB makes of it."""

from __future__ import annotations

import pytest

import lakehouse
from lakehouse.errors import QueryError, SyntaxFault

PIVOT = "PIVOT sales ON shop USING sum(amount) GROUP BY day ORDER BY day"
ROWS = [(1, 10, 5), (2, 20, None)]


@pytest.fixture
def sales(lake):
    lake.sql(
        "CREATE TABLE sales AS FROM (VALUES (1, 'a', 4), (1, 'a', 6), (1, 'b', 5), (2, 'a', 20)) t(day, shop, amount)"
    )
    return lake


def test_pivot_and_unpivot_alone(sales):
    assert sales.sql(PIVOT).fetchall() == ROWS
    assert sales.sql(PIVOT).columns == ["day", "a", "b"]
    assert sales.sql(f"WITH w AS ({PIVOT}) SELECT count(*) FROM w").fetchall() == [(2,)]
    long = sales.sql("UNPIVOT (FROM sales) ON day, amount INTO NAME n VALUE v")
    assert len(long.fetchall()) == 8


def test_pivot_makes_and_fills_tables_in_one_commit(sales):
    before = sales.catalog.current_snapshot().id
    made = sales.sql(f"CREATE TABLE wide AS {PIVOT}")
    assert (made.snapshot, sales.catalog.current_snapshot().id) == (before + 1, before + 1)
    assert sales.sql("FROM wide ORDER BY day").fetchall() == ROWS
    assert sales.sql(f"INSERT INTO wide {PIVOT}").fetchall() == [(2,)]
    sales.sql(f"INSERT INTO wide BY NAME {PIVOT}")
    sales.sql(f"CREATE OR REPLACE TABLE twice AS WITH w AS ({PIVOT}) FROM w")
    assert sales.sql("SELECT count(*) FROM wide").fetchall() == [(6,)]
    assert sales.sql("FROM twice ORDER BY day").fetchall() == ROWS
    assert sales.sql("CREATE TABLE long AS UNPIVOT wide ON a, b INTO NAME shop VALUE amount").fetchall() == [(9,)]
    with pytest.raises(SyntaxFault, match="cannot have parameters"):  # DuckDB must look at the data before
        sales.sql("CREATE TABLE few AS PIVOT (FROM sales WHERE amount > $least) ON shop USING count(*)", {"least": 5})


def test_pivot_inside_a_transaction(sales):
    sales.sql(f"BEGIN; CREATE TABLE one AS {PIVOT}; INSERT INTO one {PIVOT}; COMMIT")
    assert sales.sql("SELECT count(*) FROM one").fetchall() == [(4,)]
    with sales.transaction():
        sales.sql(f"CREATE TABLE two AS {PIVOT}")
        assert sales.sql("SELECT count(*) FROM two").fetchall() == [(2,)]
    with pytest.raises(QueryError), sales.transaction():
        sales.sql(f"CREATE TABLE three AS {PIVOT}")
        sales.sql("SELECT 1 / 'x'::INTEGER")
    assert [table.name for table in sales.catalog.tables()] == ["one", "sales", "two"]


def test_a_view_of_a_pivot_names_its_columns(sales):
    sales.sql("CREATE VIEW v AS PIVOT sales ON shop IN ('a', 'b') USING sum(amount) GROUP BY day")
    assert sales.sql("FROM v ORDER BY day").fetchall() == ROWS
    with pytest.raises(SyntaxFault, match="IN"):
        sales.sql(f"CREATE VIEW w AS {PIVOT}")


def test_other_processes_see_what_a_pivot_made(sales, tmp_path, child):
    sales.sql(f"CREATE TABLE wide AS {PIVOT}")
    found = child(
        "import lakehouse\nsay([[int(v or 0) for v in r] for r in lakehouse.open(args[0]).sql('FROM wide').fetchall()])",
        tmp_path / "lake",
    ).end()
    assert sorted(found[0]) == [[1, 10, 5], [2, 20, 0]]
    assert lakehouse.open(tmp_path / "lake", read_only=True).sql(PIVOT).fetchall() == ROWS
