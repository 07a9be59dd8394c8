"""Names of snapshots, usable wherever a version is asked for, and tags of tables."""

import pytest

import lakehouse
from lakehouse import errors


@pytest.fixture
def three(lake):
    """A table with one row more in each of the snapshots 1 to 3."""
    lake.sql("CREATE TABLE t AS SELECT 1 AS x")
    lake.sql("INSERT INTO t VALUES (2)")
    lake.sql("INSERT INTO t VALUES (3)")
    return lake


def test_a_named_snapshot_is_a_version_everywhere(three):
    catalog = three.catalog
    assert catalog.snapshot_tags() == {}
    assert catalog.tag_snapshot("2026-q3", 2) == 2
    assert catalog.tag_snapshot("newest") == 3
    assert catalog.snapshot_tags() == {"2026-q3": 2, "newest": 3}
    assert catalog.resolve("2026-q3") == 2
    assert catalog.resolve(" newest ") == 3
    assert three.sql("SELECT max(x) FROM t", at="2026-q3").fetchall() == [(2,)]
    assert catalog.table("t").at("2026-q3").row_count == 2
    assert catalog.table("t").changes("newest").column("x").to_pylist() == [3]
    assert three.diff("2026-q3").end == 3
    with lakehouse.open(three.path, at="2026-q3") as pinned:
        assert pinned.sql("SELECT count(*) FROM t").fetchall() == [(2,)]
    with lakehouse.open(three.path) as again:
        assert again.catalog.snapshot_tags() == {"2026-q3": 2, "newest": 3}


def test_a_tag_is_moved_only_when_asked(three):
    three.catalog.tag_snapshot("good", 1)
    assert three.catalog.tag_snapshot("good", 1) == 1
    with pytest.raises(errors.AlreadyExists, match="stands at snapshot 1"):
        three.catalog.tag_snapshot("good", 2)
    assert three.catalog.resolve("good") == 1
    assert three.catalog.tag_snapshot("good", 2, replace=True) == 2
    assert three.catalog.tag_snapshot("better", "good") == 2
    assert three.catalog.untag_snapshot("good") == 2
    with pytest.raises(errors.SnapshotNotFound, match="no tag 'good'"):
        three.catalog.untag_snapshot("good")
    with pytest.raises(errors.SnapshotNotFound, match="'bette' is neither") as caught:
        three.catalog.resolve("bette")
    assert "better" in caught.value.hint


@pytest.mark.parametrize(
    "name",
    ["", " a", "12", "1.5", "-3", "1e3", "2026-01-31", "20260131", "2026-01-31T18:00", "a\nb", "x" * 201, None, 7],
)
def test_names_that_could_mean_something_else_are_refused(lake, name):
    with pytest.raises(errors.LakehouseError, match=r"cannot be|is text"):
        lake.catalog.tag_snapshot(name)


def test_what_is_not_there_cannot_be_tagged(three):
    with pytest.raises(errors.SnapshotNotFound):
        three.catalog.tag_snapshot("future", 99)
    assert three.catalog.snapshot_tags() == {}


def test_tags_of_a_table_stay_with_it(three):
    table = three.catalog.table("t")
    assert table.tags == {}
    table.set_tag("owner", "sales")
    table.set_tag("pii", "no")
    table.set_tag("pii", "yes")
    three.sql("ALTER TABLE t RENAME TO renamed")
    assert three.catalog.table("renamed").tags == {"owner": "sales", "pii": "yes"}
    table.set_tag("pii", None)
    assert table.tags == {"owner": "sales"}
    assert table.at(1).tags == {"owner": "sales"}
    three.sql("CREATE TABLE t AS SELECT 1 AS x")
    assert three.catalog.table("t").tags == {}
    for key, value in (("", "x"), ("a\x00", "x"), (3, "x"), ("k", 3)):
        with pytest.raises(errors.LakehouseError):
            table.set_tag(key, value)
    three.sql("DROP TABLE renamed")
    with pytest.raises(errors.TableNotFound):
        table.set_tag("owner", "nobody")


def test_tagging_is_refused_where_nothing_may_be_written(three):
    for opened in (lakehouse.open(three.path, read_only=True), lakehouse.open(three.path, at=2)):
        with opened:
            assert opened.catalog.snapshot_tags() == {}
            with pytest.raises(errors.LakeReadOnly):
                opened.catalog.tag_snapshot("x", 1)
            with pytest.raises(errors.LakeReadOnly):
                opened.catalog.untag_snapshot("x")
            with pytest.raises(errors.LakeReadOnly):
                opened.catalog.table("t").set_tag("a", "b")
    assert not (three.path / "state.sqlite").exists(), "reading makes no file"


def test_tagging_inside_a_transaction_is_refused(three):
    with three.transaction():
        with pytest.raises(errors.QueryError, match="before or after"):
            three.catalog.tag_snapshot("x")
        with pytest.raises(errors.QueryError, match="before or after"):
            three.catalog.table("t").set_tag("a", "b")
    assert three.catalog.snapshot_tags() == {}
