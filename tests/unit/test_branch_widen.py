"""A table that a branch made anew with wider types, then published, is still the table that it was."""

import pytest


@pytest.fixture
def loaded(lake, tmp_path):
    """A table of whole numbers with a tag, and a file with fractions for it."""
    for name, text in (("whole", "id,x\n1,1\n2,2\n"), ("halves", "id,x\n3,1.5\n4,2.5\n")):
        (tmp_path / f"{name}.csv").write_text(text)
    lake.ingest(tmp_path / "whole.csv", "t")
    lake.catalog.table("t").set_tag("owner", "ann")
    return lambda name: tmp_path / f"{name}.csv"


def rows(lake):
    return lake.sql("SELECT id, x::DOUBLE FROM t ORDER BY 1").fetchall()


WANTED = [(1, 1.0), (2, 2.0), (3, 1.5), (4, 2.5)]


def test_it_keeps_tags_loads_and_its_past(lake, loaded):
    before = lake.catalog.current_snapshot().id
    with lake.branch("staging") as branch:
        branch.ingest(loaded("halves"), "t", contract="evolve")
        assert branch.catalog.table("t").tags == {"owner": "ann"}
        branch.publish()
    assert rows(lake) == WANTED
    assert str(lake.catalog.table("t").schema[1].type) != "BIGINT"
    assert lake.catalog.table("t").tags == {"owner": "ann"}
    assert lake.ingest(loaded("whole"), "t").duplicate
    assert lake.ingest(loaded("halves"), "t").duplicate
    assert rows(lake) == WANTED
    lake.catalog.table("t").rollback(before, allow_schema_change=True)
    assert rows(lake) == WANTED[:2]
    assert lake.catalog.table("t").tags == {"owner": "ann"}


def test_what_was_deleted_in_the_branch_may_be_loaded_again(lake, loaded):
    with lake.branch("staging") as branch:
        branch.ingest(loaded("halves"), "t", contract="evolve")
        branch.sql("DELETE FROM t WHERE id < 3")
        branch.publish()
    assert rows(lake) == WANTED[2:]
    assert lake.catalog.table("t").tags == {"owner": "ann"}
    assert not lake.ingest(loaded("whole"), "t").duplicate
    assert rows(lake) == WANTED


def test_a_table_that_the_branch_made_itself_takes_nobodys_tags(lake, loaded):
    with lake.branch("staging") as branch:
        branch.sql("CREATE TABLE fresh AS SELECT 1 AS x")
        id = branch.catalog.table("fresh").relation.id
        lake.sql("CREATE TABLE late AS SELECT 1 AS x")
        assert lake.catalog.table("late").relation.id == id
        lake.catalog.table("late").set_tag("secret", "yes")
        branch.publish()
    assert lake.catalog.table("fresh").tags == {}
    assert lake.catalog.table("late").tags == {"secret": "yes"}


def test_widened_and_rolled_back_in_the_branch_it_has_the_rows_it_had(lake, loaded):
    with lake.branch("staging") as branch:
        begun = branch.catalog.current_snapshot().id
        branch.ingest(loaded("halves"), "t", contract="evolve")
        branch.lake.rollback(begun)
        branch.sql("INSERT INTO t VALUES (9, 9)")
        branch.publish()
    assert rows(lake) == [*WANTED[:2], (9, 9.0)]
    assert lake.catalog.table("t").tags == {"owner": "ann"}
    assert lake.catalog.table("t").files() is not None


def test_a_diff_across_a_widening_tells_one_table_that_changed(lake, loaded):
    before = lake.catalog.current_snapshot().id
    lake.sql("DELETE FROM t WHERE id = 1")
    lake.ingest(loaded("halves"), "t", contract="evolve")
    lake.sql("UPDATE t SET x = 0 WHERE id = 4")
    told = lake.diff(before)
    assert (told.added, told.dropped) == ({}, {})
    (table,) = told.changed
    assert (table.name, table.rows_before, table.rows_after) == ("t", 2, 3)
    assert (table.inserted, table.updated, table.deleted) == (2, 1, 1)
    assert len(table.columns) == 1
    assert "x" in table.columns[0]


def test_the_history_goes_on_behind_a_rollback_past_a_widening(lake, loaded):
    lake.sql("UPDATE t SET x = 5 WHERE id = 1")
    before = lake.catalog.current_snapshot().id
    lake.ingest(loaded("halves"), "t", contract="evolve")
    past = [(c.snapshot.id, c.inserted, c.updated, c.deleted) for c in lake.catalog.table("t").history()]
    rolled = lake.rollback(before)
    lake.sql("DELETE FROM t WHERE id = 2")
    told = [(c.snapshot.id, c.inserted, c.updated, c.deleted) for c in lake.catalog.table("t").history()]
    assert told == [(rolled + 1, 0, 0, 1), (rolled, 2, 0, 4), *past]
    assert [counts for _, *counts in past] == [[2, 0, 0], [0, 0, 0], [0, 1, 0], [2, 0, 0]]
    assert lake.catalog.table("t").history(limit=3) == lake.catalog.table("t").history()[:3]
