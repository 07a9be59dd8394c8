"""Rejects stay with their table, whatever it is called; those of a dropped one wait for the next of its name."""

import pytest

from lakehouse import errors


@pytest.fixture
def load(lake, tmp_path):
    lake.sql("CREATE TABLE t (id INTEGER, x INTEGER)")

    def load(text, table="t", name="a.csv"):
        (tmp_path / name).write_text("id,x\n" + text)
        return lake.ingest(tmp_path / name, table, contract="quarantine")

    return load


def tables(lake):
    return [table.name for table in lake.catalog.tables()]


def test_a_retry_after_a_rename(lake, load):
    load("1,1\n2,y\n")
    lake.sql("ALTER TABLE t RENAME TO u")
    lake.sql("UPDATE t__rejects SET raw = '2,2'")
    with pytest.raises(errors.TableNotFound, match="t__rejects"):
        lake.ingest.retry("t")
    before = lake.catalog.current_snapshot().id
    receipt = lake.ingest.retry("u")
    assert (receipt.table, receipt.rows, receipt.rejected, receipt.snapshot) == ("u", 1, 0, before + 1)
    assert (tables(lake), lake.sql("FROM u ORDER BY id").fetchall()) == (["u", "u__rejects"], [(1, 1), (2, 2)])


def test_a_load_after_a_rename_and_another_table_of_the_old_name(lake, load):
    load("q,q\n")
    lake.sql("ALTER TABLE t RENAME TO u")
    assert load("q,q\n", "u").duplicate is True
    lake.sql("CREATE TABLE t (id INTEGER, x INTEGER)")
    receipt = load("5,5\n6,six\n", "t", "b.csv")
    assert (receipt.rows, receipt.rejected) == (1, 1)
    assert tables(lake) == ["t", "t__rejects", "u", "u__rejects"]
    assert lake.sql("SELECT raw FROM t__rejects").fetchall() == [("6,six",)]
    load("7,seven\n", "u", "c.csv")
    assert lake.sql("SELECT raw FROM u__rejects ORDER BY raw").fetchall() == [("7,seven",), ("q,q",)]
    lake.sql("UPDATE t__rejects SET raw = '6,6'")
    assert (lake.ingest.retry("t").rows, lake.ingest.retry("u").rejected) == (1, 2)
    assert lake.sql("FROM t ORDER BY id").fetchall() == [(5, 5), (6, 6)]


def test_two_tables_exchange_their_names(lake, load):
    lake.sql("CREATE TABLE u (id INTEGER, x INTEGER)")
    load("1,of t\n")
    load("2,of u\n", "u", "b.csv")
    for old, new in (("t", "between"), ("u", "t"), ("between", "u")):
        lake.sql(f"ALTER TABLE {old} RENAME TO {new}")
    lake.sql("UPDATE t__rejects SET raw = '1,1'")
    lake.sql("UPDATE u__rejects SET raw = '2,2'")
    assert (lake.ingest.retry("u").rows, lake.ingest.retry("t").rows) == (1, 1)
    assert (lake.sql("FROM u").fetchall(), lake.sql("FROM t").fetchall()) == ([(1, 1)], [(2, 2)])


def test_replacing_and_widening_a_renamed_table(lake, load, tmp_path):
    load("1,1\n2,y\n")
    lake.sql("ALTER TABLE t RENAME TO u")
    (tmp_path / "b.csv").write_text("id,x\n3,0.5\n")
    lake.ingest(tmp_path / "b.csv", "u", contract="evolve")  # the table is made anew, with another id
    load("4,z\n", "u", "c.csv")
    assert tables(lake) == ["u", "u__rejects"]
    assert lake.sql("SELECT raw FROM u__rejects ORDER BY raw").fetchall() == [("2,y",), ("4,z",)]
    lake.sql("ALTER TABLE u RENAME TO v")
    lake.ingest(tmp_path / "b.csv", "v", mode="replace")
    assert lake.sql("SELECT count(*) FROM u__rejects").fetchall() == [(0,)]


def test_the_rejects_of_a_dropped_table_wait_for_the_next_of_its_name(lake, load):
    load("1,1\n2,y\n")
    lake.sql("DROP TABLE t")
    assert lake.sql("SELECT raw FROM t__rejects").fetchall() == [("2,y",)]
    with pytest.raises(errors.TableNotFound, match="there is no table 't'"):
        lake.ingest.retry("t")
    lake.sql("CREATE TABLE t (id INTEGER, x VARCHAR)")
    assert (lake.ingest.retry("t").rows, lake.sql("FROM t").fetchall()) == (1, [(2, "y")])


def test_a_name_that_is_taken(lake, load):
    load("2,y\n")
    lake.sql("ALTER TABLE t RENAME TO u")
    lake.sql("CREATE TABLE u__rejects (mine INTEGER)")
    before = lake.catalog.snapshots()
    with pytest.raises(errors.IngestError, match="u__rejects"):
        lake.ingest.retry("u")
    assert lake.catalog.snapshots() == before
