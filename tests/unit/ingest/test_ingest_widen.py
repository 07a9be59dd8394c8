"""`contract="evolve"` beyond whole numbers: exact values, and a table that goes on being the same one."""

import datetime
from decimal import Decimal

import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from lakehouse import errors

NARROW = {
    "INTEGER": ["9", "10", "-3", "NULL"],
    "BIGINT": ["9", "10", "-3", "9007199254740991"],
    "DECIMAL(6,2)": ["9.25", "10.50", "-3.00", "NULL"],
    "FLOAT": ["9.25", "10.5", "-3"],
    "DATE": ["DATE '2024-01-09'", "DATE '2024-01-10'", "NULL"],
}


def types(lake, table="t"):
    return {column.name: column.type for column in lake.catalog.table(table).schema}


def written(tmp_path, text, name="a.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


@pytest.mark.parametrize(
    ("old", "values", "becomes", "times"),  # times: for rows that the catalog keeps, and for rows in files
    [
        ("INTEGER", pa.array([9.5, 10.25, -3.5, 100.0]), "DOUBLE", 1),
        ("INTEGER", pa.array([9.5, 10.25, -3.5, 100.0]), "DOUBLE", 40),
        ("BIGINT", pa.array([9.5, 1e300]), "DOUBLE", 40),
        ("INTEGER", pa.array([Decimal("9.50"), Decimal("100.25")]), "DECIMAL(12,2)", 1),
        ("DECIMAL(6,2)", pa.array([Decimal("9.5001"), Decimal("10000.1")]), "DECIMAL(9,4)", 40),
        ("DECIMAL(6,2)", pa.array([9.125, 10.0]), "DECIMAL(7,3)", 1),
        ("DECIMAL(6,2)", pa.array([123456]), "DECIMAL(21,2)", 40),
        ("FLOAT", pa.array([0.1, 1e100]), "DOUBLE", 40),
        ("DATE", pa.array([datetime.datetime(2024, 1, 9, 12), datetime.datetime(2023, 5, 1, 9)]), "TIMESTAMP", 40),
    ],
)
def test_a_wider_type_reads_filters_and_sorts_right(lake, child, old, values, becomes, times):
    rows = f"SELECT x::{old} AS x FROM (VALUES {', '.join(f'({v})' for v in NARROW[old])}) v(x), range({times})"
    lake.sql(f"CREATE TABLE t (id INTEGER, x {old}, s VARCHAR)")
    lake.sql(f"INSERT INTO t SELECT 1, x, 'old' FROM ({rows})")
    before = lake.catalog.current_snapshot().id
    many = pa.concat_arrays([values] * times)
    source = pa.table({"id": [2] * len(many), "x": many, "s": ["new"] * len(many)})
    lake.ingest(source, "t", contract="evolve")
    assert types(lake) == {"id": "INTEGER", "x": becomes, "s": "VARCHAR"}
    plain = duckdb.connect()
    plain.execute(f"CREATE TABLE t AS SELECT x::{becomes} AS x FROM ({rows}) UNION ALL SELECT x::{becomes} FROM source")
    marks = plain.execute("SELECT DISTINCT x::VARCHAR FROM t WHERE x IS NOT NULL ORDER BY x").fetchall()
    queries = [f"SELECT count(*) FROM t WHERE x {op} '{mark}'::{becomes}" for (mark,) in marks for op in "<>="]
    queries += ["SELECT min(x), max(x), count(x), count(*) FROM t", "SELECT x FROM t ORDER BY x DESC LIMIT 60"]
    wanted = [[list(map(str, row)) for row in plain.execute(query).fetchall()] for query in queries]
    assert [[list(map(str, row)) for row in lake.sql(query).fetchall()] for query in queries] == wanted
    profile = {column.name: column for column in lake.catalog.table("t").profile().columns}["x"]
    assert [[str(profile.min), str(profile.max)]] == [row[:2] for row in wanted[-2]]
    # What is written after the change is compared with what was there before, here and elsewhere.
    lake.sql("INSERT INTO t SELECT 3, x, 'later' FROM t WHERE x = (SELECT max(x) FROM t) LIMIT 1")
    lake.sql("DELETE FROM t WHERE s = 'later'")
    lake.maintenance.compact()
    code = """
    import lakehouse
    with lakehouse.open(args[0]) as lake:
        for query in args[1:]:
            say([list(map(str, row)) for row in lake.sql(query).fetchall()])
    """
    assert child(code, lake.path, *queries).end() == wanted
    past = lake.sql("SELECT x FROM t", at=before)
    assert (past.types, len(past.fetchall())) == ([old], len(NARROW[old]) * times)


def test_the_table_goes_on_being_the_same_one(lake, tmp_path):
    lake.sql("CREATE TABLE t (d DATE, id INTEGER NOT NULL, x INTEGER DEFAULT 7, s VARCHAR)")
    table = lake.catalog.table("t")
    table.set_partitioning("s")
    table.set_sorting("id")
    table.set_comment("all of it")
    table.set_comment("how many", column="x")
    table.set_tag("owner", "sales")
    source = written(tmp_path, "d,id,x,s\n2024-01-01,9,9,a\n2024-01-02,10,10,b\n", "first.csv")
    lake.ingest(source, "t", options={"types": {"s": "VARCHAR"}})
    lake.sql("UPDATE t SET x = 11 WHERE id = 10")
    before = lake.catalog.current_snapshot().id
    lake.ingest(written(tmp_path, "d,id,x,s,more\n2024-01-03 09:30:00,1,0.5,a,1\n"), "t", contract="evolve")
    after = lake.catalog.current_snapshot().id
    assert after == before + 2
    table = lake.catalog.table("t")
    assert types(lake) == {"d": "TIMESTAMP", "id": "INTEGER", "x": "DOUBLE", "s": "VARCHAR", "more": "BIGINT"}
    assert [column.nullable for column in table.schema] == [True, False, True, True, True]
    assert (table.comment, table.schema[2].comment, table.tags) == ("all of it", "how many", {"owner": "sales"})
    assert (table.partitioning, table.sorting) == (("s",), ("id",))
    lake.sql("INSERT INTO t (id) VALUES (99)")
    assert lake.sql("SELECT x FROM t WHERE id = 99").fetchall() == [(7.0,)]
    lake.sql("DELETE FROM t WHERE id = 99")
    assert lake.ingest(source, "t", mode="replace", options={"types": {"s": "VARCHAR"}}).duplicate is False


def test_loads_changes_history_and_rollback_reach_across_the_change(lake, tmp_path):
    first = written(tmp_path, "id,x\n9,9\n10,10\n", "first.csv")
    loaded = lake.ingest(first, "t").snapshot
    lake.sql("UPDATE t SET x = 11 WHERE id = 10")
    lake.ingest(written(tmp_path, "id,x\n1,0.5\n"), "t", contract="evolve")
    lake.sql("DELETE FROM t WHERE id = 9")
    table = lake.catalog.table("t")
    made = table.changes(loaded).drop_columns(["rowid"]).to_pylist()
    assert [(row["change_type"], row["id"], row["x"]) for row in made] == [
        ("insert", 9, 9.0), ("insert", 10, 10.0), ("update_preimage", 10, 10.0), ("update_postimage", 10, 11.0),
        ("insert", 1, 0.5), ("delete", 9, 9.0),
    ]  # fmt: skip
    assert [(one.inserted, one.updated, one.deleted) for one in table.history()] == [
        (0, 0, 1), (1, 0, 0), (0, 0, 0), (0, 1, 0), (2, 0, 0),
    ]  # fmt: skip
    assert len(table.history(limit=4)) == 4
    assert {str(first), str(tmp_path / "a.csv")} <= {one.name for one in table.lineage(direction="up").nodes}
    lake.sql("ALTER TABLE t RENAME TO u")
    assert len(lake.catalog.table("u").history()) == 5
    lake.sql("ALTER TABLE u RENAME TO t")
    assert table.changes(loaded, loaded).num_rows == 2
    assert lake.sql("FROM t ORDER BY id", at=loaded).fetchall() == [(9, 9), (10, 10)]
    table.rollback(loaded, allow_schema_change=True)
    assert (types(lake), lake.sql("FROM t ORDER BY id").fetchall()) == (
        {"id": "BIGINT", "x": "BIGINT"},
        [(9, 9), (10, 10)],
    )
    assert lake.ingest(first, "t").duplicate is True
    assert lake.ingest(written(tmp_path, "id,x\n1,0.5\n"), "t", contract="evolve").duplicate is False
    assert {one.name for one in lake.catalog.table("t").lineage(direction="up").nodes} >= {"t", str(first)}


def test_when_the_snapshots_before_the_change_have_expired(lake, tmp_path):
    first = written(tmp_path, "id,x\n9,9\n10,10\n", "first.csv")
    lake.ingest(first, "t")
    lake.ingest(written(tmp_path, "id,x\n1,0.5\n"), "t", contract="evolve")
    lake.maintenance.expire("0s", dry_run=False)
    assert lake.ingest(first, "t").duplicate is True
    assert lake.catalog.table("t").changes(lake.catalog.current_snapshot().id).num_rows == 1
    lake.ingest(written(tmp_path, "id,x\n1.5,0.25\n"), "t", contract="evolve")
    assert lake.sql("SELECT id FROM t WHERE id > 9 ORDER BY id").fetchall() == [(10.0,)]


def test_nothing_is_rounded(lake, tmp_path):
    lake.sql("CREATE TABLE t (x BIGINT)")
    lake.sql("INSERT INTO t VALUES (9007199254740993), (10), (9)")
    lake.ingest(pa.table({"x": [0.25]}), "t", contract="evolve")  # more digits than a DOUBLE has
    assert types(lake) == {"x": "DECIMAL(21,2)"}
    assert lake.sql("FROM t ORDER BY x DESC").fetchall() == [
        (Decimal("9007199254740993.00"),), (Decimal("10.00"),), (Decimal("9.00"),), (Decimal("0.25"),),
    ]  # fmt: skip
    lake.sql("CREATE TABLE u (x BIGINT)")
    lake.sql("INSERT INTO u VALUES (9007199254740993)")
    with pytest.raises(errors.SchemaMismatch, match="the value 1e\\+300 of column x of Table does not fit BIGINT"):
        lake.ingest(pa.table({"x": [1e300]}), "u", contract="evolve")
    lake.sql("CREATE TABLE v (x INTEGER)")
    lake.ingest(written(tmp_path, "x\n9007199254740993\n0.5\n"), "v", contract="evolve")
    assert lake.sql("SELECT max(x)::VARCHAR FROM v").fetchall() == [("9007199254740993.0",)]
    lake.ingest(written(tmp_path, "x\n12345678901234567890123\n"), "v", contract="evolve")
    assert types(lake, "v") == {"x": "DECIMAL(24,1)"}
    lake.sql("CREATE TABLE w (x DOUBLE, f FLOAT)")
    with pytest.raises(errors.LakehouseError, match="9007199254740993"):
        lake.ingest(pa.table({"x": [9007199254740993], "f": [1.0]}), "w", contract="evolve")
    lake.ingest(pa.table({"x": [1.0], "f": [0.1]}), "w", contract="evolve")
    assert types(lake, "w") == {"x": "DOUBLE", "f": "DOUBLE"}


@pytest.mark.parametrize(
    ("old", "values"),
    [
        ("INTEGER", ["abc"]),
        ("DECIMAL(38,2)", [Decimal("0.125")]),
        ("DATE", [datetime.datetime(2024, 1, 9, 12, tzinfo=datetime.UTC)]),
        ("DECIMAL(6,2)", [float("nan")]),
        ("BOOLEAN", [7]),
    ],
)
def test_what_is_no_widening_is_refused(lake, old, values):
    lake.sql(f"CREATE TABLE t (x {old})")
    before = lake.catalog.snapshots()
    with pytest.raises(errors.SchemaMismatch, match="of column x of Table does not fit"):
        lake.ingest(pa.table({"x": values}), "t", contract="evolve")
    assert lake.catalog.snapshots() == before


def test_types_that_were_fixed_stay_or_change_as_they_are_named(lake, tmp_path):
    lake.ingest(written(tmp_path, "id,x\n1,7\n", "first.csv"), "t", options={"types": {"x": "INTEGER"}})
    with pytest.raises(errors.IngestError, match=r"the value 1.5"):
        lake.ingest(written(tmp_path, "id,x\n2,1.5\n"), "t", contract="evolve")
    with pytest.raises(errors.SchemaMismatch, match=r"the value 1.5"):
        lake.ingest(pd.DataFrame({"id": [2], "x": [1.5]}), "t", contract="evolve")
    options = {"types": {"x": "VARCHAR"}}
    lake.ingest(written(tmp_path, "id,x\n2,abc\n"), "t", contract="evolve", options=options)
    assert lake.sql("FROM t ORDER BY id").fetchall() == [(1, "7"), (2, "abc")]
    lake.ingest(written(tmp_path, "id,x\n3,007\n"), "t", contract="evolve")  # VARCHAR is what is remembered now
    assert lake.sql("SELECT x FROM t WHERE id = 3").fetchall() == [("007",)]


def test_several_processes_widen_at_once(lake, child):
    lake.sql("CREATE TABLE t (id BIGINT, x INTEGER)")
    lake.sql("INSERT INTO t SELECT range, range FROM range(50)")
    code = """
    import lakehouse, pyarrow, sys
    number = int(args[1])
    with lakehouse.open(args[0]) as lake:
        say("ready")
        sys.stdin.readline()
        for i in range(3):
            frame = pyarrow.table({"id": [100 * number + i], "x": [number + i + 0.5]})
            say(lake.ingest(frame, "t", contract="evolve").rows)
    """
    started = [child(code, lake.path, number) for number in (1, 2, 3)]
    for one in started:
        one.hear()
    for one in started:
        one.go()
    assert [one.end() for one in started] == [[1, 1, 1]] * 3
    assert types(lake) == {"id": "BIGINT", "x": "DOUBLE"}
    assert lake.sql("SELECT count(*), count(DISTINCT id), sum(x) FROM t").fetchall() == [(59, 59, 1225 + 31.5)]
    assert lake.sql("SELECT count(*) FROM t WHERE x = 2.5").fetchall() == [(2,)]
    assert [one.message for one in lake.catalog.snapshots() if "evolve" in (one.message or "")] == ["evolve t: x"]
