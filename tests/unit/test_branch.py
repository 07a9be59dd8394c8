"""Write, audit, publish: a branch that nobody sees until all of it is in the lake at once."""

import pyarrow as pa
import pytest

import lakehouse
from lakehouse import errors
from lakehouse.health import leftovers


def rows(lake, table):
    return sorted(lake.sql(f"FROM {table}").fetchall(), key=repr)


@pytest.fixture
def base(lake):
    """A lake with files, deletions, rows in the catalog, a view and a schema."""
    lake.sql("CREATE SCHEMA s")
    lake.sql("CREATE TABLE t AS SELECT range AS id, 'v' || range AS s FROM range(100)")
    lake.sql("DELETE FROM t WHERE id % 10 = 0")
    lake.sql("INSERT INTO t VALUES (1000, NULL), (1000, NULL)")
    lake.sql("CREATE TABLE s.other AS SELECT range AS id FROM range(50)")
    lake.sql("CREATE TABLE untouched AS SELECT 1 AS x")
    lake.catalog.create_view("v", "SELECT count(*) AS n FROM t")
    return lake


def test_what_is_written_in_a_branch_is_seen_only_there(base):
    before = rows(base, "t")
    newest = base.catalog.current_snapshot().id
    with base.branch("staging") as b:
        assert b.base == newest
        assert rows(b, "t") == before
        b.sql("UPDATE t SET s = 'changed' WHERE id < 50")
        b.sql("DELETE FROM t WHERE id > 50")
        b.ingest(pa.table({"id": [1, 2]}), "loaded")
        assert b.table("t").row_count < len(before)
        assert b.sql("FROM v").fetchall()[0][0] == b.table("t").row_count
        assert rows(b, "loaded") == [(1,), (2,)]
        base.sql("INSERT INTO s.other VALUES (99)")
        assert b.sql("SELECT count(*) FROM s.other").fetchall() == [(50,)], "it sees the lake as it was"
        assert rows(base, "t") == before
        assert base.catalog.current_snapshot().id == newest + 1
    assert rows(base, "t") == before
    assert not b.path.exists()
    assert [t.name for t in base.catalog.tables()] == ["t", "untouched", "other"]
    with pytest.raises(errors.LakehouseError, match="not open"):
        b.sql("FROM t")


def test_publish_lands_everything_in_one_commit(base):
    base.catalog.table("t").set_tag("owner", "me")
    id = base.catalog.table("t").relation.id
    with base.branch("staging") as b:
        b.sql("UPDATE t SET s = 'changed' WHERE id < 50")
        b.sql("DELETE FROM t WHERE id BETWEEN 60 AND 70")
        b.sql("INSERT INTO t VALUES (7, 'new'), (7, 'new')")
        b.table("t").set_comment("checked")
        receipt = b.ingest(pa.table({"id": pa.array(range(500), pa.int64())}), "loaded")
        b.sql("DROP TABLE s.other")
        b.sql("DROP SCHEMA s")
        b.sql("CREATE SCHEMA fresh")
        b.sql("CREATE TABLE fresh.made (i BIGINT NOT NULL, d DATE)")
        b.sql("INSERT INTO fresh.made VALUES (1, NULL)")
        b.catalog.create_view("v", "SELECT count(*) + 1 AS n FROM t", replace=True)
        b.catalog.create_view("fresh.w", "SELECT i FROM fresh.made")
        names = ("t", "loaded", "fresh.made", "v", "fresh.w", "untouched")
        wanted = {name: rows(b, name) for name in names}
        before = base.sql("INSERT INTO untouched VALUES (2)").snapshot  # no conflict: the branch left it alone
        assert b.publish() == before + 1 == base.catalog.current_snapshot().id
        wanted["untouched"] = [(1,), (2,)]
        assert {name: rows(base, name) for name in names} == wanted
        assert {name: rows(b, name) for name in names} == wanted, "the branch goes on from there"
    assert base.catalog.schemas() == ["fresh", "main"]
    table = base.catalog.table("t")
    assert (table.relation.id, table.comment, table.tags) == (id, "checked", {"owner": "me"})
    note = base.catalog.current_snapshot().note
    assert '"operation":"publish"' in note
    assert receipt.sha256 in note
    with pytest.raises(errors.LakehouseError, match="NOT NULL"):
        base.sql("INSERT INTO fresh.made (i) VALUES (NULL)")


def test_publish_after_a_change_of_columns(base):
    with base.branch("staging") as b:
        b.table("t").add_column("x", "INTEGER", default=5)
        b.table("t").rename_column("s", "text")
        b.sql("ALTER TABLE untouched RENAME TO renamed")
        wanted = rows(b, "t")
        b.publish()
    assert rows(base, "t") == wanted
    assert [c.name for c in base.catalog.table("t").schema] == ["id", "text", "x"]
    assert rows(base, "renamed") == [(1,)]


def test_publish_twice_and_nothing_to_publish(base):
    newest = base.catalog.current_snapshot().id
    with base.branch("staging") as b:
        assert b.publish() == newest
        b.sql("INSERT INTO untouched VALUES (2)")
        b.publish("the first")
        b.sql("INSERT INTO untouched VALUES (3)")
        assert b.publish() == newest + 2
    assert rows(base, "untouched") == [(1,), (2,), (3,)]
    assert [s.message for s in base.catalog.snapshots(2)] == ["publish the branch staging", "the first"]


CONFLICTS = [
    ("INSERT INTO t VALUES (5, 'b')", "INSERT INTO t VALUES (6, 'l')", "t"),
    ("DELETE FROM t WHERE id = 1", "UPDATE t SET s = 'l' WHERE id = 2", "t"),
    ("INSERT INTO t VALUES (5, 'b')", "ALTER TABLE t ADD COLUMN x INTEGER", "t"),
    ("INSERT INTO t VALUES (5, 'b', 1)", "COMMENT ON TABLE t IS 'lake'", "t"),
    ("CREATE OR REPLACE VIEW v AS SELECT 1 AS n", "CREATE OR REPLACE VIEW v AS SELECT 2 AS n", "v"),
    ("CREATE TABLE fresh AS SELECT 1 AS x", "CREATE VIEW fresh AS SELECT 2 AS x", "fresh"),
    ("INSERT INTO t VALUES (5, 'b', 1)", "ALTER TABLE t RENAME TO renamed", "t"),
    ("DROP TABLE renamed", "DELETE FROM renamed WHERE id = 1", "renamed"),
    ("INSERT INTO renamed VALUES (5, 'b', 1)", "DROP TABLE renamed", "renamed"),
    ("DROP TABLE s.other; DROP SCHEMA s", "CREATE TABLE s.late AS SELECT 1 AS x", "s.late"),
    ("INSERT INTO s.late VALUES (1)", "DROP TABLE s.other; DROP TABLE s.late; DROP SCHEMA s", "s.late"),
]
"""What the branch does, what the lake does meanwhile, and the name in the conflict; one after the other."""


def test_a_conflict_names_the_tables_and_publishes_nothing(base):
    for in_branch, in_lake, named in CONFLICTS:
        with base.branch("staging") as b:
            b.sql("CREATE TABLE also AS SELECT 1 AS x")
            b.sql(in_branch)
            after = base.sql(in_lake).snapshot
            with pytest.raises(errors.Conflict, match=rf"(?m)changed {named}$"):
                b.publish()
            assert base.catalog.current_snapshot().id == after
            assert not [t for t in base.catalog.tables() if t.name == "also"]


def test_files_moved_by_maintenance_are_no_conflict(base):
    with base.branch("staging") as b:
        b.sql("DELETE FROM t WHERE id < 20")
        b.sql("INSERT INTO t VALUES (5, 'b')")
        wanted = rows(b, "t")
        with base._writer.plain() as connection:
            connection.execute("CALL ducklake_flush_inlined_data('lake')")
            connection.execute("CALL ducklake_rewrite_data_files('lake', delete_threshold => 0.01)")
            connection.execute("CALL ducklake_merge_adjacent_files('lake')")
        b.publish()
    assert rows(base, "t") == wanted


def test_an_error_in_the_block_publishes_nothing(base):
    before = base.catalog.current_snapshot().id
    with pytest.raises(ZeroDivisionError), base.branch("staging") as b:
        b.sql("DROP TABLE t")
        raise ZeroDivisionError
    assert base.catalog.current_snapshot().id == before
    assert leftovers.branches(base.path, dry_run=True) == []
    assert list(b.path.parent.iterdir()) == []


def test_names_of_branches(base):
    with base.branch("one") as one, base.branch("two") as two:
        one.sql("INSERT INTO t VALUES (1, 'one')")
        two.sql("INSERT INTO untouched VALUES (2)")
        with pytest.raises(errors.AlreadyExists, match="one"), base.branch("one"):
            pass
        assert leftovers.branches(base.path, dry_run=True) == []
        one.publish()
        two.publish()
    for name in ("", "../x", "a b", "x/y", ".hidden", "x" * 64, None):
        with pytest.raises(errors.LakehouseError, match="cannot be the name"):
            base.branch(name)
    with lakehouse.open(base.path, read_only=True) as reading, pytest.raises(errors.LakeReadOnly):
        reading.branch("staging")
    with base.branch("one") as b, b.lake.transaction(), pytest.raises(errors.QueryError, match="transaction"):
        b.publish()
    with lakehouse.open(base.path) as again:
        assert again.catalog.table("t").row_count == base.catalog.table("t").row_count


def test_the_lake_can_be_loaded_and_deleted_from_while_a_branch_reads(base):
    """Hard links: what the lake throws away stays readable in the branch."""
    with base.branch("staging") as b:
        before = rows(b, "t")
        for path in base.path.glob("data/**/*.parquet"):
            path.unlink()
        assert rows(b, "t") == before
