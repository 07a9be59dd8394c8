"""Upsert: rows take the place of those with the same key, the last of the source counts, nothing is there twice."""

import pandas as pd
import pyarrow as pa
import pytest

from lakehouse import errors


def rows(lake, table="t"):
    return lake.sql(f"FROM {table} ORDER BY ALL").fetchall()


def upsert(lake, data, key="id", **more):
    return lake.ingest(pd.DataFrame(data), "t", mode="upsert", key=key, **more)


def test_rows_are_updated_or_inserted_and_the_receipt_counts_them(lake, tmp_path):
    first = upsert(lake, {"id": [1, 2], "v": ["a", "b"]})
    assert (first.rows, first.inserted, first.updated, first.deduplicated) == (2, 2, 0, 0)
    (tmp_path / "a.csv").write_text("v,id\nB,2\nc,3\nC,3\nd,4\nCC,3\n")
    second = lake.ingest(tmp_path / "a.csv", "t", mode="upsert", key="ID")
    assert (second.rows, second.inserted, second.updated, second.deduplicated) == (3, 2, 1, 2)
    assert rows(lake) == [(1, "a"), (2, "B"), (3, "CC"), (4, "d")]
    changes = lake.sql(
        f"SELECT change_type, count(*) FROM lake.table_changes('t', {second.snapshot}, {second.snapshot}) GROUP BY ALL"
    ).fetchall()
    assert dict(changes) == {"insert": 2, "update_preimage": 1, "update_postimage": 1}


def test_the_last_row_of_a_key_counts_in_a_large_file_and_in_a_new_table(lake, tmp_path):
    lines = "".join(f"{i % 1000},{i}\n" for i in range(200_000))
    (tmp_path / "a.csv").write_text("id,n\n" + lines)
    receipt = lake.ingest(tmp_path / "a.csv", "t", mode="upsert", key="id")
    assert (receipt.rows, receipt.deduplicated) == (1000, 199_000)
    assert lake.sql("SELECT count(*), count(DISTINCT id), min(n), max(n) FROM t").fetchall() == [
        (1000, 1000, 199_000, 199_999)
    ]


def test_a_key_of_several_columns(lake):
    upsert(lake, {"day": ["mon", "mon", "tue"], "shop": [1, 2, 1], "n": [1, 2, 3]}, key=["day", "shop"])
    receipt = upsert(lake, {"day": ["mon", "wed"], "shop": [2, 2], "n": [20, 40]}, key=["shop", "day"])
    assert (receipt.inserted, receipt.updated) == (1, 1)
    assert rows(lake) == [("mon", 1, 1), ("mon", 2, 20), ("tue", 1, 3), ("wed", 2, 40)]


def test_a_table_of_nothing_but_the_key(lake):
    upsert(lake, {"id": [1, 2]})
    receipt = upsert(lake, {"id": [2, 3]})
    assert (receipt.inserted, receipt.updated) == (1, 1)
    assert rows(lake) == [(1,), (2,), (3,)]


def test_rows_without_a_key_are_refused_with_their_number(lake):
    upsert(lake, {"id": [1], "v": ["a"]})
    before = lake.catalog.snapshots()
    with pytest.raises(errors.SourceUnreadable, match=r"2 rows have no value in the key \(id\)"):
        upsert(lake, {"id": pd.array([1, None, None], "Int64"), "v": ["x", "y", "z"]})
    assert lake.catalog.snapshots() == before
    receipt = upsert(lake, {"id": pd.array([1, None], "Int64"), "v": ["x", "y"]}, contract="quarantine")
    assert (receipt.updated, receipt.rejected) == (1, 1)
    assert lake.sql("SELECT field, reason, raw FROM t__rejects").fetchall() == [
        ("id", "there is no value, and the column needs one", '{"id":null,"v":"y"}')
    ]
    assert rows(lake) == [(1, "x")]


def test_a_table_that_has_a_key_twice_is_told_so(lake):
    lake.sql("CREATE TABLE t AS SELECT * FROM (VALUES (1, 'a'), (1, 'b'), (2, 'c')) AS x(id, v)")
    with pytest.raises(errors.Conflict, match=r"1 row\(s\) too many with a key of the source, such as id 1"):
        upsert(lake, {"id": [1, 2], "v": ["x", "y"]})
    assert rows(lake) == [(1, "a"), (1, "b"), (2, "c")]
    assert upsert(lake, {"id": [2], "v": ["y"]}).updated == 1


def test_values_are_cast_to_the_tables_types_or_refused(lake):
    lake.sql("CREATE TABLE t (id INTEGER, d DATE)")
    upsert(lake, {"id": [1.0], "d": ["2024-01-31"]})
    assert lake.sql("SELECT id, CAST(d AS VARCHAR) FROM t").fetchall() == [(1, "2024-01-31")]
    with pytest.raises(errors.SourceUnreadable, match=r"the value 1.5 of column id does not fit INTEGER"):
        upsert(lake, {"id": [1.5], "d": ["2024-01-31"]})


def test_the_same_upsert_is_a_duplicate_only_while_nothing_else_changed(lake):
    data = {"id": [1, 2], "v": ["a", "b"]}
    first = upsert(lake, data)
    again = upsert(lake, data)
    assert (again.duplicate, again.snapshot, again.inserted) == (True, first.snapshot, 2)
    upsert(lake, {"id": [2], "v": ["other"]})
    replayed = upsert(lake, data)
    assert (replayed.duplicate, replayed.updated) == (False, 2)
    lake.sql("UPDATE t SET v = 'x' WHERE id = 1")
    assert upsert(lake, data).duplicate is False
    assert rows(lake) == [(1, "a"), (2, "b")]
    assert upsert(lake, data, key=["id", "v"]).duplicate is False
    assert upsert(lake, data, key=["id", "v"], force=True).duplicate is False


def test_an_upsert_in_an_ordered_wide_or_odd_table(lake):
    lake.catalog.create_schema("odd one")
    columns = {f"c {n}": pa.array([n]) for n in range(1950)}
    for number in range(2):
        receipt = lake.ingest(
            pa.table({"the key": pa.array([number]), **columns}), '"odd one"."a.b"', mode="upsert", key="the key"
        )
        assert receipt.inserted == 1
    assert lake.ingest(pa.table({"the key": [1], **columns}), '"odd one"."a.b"', mode="upsert", key="the key").duplicate
    changed = {**columns, "c 7": pa.array([-7])}
    assert lake.ingest(pa.table({"the key": [1], **changed}), '"odd one"."a.b"', mode="upsert", key="the key").updated
    assert lake.sql('SELECT "the key", "c 7" FROM "odd one"."a.b" ORDER BY ALL').fetchall() == [(0, 7), (1, -7)]


def test_a_stream_is_upserted(lake):
    table = pa.table({"id": range(5000), "v": range(5000)})
    assert lake.ingest(table.to_reader(500), "t", mode="upsert", key="id").inserted == 5000
    more = pa.table({"id": range(4000, 6000), "v": range(2000)})
    receipt = lake.ingest(more.to_reader(500), "t", mode="upsert", key="id")
    assert (receipt.inserted, receipt.updated) == (1000, 1000)
    assert lake.sql("SELECT count(*), count(DISTINCT id) FROM t").fetchall() == [(6000, 6000)]
