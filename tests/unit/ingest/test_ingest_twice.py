"""The same content again: recognised by table, content, mode and options, and by nothing else."""

import pandas as pd
import pyarrow as pa
import pytest

import lakehouse

TEXT = "id,name\n" + "".join(f"{i},n{i}\n" for i in range(20))


@pytest.fixture
def source(tmp_path):
    (tmp_path / "a.csv").write_text(TEXT)
    return tmp_path / "a.csv"


def count(lake, table="t"):
    return lake.sql(f"SELECT count(*) FROM {table}").fetchall()[0][0]


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_the_second_load_gives_the_first_receipt(lake, source, mode):
    first = lake.ingest(source, "t", mode=mode)
    before = lake.catalog.snapshots()
    again = lake.ingest(source, "t", mode=mode)
    assert (first.duplicate, again.duplicate) == (False, True)
    for name in ("table", "rows", "snapshot", "sha256", "source", "mode"):
        assert getattr(again, name) == getattr(first, name)
    assert lake.catalog.snapshots() == before
    assert count(lake) == 20


def test_another_name_of_the_same_content(lake, source, tmp_path):
    first = lake.ingest(source, "t")
    (tmp_path / "copy.csv").write_text(TEXT)
    assert lake.ingest(tmp_path / "copy.csv", "t").snapshot == first.snapshot
    assert count(lake) == 20


def test_other_content_of_the_same_size(lake, source):
    lake.ingest(source, "t")
    source.write_text(TEXT.replace("n7", "m7"))
    assert lake.ingest(source, "t").duplicate is False
    assert count(lake) == 40


def test_after_opening_the_lake_again(lake, source):
    first = lake.ingest(source, "t")
    with lakehouse.open(lake.path) as again:
        receipt = again.ingest(source, "t")
    assert (receipt.duplicate, receipt.snapshot) == (True, first.snapshot)


def test_force_loads_again(lake, source):
    lake.ingest(source, "t")
    assert lake.ingest(source, "t", force=True).duplicate is False
    assert count(lake) == 40


def test_other_mode_options_or_table_is_another_load(lake, source):
    lake.ingest(source, "t")
    assert lake.ingest(source, "t", options={"types": {"id": "BIGINT"}}).duplicate is False
    assert lake.ingest(source, "t", format="csv").duplicate is True  # it is what was found by itself
    assert count(lake) == 40
    assert lake.ingest(source, "t", mode="replace").duplicate is False
    assert count(lake) == 20
    assert lake.ingest(source, "u").duplicate is False


def test_replaced_by_something_else_the_first_content_is_new_again(lake, source):
    lake.ingest(source, "t")
    other = pd.DataFrame({"id": [1], "name": ["x"]})
    lake.ingest(other, "t", mode="replace")
    assert lake.ingest(source, "t").duplicate is False
    assert count(lake) == 21
    assert lake.ingest(other, "t", mode="replace").duplicate is False
    assert count(lake) == 1


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO t VALUES (99, 'x')",
        "DELETE FROM t WHERE id < 5",
        "UPDATE t SET name = 'x' WHERE id = 3",
        "ALTER TABLE t ADD COLUMN more INTEGER",
    ],
)
def test_replace_restores_a_table_that_was_changed_since(lake, source, change):
    lake.ingest(source, "t", mode="replace")
    lake.sql(change)
    assert lake.ingest(source, "t", mode="replace").duplicate is False
    assert lake.sql("SELECT id, name FROM t ORDER BY id").fetchall() == [(i, f"n{i}") for i in range(20)]
    assert [column.name for column in lake.catalog.table("t").schema] == ["id", "name"]
    assert lake.ingest(source, "t", mode="replace").duplicate is True


def test_append_is_recognised_although_other_rows_came_since(lake, source):
    lake.ingest(source, "t")
    lake.sql("INSERT INTO t VALUES (99, 'x')")
    assert lake.ingest(source, "t").duplicate is True


@pytest.mark.parametrize("delete", ["DELETE FROM t", "DELETE FROM t WHERE id < 5", "TRUNCATE t"])
@pytest.mark.parametrize("rows", [8, 20], ids=["kept in the catalog", "in a file"])
def test_append_loads_again_after_rows_were_deleted(lake, source, delete, rows):
    source.write_text("".join(TEXT.splitlines(keepends=True)[: rows + 1]))
    lake.sql("CREATE TABLE t (id BIGINT, name VARCHAR); CREATE TABLE u (id BIGINT)")
    lake.ingest(source, "t")
    lake.sql("INSERT INTO u VALUES (1); DELETE FROM u")
    assert lake.ingest(source, "t").duplicate is True  # another table's deletes
    lake.sql(delete)
    left = count(lake)
    assert left < rows
    again = lake.ingest(source, "t")
    assert (again.duplicate, count(lake)) == (False, left + rows)
    assert lake.ingest(source, "t").snapshot == again.snapshot


def test_append_is_recognised_although_rows_were_updated(lake, source):
    lake.ingest(source, "t")
    lake.sql("UPDATE t SET name = 'x' WHERE id < 5")
    assert lake.ingest(source, "t").duplicate is True
    assert count(lake) == 20


def test_a_dropped_and_new_table_has_loaded_nothing(lake, source):
    lake.ingest(source, "t")
    lake.catalog.drop("t")
    assert lake.ingest(source, "t").duplicate is False
    lake.catalog.drop("t")
    lake.sql("CREATE TABLE t (id BIGINT, name VARCHAR)")
    assert lake.ingest(source, "t").duplicate is False
    assert count(lake) == 20


def test_a_renamed_table_keeps_its_loads_and_its_old_name_has_none(lake, source):
    first = lake.ingest(source, "t")
    lake.sql("ALTER TABLE t RENAME TO u")
    again = lake.ingest(source, "u")
    assert (again.duplicate, again.snapshot, again.table) == (True, first.snapshot, "u")
    assert lake.ingest(source, "t").duplicate is False
    assert (count(lake, "t"), count(lake, "u")) == (20, 20)


def test_loads_of_a_table_that_took_over_the_name_are_not_those_of_the_renamed(lake, source):
    lake.ingest(pd.DataFrame({"id": [1], "name": ["x"]}), "t")
    lake.sql("ALTER TABLE t RENAME TO u")
    lake.ingest(source, "t")
    assert lake.ingest(source, "u").duplicate is False
    assert count(lake, "u") == 21


def test_a_dot_in_a_name_is_not_a_schema(lake, source):
    lake.catalog.create_schema("a")
    lake.sql('CREATE TABLE "a.b" (id BIGINT, name VARCHAR)')
    assert lake.ingest(source, "a.b").table == "a.b"
    receipt = lake.ingest(source, '"a.b"')
    assert (receipt.duplicate, receipt.table) == (False, '"a.b"')
    assert count(lake, '"a.b"') == 20


def test_names_in_other_cases_are_the_same_table(lake, source):
    lake.catalog.create_schema("Sales")
    first = lake.ingest(source, "sales.Flights")
    again = lake.ingest(source, "SALES.flights")
    assert (again.duplicate, again.snapshot, first.table, again.table) == (
        True,
        first.snapshot,
        "Sales.Flights",
        "Sales.Flights",
    )


def test_a_failed_load_does_not_count(lake, tmp_path):
    bad = tmp_path / "a.csv"
    bad.write_text("id,name\n1,a,b\n")
    with pytest.raises(lakehouse.LakehouseError):
        lake.ingest(bad, "t")
    bad.write_text("id,name\n1,a\n")
    assert lake.ingest(bad, "t").duplicate is False


def test_frames_and_streams(lake):
    table = pa.table({"id": range(100)})
    first = lake.ingest(table, "t")
    assert lake.ingest(table, "t").snapshot == first.snapshot
    assert lake.ingest(pa.table({"id": range(1, 101)}), "t").duplicate is False
    stream = lake.ingest(table.to_reader(10), "s")
    again = lake.ingest(table.to_reader(10), "s")
    assert (again.duplicate, again.snapshot, again.rows) == (True, stream.snapshot, 100)
    kept = [file.path for file in _files(lake)]
    assert sorted(path.name for path in (lake.path / "data").rglob("*.parquet")) == sorted(kept)


def _files(lake):
    from types import SimpleNamespace

    rows = lake.catalog.metadata.rows("s", "SELECT path FROM ducklake_data_file")
    return [SimpleNamespace(path=row[0].rsplit("/", 1)[-1]) for row in rows]
