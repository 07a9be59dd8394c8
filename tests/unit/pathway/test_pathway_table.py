"""`pathway.traces`: the traces as a table of SQL."""

from __future__ import annotations

import json

import pytest

import lakehouse
from lakehouse.errors import QueryError, TableNotFound


def test_every_trace_is_a_row(lake):
    assert lake.sql("SELECT count(*) FROM pathway.traces").fetchall() == [(0,)]
    lake.sql("CREATE TABLE t (id INTEGER)")
    first = lake.pathway.add({"a": [1, "x"]}, kind="note", tags=["p", "q"], scope={"user": "ann"})
    other = lake.pathway.revise(first.uid, "later")
    lake.pathway.feedback(other.uid, 0.5)
    lake.pathway.retire(other.uid, "wrong")
    rows = lake.sql("SELECT * FROM pathway.traces ORDER BY created_at").records()
    for row, uid in zip(rows, (first.uid, other.uid), strict=True):
        trace = lake.pathway.get(uid).to_dict()
        given = {**row, "content": json.loads(row["content"]), "scope": dict(row["scope"])}
        given |= {name: row[name].isoformat() for name in ("created_at", "updated_at")}
        assert given == trace


def test_it_follows_the_memory_and_joins_with_the_lake(lake):
    lake.sql("CREATE TABLE kinds AS SELECT unnest(['note', 'sql']) AS kind")
    counted = "SELECT kind, count(uid) FROM kinds LEFT JOIN pathway.traces USING (kind) GROUP BY 1 ORDER BY 1"
    assert lake.sql(counted).fetchall() == [("note", 0), ("sql", 0)]
    for number in range(3):
        lake.pathway.add(number, kind="note")
        assert lake.sql(counted).fetchall() == [("note", number + 1), ("sql", 0)]
    with lakehouse.open(lake.path) as other:
        other.pathway.add("of another process", kind="sql")
    assert lake.sql(counted, at=1).fetchall() == [("note", 3), ("sql", 1)]
    assert lake.sql('SELECT content->>0 FROM "pathway"."traces" WHERE kind = $kind', {"kind": "sql"}).fetchone()
    lake.sql("CREATE TABLE copied AS SELECT uid FROM pathway.traces")
    assert lake.catalog.table("copied").row_count == 4
    assert len(list((lake.path / "tmp").glob("traces-*.parquet"))) <= 4


def test_more_traces_than_one_page(lake):
    lake.pathway.add_many({"content": number} for number in range(20_001))
    found = lake.sql("SELECT count(*), count(DISTINCT uid), sum(content::INT) FROM pathway.traces").fetchall()
    assert found == [(20_001, 20_001, 20_000 * 20_001 // 2)]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO pathway.traces VALUES (1)",
        "DELETE FROM pathway.traces",
        "UPDATE pathway.traces SET kind = 'x'",
        "DROP VIEW pathway.traces",
        "CREATE TABLE pathway.traces (i INTEGER)",
        "CREATE VIEW v AS SELECT * FROM pathway.traces",
    ],
)
def test_it_can_only_be_read(lake, sql):
    lake.pathway.add("x")
    lake.sql("FROM pathway.traces")
    with pytest.raises(QueryError, match=r"pathway\.traces"):
        lake.sql(sql)
    assert len(lake.sql("FROM pathway.traces")) == 1


def test_a_schema_of_that_name_goes_before(lake):
    lake.pathway.add("x")
    assert len(lake.sql("FROM pathway.traces")) == 1
    lake.catalog.create_schema("pathway")
    with pytest.raises(TableNotFound):
        lake.sql("FROM pathway.traces")
    lake.sql("CREATE TABLE pathway.traces AS SELECT 1 AS own")
    assert lake.sql("FROM pathway.traces").columns == ["own"]


def test_its_files_go_with_the_lake(lake):
    lake.pathway.add("x")
    lake.sql("FROM pathway.traces")
    assert list((lake.path / "tmp").glob("traces-*.parquet"))
    lake.close()
    assert not list((lake.path / "tmp").glob("traces-*.parquet"))
