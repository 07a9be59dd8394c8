"""What differs between two snapshots."""

import json

import pytest

from lakehouse import errors


def test_diff_names_everything_that_changed(lake):
    lake.sql("CREATE SCHEMA old")
    lake.sql("CREATE TABLE old.dropped AS SELECT range AS i FROM range(20)")
    lake.sql("CREATE TABLE t AS SELECT range AS i, 'x' AS s FROM range(100)")
    lake.sql("CREATE TABLE same AS SELECT 1 AS x")
    lake.sql("CREATE TABLE described AS SELECT 1 AS x")
    lake.catalog.create_view("v", "SELECT i FROM t")
    a = lake.catalog.create_view("gone", "SELECT i FROM t").version
    lake.sql("DELETE FROM t WHERE i < 10")
    lake.sql("UPDATE t SET s = 'y' WHERE i = 50")
    lake.sql("INSERT INTO t VALUES (200, 'z')")
    lake.sql("ALTER TABLE t ADD COLUMN c INTEGER")
    lake.sql("ALTER TABLE t RENAME TO u")
    lake.sql("DROP TABLE old.dropped; DROP SCHEMA old")
    lake.sql("CREATE SCHEMA new; CREATE TABLE new.made AS SELECT range AS i FROM range(30)")
    lake.sql("DROP VIEW gone")
    lake.catalog.create_view("v", "SELECT i FROM u", replace=True)
    lake.catalog.create_view("fresh", "SELECT i FROM u")
    b = lake.catalog.table("described").set_comment("now it is")
    found = lake.diff(a, b)
    assert (found.schemas_added, found.schemas_dropped) == (("new",), ("old",))
    assert (found.added, found.dropped) == ({"new.made": 30}, {"old.dropped": 20})
    assert (found.views_added, found.views_dropped, found.views_changed) == (("fresh",), ("gone",), ("v",))
    described, table = found.changed
    assert (described.name, described.described, described.columns) == ("described", True, ())
    assert (table.name, table.was) == ("u", "t")
    assert table.columns == ("c int32 was added",)
    assert (table.rows_before, table.rows_after) == (100, 91)
    assert (table.inserted, table.updated, table.deleted) == (1, 1, 10)
    assert bool(found)
    assert json.loads(json.dumps(found.to_dict()))["changed"][1]["deleted"] == 10
    text = repr(found)
    for line in (
        f"snapshot {a} → {b}",
        "+ schema new",
        "- schema old",
        "+ table new.made: 30 rows",
        "- table old.dropped: 20 rows",
        "~ table t → u: 100 → 91 rows, 1 inserted, 1 updated, 10 deleted",
        "    c int32 was added",
        "~ table described: described or laid out anew",
        "+ view fresh",
        "- view gone",
        "~ view v",
    ):
        assert line in text.splitlines()


def test_nothing_differs(lake):
    lake.sql("CREATE TABLE t AS SELECT range AS i FROM range(100)")
    a = lake.sql("DELETE FROM t WHERE i < 50").snapshot
    with lake._writer.plain() as connection:
        connection.execute("CALL ducklake_flush_inlined_data('lake')")
        connection.execute("CALL ducklake_rewrite_data_files('lake', delete_threshold => 0.01)")
    assert lake.catalog.current_snapshot().id > a
    found = lake.diff(a)
    assert not found
    assert "nothing differs" in repr(found)
    assert not lake.diff(a, a)
    with pytest.raises(errors.LakehouseError, match="comes after"):
        lake.diff(a, 0)
    with pytest.raises(errors.SnapshotNotFound):
        lake.diff(0, 99)


def test_a_rollback_shows_as_its_rows(lake):
    lake.sql("CREATE TABLE t AS SELECT range AS i FROM range(100)")
    a = lake.sql("INSERT INTO t SELECT 1000 FROM range(20)").snapshot
    lake.catalog.table("t").rollback(1)
    (table,) = lake.diff(a).changed
    assert (table.rows_before, table.rows_after, table.deleted, table.inserted) == (120, 100, 20, 0)
    (table,) = lake.diff(1).changed
    assert (table.rows_before, table.rows_after, table.deleted, table.inserted) == (100, 100, 20, 20)
