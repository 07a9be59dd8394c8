"""Types that cannot be changed where rows are: DuckLake would look for them in the old type."""

import pytest

from lakehouse.errors import QueryError


@pytest.mark.parametrize(
    ("old", "new"),
    [("INTEGER", "DOUBLE"), ("FLOAT", "DOUBLE"), ("DATE", "TIMESTAMP"), ("DECIMAL(4,1)", "DECIMAL(9,2)")],
)
def test_a_column_with_rows_does_not_change_its_kind(lake, old, new):
    lake.sql(f"CREATE TABLE t AS SELECT CAST(NULL AS {old}) AS x FROM range(20)")
    snapshot = lake.catalog.current_snapshot().id
    with pytest.raises(QueryError, match=r"the column x of main\.t has rows") as refused:
        lake.sql(f"ALTER TABLE t ALTER COLUMN x SET DATA TYPE {new}")
    assert lake.catalog.current_snapshot().id == snapshot
    lake.sql(refused.value.hint.split("; ")[0])
    assert [column.type for column in lake.catalog.table("t").schema] == [new]
    assert lake.catalog.table("t").row_count == 20


def test_an_empty_one_may_and_whole_numbers_may(lake):
    lake.sql("CREATE TABLE t (x INTEGER, y INTEGER)")
    lake.sql("ALTER TABLE t ALTER COLUMN x SET DATA TYPE DOUBLE")
    lake.sql("INSERT INTO t VALUES (9.5, 9)")
    lake.sql("ALTER TABLE t ALTER COLUMN y SET DATA TYPE BIGINT")
    lake.sql("INSERT INTO t VALUES (10, 10000000000)")
    assert lake.sql("SELECT y FROM t WHERE x = 9.5").fetchall() == [(9,)]
    assert lake.sql("SELECT x FROM t WHERE y > 9").fetchall() == [(10.0,)]
    assert [column.type for column in lake.catalog.table("t").schema] == ["DOUBLE", "BIGINT"]


def test_a_table_that_is_not_there(lake):
    lake.sql("ALTER TABLE IF EXISTS nothing ALTER COLUMN x SET DATA TYPE DOUBLE")
