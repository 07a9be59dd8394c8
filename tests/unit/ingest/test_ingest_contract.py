"""Contracts: `evolve` adds and widens, `freeze` refuses every difference, fixed types are remembered."""

import datetime

import pandas as pd
import pyarrow as pa
import pytest

from lakehouse import errors


def types(lake, table="t"):
    return {column.name: column.type for column in lake.catalog.table(table).schema}


def written(tmp_path, text, name="a.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_evolve_adds_and_widens(lake, tmp_path):
    lake.sql("CREATE TABLE t (id INTEGER, n SMALLINT, x INTEGER, d DATE, m DECIMAL(6,2), s VARCHAR)")
    lake.sql("INSERT INTO t SELECT range, range, range, DATE '2024-01-01', 1.25, 'old' FROM range(100)")
    lake.ingest(
        pa.table({"id": [100], "n": [1], "x": [2], "d": ["2024-01-02"], "m": [1], "s": ["file"]}), "t"
    )  # rows in a file, rows in the catalog
    before = lake.catalog.current_snapshot().id
    source = written(
        tmp_path,
        "id,x,extra,m,s,d,n,when\n5000000000,3,new,1,007,2024-01-03,7,2024-05-05\n1,2,,1,8,2024-01-01,8,\n",
    )
    receipt = lake.ingest(source, "t", contract="evolve")
    assert (receipt.rows, receipt.snapshot) == (2, before + 2)  # the columns are changed in a commit before
    found = types(lake)
    assert (found["id"], found["n"], found["x"], found["s"]) == ("BIGINT", "SMALLINT", "INTEGER", "VARCHAR")
    assert (found["d"], found["extra"], found["when"]) == ("DATE", "VARCHAR", "DATE")
    assert lake.sql("SELECT x, s, extra, d FROM t WHERE id = 5000000000").fetchall() == [
        (3, "007", "new", datetime.date(2024, 1, 3))
    ]
    assert lake.sql("SELECT count(*), sum(id), count(extra), sum(n) FROM t WHERE id <= 100").fetchall()[0][:3] == (
        102,
        5051,
        0,
    )
    old = lake.sql("SELECT count(*), sum(x) FROM t", at=before)
    assert (old.fetchall(), old.types) == ([(101, 4952)], ["BIGINT", "HUGEINT"])
    assert lake.ingest(source, "t", contract="evolve").duplicate is True
    with_rest = lake.ingest(pd.DataFrame({"id": [-1]}), "t", contract="evolve")  # columns that are not there: no value
    assert with_rest.rows == 1
    assert lake.sql("SELECT n, x, s FROM t WHERE id = -1").fetchall() == [(None, None, None)]
    assert lake.sql("SELECT count(*) FROM t WHERE id < 50 AND x < 50").fetchall() == [(51,)]


@pytest.mark.parametrize(
    ("old", "value", "new", "becomes"),
    [
        ("TINYINT", 300, pa.int64(), "BIGINT"),
        ("INTEGER", 7, pa.int64(), "INTEGER"),
        ("INTEGER", 7.0, pa.float64(), "INTEGER"),
        ("VARCHAR", 7, pa.int64(), "VARCHAR"),
        ("UINTEGER", -1, pa.int64(), "BIGINT"),
    ],
)
def test_a_type_is_widened_only_where_a_value_needs_it(lake, old, value, new, becomes):
    lake.sql(f"CREATE TABLE t (x {old})")
    lake.sql("INSERT INTO t VALUES (1)")
    lake.ingest(pa.table({"x": pa.array([value], new)}), "t", contract="evolve")
    assert types(lake) == {"x": becomes}
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(2,)]


@pytest.mark.parametrize(
    ("old", "values"),
    [
        ("INTEGER", ["abc"]),
        ("DATE", ["soon"]),
        ("BOOLEAN", ["perhaps"]),
        ("DECIMAL(38,2)", [0.1234]),
    ],
)
def test_what_no_widening_can_hold_is_refused(lake, old, values):
    lake.sql(f"CREATE TABLE t (x {old}, y INTEGER)")
    before = lake.catalog.snapshots()
    with pytest.raises(errors.SchemaMismatch, match=f"the value {values[0]} of column x of DataFrame does not fit"):
        lake.ingest(pd.DataFrame({"x": values, "y": [1], "z": [1]}), "t", contract="evolve")
    assert (lake.catalog.snapshots(), types(lake)) == (before, {"x": old, "y": "INTEGER"})


def test_evolve_with_upsert_and_with_replace(lake):
    lake.ingest(pd.DataFrame({"id": [1, 2], "v": [1, 2]}), "t")
    receipt = lake.ingest(
        pd.DataFrame({"id": [2, 3], "w": [0.5, 1.5]}), "t", mode="upsert", key="id", contract="evolve"
    )
    assert (receipt.inserted, receipt.updated) == (1, 1)
    assert lake.sql("SELECT id, v, w FROM t ORDER BY id").fetchall() == [(1, 1, None), (2, 2, 0.5), (3, None, 1.5)]
    table = lake.catalog.table("t").relation.id
    lake.ingest(pd.DataFrame({"id": [9]}), "t", mode="replace", contract="evolve")
    assert (lake.catalog.table("t").relation.id, types(lake)) == (table, {"id": "BIGINT", "v": "BIGINT", "w": "DOUBLE"})
    assert lake.sql("FROM t").fetchall() == [(9, None, None)]


def test_freeze_names_every_difference(lake, tmp_path):
    lake.sql("CREATE TABLE t (id INTEGER, d DATE, gone VARCHAR, s VARCHAR)")
    before = lake.catalog.snapshots()
    late = "".join(f"{i},2024-01-31,{i},x\n" for i in range(30_000))
    with pytest.raises(errors.SchemaMismatch) as caught:
        lake.ingest(written(tmp_path, "id,d,s,more\n" + late + "abc,soon,1,x\n"), "t", contract="freeze")
    assert caught.value.message.splitlines()[1:] == [
        "  more: not in the table (the source has VARCHAR)",
        "  gone: not in the source (the table has VARCHAR)",
        "  id: INTEGER in the table, VARCHAR in the source (such as abc)",
        "  d: DATE in the table, VARCHAR in the source (such as soon)",
    ]
    assert lake.catalog.snapshots() == before
    with pytest.raises(errors.SchemaMismatch, match="id: INTEGER in the table, BIGINT in the source"):
        lake.ingest(pd.DataFrame({"id": [1], "d": ["x"], "gone": ["y"], "s": ["z"]}), "t", contract="freeze")


def test_freeze_lets_pass_what_is_the_same(lake, tmp_path):
    lake.sql("CREATE TABLE t (id INTEGER, s VARCHAR)")
    assert lake.ingest(written(tmp_path, "s,ID\n007,1\n"), "t", contract="freeze").rows == 1
    frame = pa.table({"id": pa.array([2], pa.int32()), "s": ["x"]})
    assert lake.ingest(frame, "t", contract="freeze").rows == 1
    assert lake.ingest(frame, "t", contract="freeze", mode="replace").rows == 1
    assert lake.sql("FROM t").fetchall() == [(2, "x")]
    assert lake.ingest(frame.to_reader(), "new", contract="freeze").rows == 1


def test_fixed_types_are_remembered_per_table(lake, tmp_path):
    first = written(tmp_path, "code,n\n001,1\n")
    lake.ingest(first, "t", options={"types": {"CODE": "VARCHAR", "n": "int"}})
    assert types(lake) == {"code": "VARCHAR", "n": "INTEGER"}
    second = written(tmp_path, "n,code,extra\n2,002,x\n", "b.csv")
    lake.ingest(second, "t", mode="replace")
    assert types(lake) == {"n": "INTEGER", "code": "VARCHAR", "extra": "VARCHAR"}
    third = written(tmp_path, "code\n3\n", "c.csv")
    lake.ingest(third, "t", mode="replace")  # a table made anew twice still knows
    assert lake.sql("FROM t").fetchall() == [("3",)]
    lake.ingest(third, "other")
    assert types(lake, "other") == {"code": "BIGINT"}


def test_types_are_taken_for_every_format(lake, tmp_path):
    lake.ingest(pd.DataFrame({"id": [1, 2]}), "t", options={"types": {"id": "SMALLINT"}})
    assert types(lake) == {"id": "SMALLINT"}
    written(tmp_path, '{"id": 1, "d": "2024-01-31"}\n', "a.json")
    lake.ingest(tmp_path / "a.json", "u", options={"types": {"id": "DOUBLE"}})
    assert types(lake, "u") == {"id": "DOUBLE", "d": "DATE"}
    with pytest.raises(errors.SourceUnreadable, match="TINYINT"):
        lake.ingest(pd.DataFrame({"id": [1, 2000]}), "v", options={"types": {"id": "TINYINT"}})
    for wrong in ({"id": "NOSUCH"}, {"id": 7}):
        with pytest.raises(errors.IngestError, match="type"):
            lake.ingest(pd.DataFrame({"id": [1]}), "v", options={"types": wrong})
