"""Data files, partitioning and sorting, and what ingest does with such tables."""

import pyarrow.parquet as pq
import pytest

import lakehouse
from lakehouse.errors import ColumnNotFound, LakehouseError, LakeReadOnly

ROWS = (
    "SELECT i AS id, DATE '2020-01-01' + (i % 700)::INT AS day, TIMESTAMP '2020-01-01' + to_hours(i::INT * 50) AS ts,"
    " 'o' || (i % 3) AS origin, [i] AS list FROM range(2000) t(i)"
)


@pytest.fixture
def table(lake):
    lake.sql(f"CREATE TABLE t AS {ROWS} LIMIT 0")
    return lake.catalog.table("t")


def test_files_say_what_they_hold(lake, table):
    assert table.files() == []
    first = lake.sql(f"INSERT INTO t {ROWS}").snapshot
    (file,) = table.files()
    assert (file.rows, file.deleted, file.snapshot, file.partition) == (2000, 0, first, {})
    assert pq.read_metadata(file.path).num_rows == 2000
    lake.sql("DELETE FROM t WHERE id = 7")
    lake.sql("DELETE FROM t WHERE id % 4 = 0")
    (file,) = table.files()
    assert (file.rows, file.deleted) == (2000, 501)
    assert file.rows - file.deleted == table.row_count
    assert [one.deleted for one in table.at(first).files()] == [0]
    lake.sql("CREATE VIEW v AS FROM t")
    assert lake.catalog.table("v").files() == []


def test_ingest_writes_a_partitioned_table_by_its_parts(lake, table, tmp_path):
    source = lake.sql(ROWS).to_parquet(tmp_path / "rows.parquet")
    table.set_partitioning("year(DAY)", "Origin")
    assert table.partitioning == ("year(day)", "origin")
    lake.ingest(source, "t")
    files = table.files()
    assert sorted(tuple(file.partition.items()) for file in files) == [
        (("year(day)", str(year)), ("origin", f"o{o}")) for year in (2020, 2021) for o in range(3)
    ]
    for file in files:
        inside = pq.read_table(file.path).to_pylist()
        assert {str(row["day"].year) for row in inside} == {file.partition["year(day)"]}
        assert {row["origin"] for row in inside} == {file.partition["origin"]}
    assert sum(file.rows for file in files) == 2000
    assert lake.sql("FROM t ORDER BY id").fetchall() == lake.sql(f"{ROWS} ORDER BY 1").fetchall()
    lake.sql("DELETE FROM t WHERE id = 3")
    assert sum(file.rows - file.deleted for file in table.files()) == table.row_count == 1999


def test_ingest_sorts_a_sorted_table(lake, table, tmp_path):
    source = lake.sql(f"FROM ({ROWS}) ORDER BY hash(id)").to_parquet(tmp_path / "rows.parquet")
    table.set_sorting("origin", "id desc nulls first")
    assert table.sorting == ("origin", "id desc nulls first")
    lake.ingest(source, "t")
    (file,) = table.files()
    keys = [(row["origin"], -row["id"]) for row in pq.read_table(file.path).to_pylist()]
    assert keys == sorted(keys)
    assert len(keys) == 2000


@pytest.mark.parametrize(
    "part", ["month(day)", "day(ts)", "hour(ts)", "bucket(4, id)", 'bucket(8, "origin")', "Origin", "year( ts )"]
)
def test_every_transform_keeps_the_rows(lake, table, part):
    table.set_partitioning(part)
    lake.sql(f"INSERT INTO t {ROWS} LIMIT 200")
    assert len({tuple(file.partition.items()) for file in table.files()}) > 1
    assert lake.sql("SELECT count(*), sum(id) FROM t").fetchone() == (200, sum(range(200)))
    table.set_partitioning()
    assert table.partitioning == ()
    lake.sql(f"INSERT INTO t {ROWS}")
    assert table.files()[-1].partition == {}


def test_sorting_ends(table):
    table.set_sorting("id")
    table.set_sorting()
    assert table.sorting == ()


def test_each_change_is_a_commit_and_the_past_keeps_its_own(table):
    before = table.version
    after = table.set_partitioning("origin")
    assert after == before + 1
    assert table.at(before).partitioning == ()
    assert table.snapshots()[0].message == "partition t by origin"
    table.rename_column("origin", "place")
    assert table.partitioning == ("place",)


def test_a_column_named_like_a_transform(lake):
    lake.sql('CREATE TABLE odd ("year(day)" INTEGER, "a ""b" VARCHAR, "x desc" INTEGER)')
    odd = lake.catalog.table("odd")
    odd.set_partitioning("year(day)", 'bucket(2, a "b)')
    assert odd.partitioning == ("year(day)", 'bucket(2, a "b)')
    odd.set_sorting("x desc", 'a "b desc')
    assert odd.sorting == ("x desc", 'a "b desc')
    lake.sql("""INSERT INTO odd SELECT i % 2, 'v' || i, i FROM range(50) t(i)""")
    assert odd.row_count == 50


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("year(id)", "needs a date or timestamp"),
        ("hour(day)", "needs a timestamp"),
        ("bucket(0, id)", "from 1 to 10,000"),
        ("bucket(id)", "cannot be partitioned by"),
        ("year(2, day)", "cannot be partitioned by"),
        ("truncate(1, origin)", "cannot be partitioned by"),
        ("list", "cannot be partitioned by"),
        (3, "is text"),
    ],
)
def test_what_cannot_be_partitioned_by(table, part, says):
    before = table.version
    with pytest.raises(LakehouseError, match=says):
        table.set_partitioning(part)
    assert table.version == before


def test_wrong_columns_and_read_only_lakes(lake, table):
    for attempt in (table.set_partitioning, table.set_sorting):
        for name in ("orgin", "year(orgin)") if attempt == table.set_partitioning else ("orgin", "orgin desc"):
            with pytest.raises(ColumnNotFound) as raised:
                attempt(name)
            assert "origin" in raised.value.hint
    with pytest.raises(LakehouseError, match="text"):
        table.set_sorting(3)
    with lakehouse.open(lake.path, read_only=True) as reader, pytest.raises(LakeReadOnly):
        reader.catalog.table("t").set_partitioning("origin")
