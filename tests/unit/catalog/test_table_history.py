"""What commits did to a table, and going back: a table, the whole lake."""

import datetime

import pyarrow as pa
import pytest

import lakehouse
from lakehouse import errors


def rows(lake, table, at=None):
    """All rows as a sorted multiset, read through SQL."""
    return sorted(lake.sql(f"FROM {table}", at=at).fetchall(), key=repr)


def compacted(lake):
    """What maintenance does to files: merged, and rewritten without their deleted rows."""
    with lake._writer.plain() as connection:
        connection.execute("CALL ducklake_flush_inlined_data('lake')")
        connection.execute("CALL ducklake_rewrite_data_files('lake', delete_threshold => 0.01)")
        connection.execute("CALL ducklake_merge_adjacent_files('lake')")


@pytest.fixture
def table(lake):
    """A table with files, rows in the catalog, a deletion and an update; the snapshot of each by name."""
    at = {
        "made": lake.sql("CREATE TABLE t (id BIGINT, s VARCHAR)").snapshot,
        "two": lake.sql("INSERT INTO t VALUES (1, 'a'), (2, NULL)").snapshot,
        "many": lake.sql("INSERT INTO t SELECT range + 10, 'm' FROM range(100)").snapshot,
        "updated": lake.sql("UPDATE t SET s = 'u' WHERE id IN (2, 15)").snapshot,
        "deleted": lake.sql("DELETE FROM t WHERE id = 1 OR id BETWEEN 20 AND 39").snapshot,
    }
    return lake.catalog.table("t"), at


def summed(changes):
    """How many rows of each kind each snapshot changed."""
    counted = changes.group_by(["snapshot_id", "change_type"]).aggregate([([], "count_all")]).to_pylist()
    return {(row["snapshot_id"], row["change_type"]): row["count_all"] for row in counted}


def test_changes_tell_what_each_commit_did(lake, table):
    t, at = table
    found = t.changes(at["made"])
    assert isinstance(found, pa.Table)
    assert found.column_names == ["snapshot_id", "rowid", "change_type", "id", "s"]
    expected = {
        (at["two"], "insert"): 2,
        (at["many"], "insert"): 100,
        (at["updated"], "update_preimage"): 2,
        (at["updated"], "update_postimage"): 2,
        (at["deleted"], "delete"): 21,
    }
    assert summed(found) == expected
    pairs = t.changes(at["updated"], at["updated"]).to_pylist()
    assert [(r["change_type"], r["id"], r["s"]) for r in pairs] == [
        ("update_preimage", 2, None),
        ("update_postimage", 2, "u"),
        ("update_preimage", 15, "m"),
        ("update_postimage", 15, "u"),
    ]
    assert pairs[0]["rowid"] == pairs[1]["rowid"]
    assert t.changes(0).equals(found), "from before the table was made"
    assert lake.sql("SELECT current_setting('disabled_optimizers')").fetchall() == [("",)], "it is given back"
    compacted(lake)
    assert summed(t.changes(at["made"])) == expected, "moving rows to other files changes none of them"


def test_rows_that_came_and_went_before_the_files_were_rewritten(lake):
    lake.sql("CREATE TABLE t (id BIGINT, s VARCHAR)")
    came = lake.sql("INSERT INTO t VALUES (0, NULL), (0, NULL), (0, 'x')").snapshot
    went = lake.sql("DELETE FROM t").snapshot
    compacted(lake)
    t = lake.catalog.table("t")
    assert summed(t.changes(came, came)) == {(came, "insert"): 3}
    assert summed(t.changes(went, went)) == summed(t.changes(went)) == {(went, "delete"): 3}
    assert [(c.snapshot.id, c.inserted, c.deleted) for c in t.history() if c.inserted or c.deleted] == [
        (went, 0, 3),
        (came, 3, 0),
    ]


def test_changes_include_both_ends(lake, table):
    t, at = table
    assert {key[0] for key in summed(t.changes(at["many"], at["updated"]))} == {at["many"], at["updated"]}
    assert t.changes(at["made"], at["made"]).num_rows == 0
    assert {key[0] for key in summed(t.at(at["many"]).changes(0))} == {at["two"], at["many"]}, "of a past state"
    with pytest.raises(errors.LakehouseError, match="comes after"):
        t.changes(at["deleted"], at["two"])
    with pytest.raises(errors.SnapshotNotFound):
        t.changes(999)


def test_changes_have_the_columns_of_the_end(lake, table):
    t, at = table
    t.add_column("x", "INTEGER", default=7)
    t.rename_column("s", "text")
    lake.sql("ALTER TABLE t RENAME TO other")
    lake.sql("UPDATE other SET x = 8 WHERE id = 2")
    found = t.changes(at["two"])
    assert found.column_names[3:] == ["id", "text", "x"]
    assert found.slice(0, 1).to_pylist()[0] == {
        "snapshot_id": at["two"],
        "rowid": 0,
        "change_type": "insert",
        "id": 1,
        "text": "a",
        "x": 7,
    }
    assert t.changes(at["two"], at["deleted"]).column_names[3:] == ["id", "s"]


def test_changes_of_a_view_and_of_odd_columns_are_refused(lake, table):
    view = lake.catalog.create_view("v", "SELECT id FROM t")
    with pytest.raises(errors.QueryError, match="is a view"):
        view.changes(0)
    lake.sql("CREATE TABLE odd (snapshot_id BIGINT)")
    with pytest.raises(errors.QueryError, match="rename"):
        lake.catalog.table("odd").changes(0)
    lake.sql("CREATE TABLE same (change_type VARCHAR)")
    lake.sql("INSERT INTO same VALUES ('x')")
    assert lake.catalog.table("same").changes(0).column(3).to_pylist() == ["x"]


@pytest.mark.parametrize("moment", ["made", "two", "many", "updated", "deleted"])
@pytest.mark.parametrize("compact", [False, True])
def test_rollback_gives_exactly_the_rows_of_then(lake, table, moment, compact):
    t, at = table
    t.set_comment("kept")
    t.set_tag("owner", "me")
    if compact:
        compacted(lake)
    before, latest = lake.catalog.current_snapshot().id, rows(lake, "t")
    wanted = sorted(lake.sql(f"SELECT * FROM t AT (VERSION => {at[moment]})").fetchall(), key=repr)
    snapshot = t.rollback(at[moment])
    assert rows(lake, "t") == wanted
    assert (t.comment, t.tags) == ("kept", {"owner": "me"})
    assert lake.catalog.table("t").relation.id == t.relation.id
    if moment != "deleted":
        assert snapshot == before + 1 == lake.catalog.current_snapshot().id
        note = lake.catalog.current_snapshot()
        assert f'"version":{at[moment]}' in note.note
        assert '"operation":"rollback"' in note.note
        assert '"tables":["t"]' in note.note
    t.rollback(before)
    assert rows(lake, "t") == latest, "a rollback can be undone"


def test_rollback_keeps_duplicates_nulls_and_types(lake):
    lake.sql(
        "CREATE TABLE t (i INTEGER, d DECIMAL(20,4), l VARCHAR[], s STRUCT(a INTEGER, b VARCHAR), f DOUBLE, b BLOB)"
    )
    values = "(1, 1.5, ['x', NULL], {'a': 1, 'b': 'y'}, 'nan', 'ab'::BLOB)"
    first = lake.sql(f"INSERT INTO t VALUES {values}, {values}, (NULL, NULL, NULL, NULL, NULL, NULL)").snapshot
    wanted = rows(lake, "t")
    lake.sql("DELETE FROM t WHERE i = 1")
    lake.sql("INSERT INTO t (i) VALUES (5)")
    lake.catalog.table("t").rollback(first)
    assert repr(rows(lake, "t")) == repr(wanted), "as text: NaN is equal to nothing"
    assert lake.sql("SELECT count(*) FROM t WHERE i IS NULL").fetchall() == [(1,)]


def test_rollback_of_a_table_with_odd_columns(lake):
    lake.sql("CREATE TABLE t (snapshot_id BIGINT, change_type VARCHAR)")
    first = lake.sql("INSERT INTO t VALUES (1, 'a'), (1, 'a'), (100, 'b')").snapshot
    wanted = rows(lake, "t")
    lake.sql("INSERT INTO t VALUES (0, 'b')")
    lake.sql("DELETE FROM t WHERE snapshot_id = 100")
    lake.catalog.table("t").rollback(first)
    assert rows(lake, "t") == wanted


def test_rollback_after_a_change_of_columns(lake, table):
    t, at = table
    t.set_comment("kept")
    t.set_comment("the key", column="id")
    t.set_tag("owner", "me")
    wanted = rows(lake, "t")
    t.add_column("x", "INTEGER")
    t.rename_column("s", "text")
    with pytest.raises(errors.SchemaMismatch) as caught:
        t.rollback(at["deleted"])
    assert "x int32 was added" in caught.value.message
    assert "s was renamed to text" in caught.value.message
    assert "allow_schema_change" in caught.value.hint
    before = lake.catalog.current_snapshot().id
    assert t.rollback(at["deleted"], allow_schema_change=True) == before + 1
    made = lake.catalog.table("t")
    assert rows(lake, "t") == wanted
    assert [(c.name, c.comment) for c in made.schema] == [("id", "the key"), ("s", None)]
    assert (made.comment, made.tags) == ("kept", {"owner": "me"})


def test_a_table_made_anew_keeps_its_constraints_defaults_and_layout(lake):
    lake.sql("CREATE TABLE t (id BIGINT NOT NULL, d DATE, s VARCHAR DEFAULT 'it''s', n DOUBLE DEFAULT 1.5)")
    lake.sql("ALTER TABLE t SET PARTITIONED BY (year(d))")
    lake.sql("ALTER TABLE t SET SORTED BY (id DESC NULLS LAST)")
    first = lake.sql(
        "INSERT INTO t SELECT range, DATE '2020-01-01' + range::INTEGER * 100, 's', 1 FROM range(30)"
    ).snapshot
    wanted = rows(lake, "t")
    lake.catalog.table("t").drop_column("n")
    lake.catalog.table("t").rollback(first, allow_schema_change=True)
    assert rows(lake, "t") == wanted
    lake.sql("INSERT INTO t (id) VALUES (99)")
    assert lake.sql("SELECT * FROM t WHERE id = 99").fetchall() == [(99, None, "it's", 1.5)]
    with pytest.raises(errors.LakehouseError, match="NOT NULL"):
        lake.sql("INSERT INTO t (id) VALUES (NULL)")
    rewritten = lake.catalog.metadata
    assert rewritten.placed_by_ducklake(lake.catalog.table("t").relation.id)


def test_rollback_follows_a_rename(lake, table):
    t, at = table
    lake.sql("ALTER TABLE t RENAME TO other")
    wanted = rows(lake, "t", at["many"])
    t.rollback(at["many"])
    assert rows(lake, "other") == wanted
    assert [one.name for one in lake.catalog.tables()] == ["other"]


def test_what_cannot_be_rolled_back_is_refused(lake, table):
    t, at = table
    with pytest.raises(errors.TableNotFound):
        t.rollback(0)
    with pytest.raises(errors.LakehouseError, match="past state"):
        t.at(at["two"]).rollback(at["made"])
    with pytest.raises(errors.QueryError, match="is a view"):
        lake.catalog.create_view("v", "SELECT 1 AS x").rollback(at["two"])
    with lake.transaction(), pytest.raises(errors.QueryError, match="transaction is open"):
        t.rollback(at["two"])
    for opened in (lakehouse.open(lake.path, read_only=True), lakehouse.open(lake.path, at=at["many"])):
        with opened, pytest.raises(errors.LakeReadOnly):
            opened.catalog.table("t").rollback(at["two"])
        with lakehouse.open(lake.path, read_only=True) as reading, pytest.raises(errors.LakeReadOnly):
            reading.rollback(at["two"])


def test_a_file_loaded_after_the_version_can_be_loaded_again(lake):
    first = pa.table({"id": [1, 2]})
    second = pa.table({"id": pa.array(range(100), pa.int64())})
    at = lake.ingest(first, "t").snapshot
    lake.ingest(second, "t")
    lake.catalog.table("t").rollback(at)
    assert rows(lake, "t") == [(1,), (2,)]
    assert not lake.ingest(second, "t").duplicate
    assert lake.catalog.table("t").row_count == 102


def test_the_whole_lake_goes_back(lake):
    lake.sql("CREATE SCHEMA s")
    lake.sql("CREATE TABLE kept AS SELECT range AS i FROM range(50)")
    lake.sql("CREATE TABLE s.dropped (i BIGINT NOT NULL, d VARCHAR DEFAULT 'x')")
    lake.sql("INSERT INTO s.dropped VALUES (1, NULL), (1, NULL)")
    lake.catalog.table("s.dropped").set_comment("to be seen again")
    lake.catalog.table("s.dropped").set_tag("owner", "me")
    lake.sql("CREATE TABLE changed AS SELECT range AS i FROM range(50)")
    lake.sql("CREATE TABLE altered AS SELECT 1 AS a, 2 AS b")
    lake.sql("CREATE TABLE one AS SELECT 1 AS x")
    lake.sql("CREATE TABLE other AS SELECT 2 AS x")
    lake.sql("CREATE VIEW v AS SELECT i FROM kept")
    lake.sql("CREATE VIEW w AS SELECT count(*) AS n FROM v")
    lake.sql("CREATE VIEW above AS SELECT n AS m FROM w")
    version = lake.catalog.table("changed").set_comment("then")
    names = ("kept", "s.dropped", "changed", "altered", "one", "other", "v", "w", "above")
    wanted = {name: rows(lake, name) for name in names}
    ids = {name: lake.catalog.table(name).relation.id for name in names}

    lake.sql("DROP TABLE s.dropped")
    lake.sql("DROP SCHEMA s")
    lake.sql("DELETE FROM changed WHERE i < 20")
    lake.sql("INSERT INTO changed VALUES (7), (NULL)")
    lake.catalog.table("changed").set_comment("now")
    lake.sql("ALTER TABLE altered ADD COLUMN c INTEGER")
    lake.sql("ALTER TABLE one RENAME TO tmp")
    lake.sql("ALTER TABLE other RENAME TO one")
    lake.sql("ALTER TABLE tmp RENAME TO other")
    lake.sql("DROP VIEW above")
    lake.sql("DROP VIEW w")
    lake.sql("CREATE OR REPLACE VIEW v AS SELECT 1 AS z")
    lake.sql("CREATE SCHEMA later")
    lake.sql("CREATE TABLE later.t AS SELECT 1 AS x")
    last = lake.sql("CREATE TABLE w AS SELECT 3 AS x").snapshot
    now = {name: rows(lake, name) for name in ("changed", "altered", "one", "v", "later.t", "w")}

    assert lake.rollback(version) == last + 1
    assert {name: rows(lake, name) for name in names} == wanted
    assert {one.full_name for one in [*lake.catalog.tables(), *lake.catalog.views()]} == set(names)
    assert lake.catalog.schemas() == ["main", "s"]
    assert lake.catalog.table("changed").comment == "then"
    again = lake.catalog.table("s.dropped")
    assert (again.comment, again.tags) == ("to be seen again", {"owner": "me"})
    for name in ("kept", "changed", "one", "other"):
        assert lake.catalog.table(name).relation.id == ids[name], "it is the same table"
    assert [s.id for s in lake.catalog.table("kept").snapshots()] == [2], "what had not changed is not touched"
    with pytest.raises(errors.LakehouseError, match="NOT NULL"):
        lake.sql("INSERT INTO s.dropped (i) VALUES (NULL)")

    lake.rollback(last)
    assert {name: rows(lake, name) for name in now} == now, "a rollback can be undone"
    assert lake.catalog.schemas() == ["later", "main"]
    lake.rollback(0)
    assert (lake.catalog.tables(), lake.catalog.views(), lake.catalog.schemas()) == ([], [], ["main"])
    lake.rollback(version)
    assert {name: rows(lake, name) for name in names} == wanted


def test_a_rollback_by_time_and_by_name(lake):
    lake.sql("CREATE TABLE t AS SELECT 1 AS x")
    lake.catalog.tag_snapshot("start")
    moment = datetime.datetime.now(datetime.UTC)
    lake.sql("INSERT INTO t VALUES (2)")
    lake.catalog.table("t").rollback("start")
    assert rows(lake, "t") == [(1,)]
    lake.sql("INSERT INTO t VALUES (3)")
    lake.rollback(moment)
    assert rows(lake, "t") == [(1,)]


def test_a_table_made_anew_goes_back_further(lake):
    lake.sql("CREATE TABLE t AS SELECT i AS x FROM range(5) r(i)")
    first = lake.catalog.current_snapshot().id
    lake.sql("ALTER TABLE t ADD COLUMN more INTEGER")
    lake.catalog.table("t").rollback(first, allow_schema_change=True)
    lake.sql("DELETE FROM t WHERE x = 1")
    lake.sql("ALTER TABLE t ADD COLUMN again INTEGER")
    table = lake.catalog.table("t")
    assert table.at(first).row_count == 5
    table.rollback(first, allow_schema_change=True)
    assert lake.sql("SELECT sum(x), count(*) FROM t").fetchall() == [(10, 5)]
    lake.catalog.table("t").rollback(first)
    assert lake.sql("FROM t ORDER BY x").fetchall() == [(i,) for i in range(5)]


def test_changes_go_on_over_a_rollback_that_made_the_table_anew(lake):
    at = {"made": lake.sql("CREATE TABLE t (id BIGINT, s VARCHAR)").snapshot}
    at["one"] = lake.sql("INSERT INTO t VALUES (1, 'a'), (2, 'b')").snapshot
    lake.sql("ALTER TABLE t ADD COLUMN x BIGINT")
    at["two"] = lake.sql("INSERT INTO t VALUES (3, 'c', 30)").snapshot
    t = lake.catalog.table("t")
    at["back"] = t.rollback(at["one"], allow_schema_change=True)
    at["last"] = lake.sql("DELETE FROM t WHERE id = 1").snapshot
    t = lake.catalog.table("t")
    found = t.changes(at["made"])
    assert found.column_names == ["snapshot_id", "rowid", "change_type", "id", "s"]
    expected = {
        (at["one"], "insert"): 2,
        (at["two"], "insert"): 1,
        (at["back"], "delete"): 3,
        (at["back"], "insert"): 2,
        (at["last"], "delete"): 1,
    }
    assert summed(found) == expected
    rows = [tuple(row.values()) for row in found.select(["snapshot_id", "change_type", "id", "s"]).to_pylist()]
    assert rows[2] == (at["two"], "insert", 3, "c")
    assert [row[2:] for row in rows if row[:2] == (at["back"], "delete")] == [(1, "a"), (2, "b"), (3, "c")]
    assert summed(t.changes(at["two"], at["back"])) == {key: expected[key] for key in list(expected)[1:4]}
    assert summed(t.changes(at["back"], at["back"])) == {key: expected[key] for key in list(expected)[2:4]}
    assert summed(t.changes(at["last"])) == {(at["last"], "delete"): 1}

    # A second rollback over the first brings the third column back: three tables, one after the other.
    again = t.rollback(at["two"], allow_schema_change=True)
    more = lake.catalog.table("t").changes(at["made"])
    assert summed(more) == {**expected, (again, "delete"): 1, (again, "insert"): 3}
    assert more.column("x").to_pylist()[:3] == [None, None, 30]


def test_changes_that_the_older_columns_cannot_hold_are_refused(lake):
    first = lake.sql("CREATE TABLE t AS SELECT 1::BIGINT AS id").snapshot
    lake.sql("ALTER TABLE t RENAME COLUMN id TO old")
    lake.sql("ALTER TABLE t ADD COLUMN id VARCHAR")
    lake.sql("INSERT INTO t VALUES (2, 'no number')")
    back = lake.catalog.table("t").rollback(first, allow_schema_change=True)
    with pytest.raises(errors.QueryError, match=f"snapshot {back} gave t other columns") as caught:
        lake.catalog.table("t").changes(first)
    assert f"changes({back + 1})" in caught.value.hint
    assert lake.catalog.table("t").at(back - 1).changes(first).num_rows == 2
