"""`lake.catalog`: schemas, tables, views, snapshots; and what a table tells and lets be changed."""

import hashlib
import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest

import lakehouse
from lakehouse import errors
from lakehouse.catalog.attach import Database


@pytest.fixture
def filled(lake):
    lake.sql("CREATE TABLE flights (id INTEGER NOT NULL, origin VARCHAR, delay DOUBLE)")
    lake.sql("INSERT INTO flights SELECT range, 'EWR', range / 2 FROM range(100)")
    return lake


def names(found):
    return [one.full_name for one in found]


def test_an_empty_lake(lake):
    assert lake.catalog.schemas() == ["main"]
    assert lake.catalog.tables() == lake.catalog.views() == []
    assert [snapshot.id for snapshot in lake.catalog.snapshots()] == [0]
    with pytest.raises(errors.TableNotFound, match="the lake is empty"):
        lake.catalog.table("t")


def test_schemas(filled):
    made = filled.catalog.create_schema("sales")
    assert made == filled.catalog.current_snapshot().id
    assert filled.catalog.schemas() == ["main", "sales"]
    with pytest.raises(errors.AlreadyExists):
        filled.catalog.create_schema("sales")
    assert filled.catalog.create_schema("sales", if_not_exists=True) == made
    filled.sql("CREATE TABLE sales.orders (id INTEGER)")
    assert names(filled.catalog.tables()) == ["flights", "sales.orders"]
    assert names(filled.catalog.tables("SALES")) == ["sales.orders"]
    assert names(filled.catalog.tables("main")) == ["flights"]
    with pytest.raises(errors.SchemaNotFound, match="did you mean sales"):
        filled.catalog.tables("sale")


def test_an_unknown_table_offers_the_nearest(filled):
    with pytest.raises(errors.TableNotFound, match=r"no table or view 'fligths'\n.*did you mean flights\?"):
        filled.catalog.table("fligths")
    with pytest.raises(errors.TableNotFound, match="did you mean flights"):
        filled.sql("FROM fligths")


def test_views(filled):
    view = filled.catalog.create_view("late", "SELECT id FROM flights WHERE delay > 10;")
    assert (view.kind, view.row_count, view.bytes) == ("view", 79, 0)
    assert [(column.name, column.type) for column in view.schema] == [("id", "INTEGER")]
    assert names(filled.catalog.views()) == ["late"]
    assert names(filled.catalog.tables()) == ["flights"]
    with pytest.raises(errors.AlreadyExists):
        filled.catalog.create_view("late", "SELECT 1 AS x")
    filled.catalog.create_view("late", "SELECT 1 AS x", replace=True)
    assert filled.sql("FROM late").fetchall() == [(1,)]
    before = filled.catalog.snapshots()
    with pytest.raises(errors.LakehouseError):
        filled.catalog.create_view("wrong", "SELECT nosuch FROM flights")
    with pytest.raises(errors.LakehouseError):
        filled.catalog.create_view("wrong", "SELEC 1")
    assert filled.catalog.snapshots() == before


def test_drop(filled):
    filled.catalog.create_view("v", "SELECT 1 AS x")
    before = filled.catalog.current_snapshot().id
    assert filled.catalog.drop("v") == before + 1
    assert filled.catalog.drop("flights") == before + 2
    assert filled.catalog.tables() == filled.catalog.views() == []
    with pytest.raises(errors.TableNotFound):
        filled.catalog.drop("flights")
    assert filled.catalog.drop("flights", if_exists=True) == before + 2
    assert filled.sql("SELECT count(*) FROM flights", at=before).fetchall() == [(100,)]


def test_what_a_table_tells(filled):
    table = filled.catalog.table("FLIGHTS")
    assert (table.name, table.schema_name, table.kind, table.full_name) == ("flights", "main", "table", "flights")
    assert [(c.name, c.type, c.nullable, c.comment) for c in table.schema] == [
        ("id", "INTEGER", False, None),
        ("origin", "VARCHAR", True, None),
        ("delay", "DOUBLE", True, None),
    ]
    assert table.row_count == 100
    files = list((filled.path / "data").rglob("*.parquet"))
    assert table.bytes == sum(file.stat().st_size for file in files) > 0
    assert [snapshot.id for snapshot in table.snapshots()] == [2, 1]


def test_comments_on_tables_columns_and_views(filled):
    table = filled.catalog.table("flights")
    first = table.set_comment("it's all flights")
    table.set_comment("seconds", column="DELAY")
    assert table.comment == "it's all flights"
    assert [column.comment for column in table.schema] == [None, None, "seconds"]
    assert table.at(first - 1).comment is None
    assert [column.comment for column in table.at(first).schema] == [None, None, None]
    table.set_comment(None)
    table.set_comment(None, column="delay")
    assert table.comment is None
    assert [column.comment for column in table.schema] == [None] * 3
    assert table.at(first).comment == "it's all flights"
    view = filled.catalog.create_view("v", "SELECT id FROM flights")
    view.set_comment("a view")
    assert filled.catalog.table("v").comment == "a view"
    with pytest.raises(errors.ColumnNotFound, match="did you mean origin"):
        table.set_comment("x", column="orign")


def test_columns_are_added_renamed_and_dropped(filled):
    table = filled.catalog.table("flights")
    start = filled.catalog.current_snapshot().id
    table.add_column("carrier", "VARCHAR", default="it's UA")
    table.add_column("seats", "INTEGER", default=7)
    table.add_column("tags", "VARCHAR[]")
    table.rename_column("DELAY", "late by")
    end = table.drop_column("origin")
    assert end == start + 5
    assert [(c.name, c.type) for c in table.schema] == [
        ("id", "INTEGER"),
        ("late by", "DOUBLE"),
        ("carrier", "VARCHAR"),
        ("seats", "INTEGER"),
        ("tags", "VARCHAR[]"),
    ]
    assert filled.sql("FROM flights WHERE id = 3").fetchall() == [(3, 1.5, "it's UA", 7, None)]
    assert [c.name for c in table.at(start).schema] == ["id", "origin", "delay"]
    assert filled.sql("FROM flights WHERE id = 3", at=start).fetchall() == [(3, "EWR", 1.5)]
    assert len(table.snapshots()) == 7


def test_changes_that_cannot_be_made(filled):
    table = filled.catalog.table("flights")
    before = filled.catalog.snapshots()
    wrong = [
        (errors.LakehouseError, "not a DuckDB type", lambda: table.add_column("x", "NUMERALS")),
        (errors.AlreadyExists, "already exists", lambda: table.add_column("id", "INTEGER")),
        (errors.ColumnNotFound, "no column 'nosuch'", lambda: table.drop_column("nosuch")),
        (errors.ColumnNotFound, "no column 'nosuch'", lambda: table.rename_column("nosuch", "x")),
        (errors.AlreadyExists, "already exists", lambda: table.rename_column("id", "origin")),
        (errors.LakehouseError, "is a past state", lambda: table.at(2).set_comment("x")),
    ]
    for kind, message, work in wrong:
        with pytest.raises(kind, match=message):
            work()
    assert filled.catalog.snapshots() == before


def test_past_states(filled):
    table = filled.catalog.table("flights")
    filled.sql("DELETE FROM flights WHERE id < 40")
    filled.sql("ALTER TABLE flights RENAME TO trips")
    now = filled.catalog.table("trips")
    second = filled.catalog.snapshots()[2]
    assert second.id == 2
    for version in (2, "2", second.time, second.time.isoformat(), second.time.astimezone().isoformat()):
        assert now.at(version).row_count == 100
        assert filled.sql("SELECT count(*) FROM flights", at=version).fetchall() == [(100,)]
    assert now.at(2).full_name == "flights"
    assert [c.name for c in now.at(2).schema] == ["id", "origin", "delay"]
    assert (now.at(3).row_count, now.row_count, now.at(1).row_count) == (60, 60, 0)
    with pytest.raises(errors.TableNotFound, match="not there at snapshot 0"):
        now.at(0)
    with pytest.raises(errors.SnapshotNotFound, match="snapshots go from 0 to 4"):
        now.at(99)
    with pytest.raises(errors.SnapshotNotFound, match="no snapshot as old as"):
        now.at(datetime(1990, 1, 1, tzinfo=UTC))
    with pytest.raises(errors.SnapshotNotFound, match="neither a snapshot id nor a time"):
        now.at("yesterday")
    assert table.full_name == "flights"


def test_a_snapshot_that_goes_between_being_found_and_being_opened(lake):
    with pytest.raises(errors.SnapshotNotFound, match="there is no snapshot 99 any more"):
        Database(lake.path, lake.settings, version=99)


def test_a_pinned_lake(filled):
    moment = filled.catalog.current_snapshot().time
    filled.sql("DELETE FROM flights")
    filled.sql("CREATE TABLE later (x INTEGER)")
    for at in (2, moment, moment + timedelta(microseconds=1), moment.isoformat()):
        with lakehouse.open(filled.path, at=at) as past:
            assert past.snapshot == 2
            assert names(past.catalog.tables()) == ["flights"]
            assert past.catalog.table("flights").row_count == 100
            assert past.sql("SELECT count(*) FROM flights").fetchall() == [(100,)]
            assert past.catalog.current_snapshot().id == 2
            assert [snapshot.id for snapshot in past.catalog.snapshots()] == [2, 1, 0]
    for at in (99, datetime(1990, 1, 1), "never"):
        with pytest.raises(errors.SnapshotNotFound):
            lakehouse.open(filled.path, at=at)


def test_no_write_on_a_pinned_or_read_only_lake(filled, tmp_path):
    (tmp_path / "a.csv").write_text("id\n1\n")
    before = filled.catalog.snapshots()
    for how, message in (({"at": 2}, "pinned to snapshot 2"), ({"read_only": True}, "open for reading only")):
        with lakehouse.open(filled.path, **how) as lake:
            table = lake.catalog.table("flights")
            writes = [
                lambda lake=lake: lake.sql("INSERT INTO flights VALUES (1, 'x', 1)"),
                lambda lake=lake: lake.sql("CREATE TABLE n (x INTEGER)"),
                lambda lake=lake: lake.sql("DROP TABLE flights"),
                lambda lake=lake: lake.ingest(tmp_path / "a.csv", "n"),
                lambda lake=lake: lake.ingest(tmp_path / "a.csv", "flights", mode="replace"),
                lambda lake=lake: lake.catalog.create_schema("s"),
                lambda lake=lake: lake.catalog.create_view("v", "SELECT 1 AS x"),
                lambda lake=lake: lake.catalog.drop("flights"),
                lambda table=table: table.set_comment("x"),
                lambda table=table: table.add_column("x", "INTEGER"),
                lambda lake=lake: lake.transaction().__enter__(),
            ]
            for write in writes:
                with pytest.raises(errors.LakeReadOnly, match=message):
                    write()
            assert lake.sql("SELECT count(*) FROM flights").fetchall() == [(100,)]
    assert filled.catalog.snapshots() == before


def test_every_commit_says_who_did_what(tmp_path):
    (tmp_path / "a.csv").write_text("id\n1\n")
    with lakehouse.open(tmp_path / "lake", settings={"catalog": {"author": "ann"}}) as lake:
        lake.sql("CREATE TABLE t AS SELECT 1 AS id")
        receipt = lake.ingest(tmp_path / "a.csv", "t")
        lake.catalog.create_schema("s")
        lake.catalog.table("t").set_comment("x")
        with lake.transaction("by hand") as transaction:
            transaction.execute("INSERT INTO t VALUES (3)")
        lake.sql("BEGIN; INSERT INTO t VALUES (4); INSERT INTO t VALUES (5); COMMIT")
        snapshots = lake.catalog.snapshots()
        assert [snapshot.author for snapshot in snapshots[:-1]] == ["ann"] * 6
        notes = {snapshot.id: json.loads(snapshot.note) for snapshot in snapshots[:-1]}
        messages = {snapshot.id: snapshot.message for snapshot in snapshots}
        sql = "CREATE TABLE t AS SELECT 1 AS id"
        assert (notes[1]["operation"], notes[1]["sql"]) == ("sql", sql)
        assert notes[1]["sql_sha256"] == hashlib.sha256(sql.encode()).hexdigest()
        assert notes[2]["operation"] == "ingest"
        assert (notes[2]["source"], notes[2]["table"], notes[2]["mode"]) == (str(tmp_path / "a.csv"), "t", "append")
        assert (notes[2]["sha256"], notes[2]["rows"]) == (receipt.sha256, 1)
        assert receipt.sha256 == hashlib.sha256((tmp_path / "a.csv").read_bytes()).hexdigest()
        assert (notes[3]["operation"], messages[3]) == ("ddl", "create schema s")
        assert messages[4] == "describe t"
        assert (notes[5]["operation"], messages[5]) == ("transaction", "by hand")
        assert "INSERT INTO t VALUES (5)" in notes[6]["sql"]
        assert all("script" in note or "notebook" in note for note in notes.values())
        assert abs(datetime.now(UTC) - snapshots[0].time) < timedelta(minutes=5)
        assert [snapshot.id for snapshot in lake.catalog.snapshots(2)] == [6, 5]


def test_the_notebook_is_noted(lake, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "reports/analysis.ipynb")
    lake.catalog.create_schema("s")
    assert json.loads(lake.catalog.current_snapshot().note)["notebook"] == "reports/analysis.ipynb"


@pytest.mark.parametrize(
    "name", ["with space", 'with "quotes"', "it's", "流量", "a.b", "UPPER", "select", "x;y", "ns--c"]
)
def test_odd_names(lake, name):
    def q(text):
        return '"' + text.replace('"', '""') + '"'

    lake.catalog.create_schema(name)
    for schema in ("main", name):
        full = f"{q(schema)}.{q(name)}"
        lake.sql(f"CREATE TABLE {full} ({q(name)} INTEGER)")
        lake.sql(f"INSERT INTO {full} SELECT range FROM range(30)")
        table = lake.catalog.table(full)
        assert (table.schema_name, table.name, table.row_count) == (schema, name, 30)
        assert lake.catalog.table(table.full_name).row_count == 30
        assert lake.catalog.table(full.upper() if full.isascii() else full).name == name
        table.set_comment(name)
        table.set_comment(name, column=name)
        table.add_column(name + "2", "INTEGER", default=5)
        table.rename_column(name, name + "1")
        assert [(c.name, c.comment) for c in table.schema] == [(name + "1", name), (name + "2", None)]
        assert table.comment == name
        assert lake.sql(f"SELECT sum({q(name + '1')}), max({q(name + '2')}) FROM {full}").fetchall() == [(435, 5)]
    assert len(lake.catalog.tables()) == 2
    assert lake.catalog.create_view(q(name + "v"), f"FROM {q(name)}.{q(name)}").row_count == 30
    for table in lake.catalog.views() + lake.catalog.tables():
        lake.catalog.drop(table.full_name)
    assert lake.catalog.tables() == lake.catalog.views() == []


def test_a_moved_lake(tmp_path):
    here, there = tmp_path / "here", tmp_path / "elsewhere" / "there"
    (tmp_path / "a.csv").write_text("id,x\n" + "".join(f"{i},{i}\n" for i in range(50)))
    with lakehouse.open(here) as lake:
        lake.catalog.create_schema("sales")
        lake.ingest(tmp_path / "a.csv", "t")
        lake.ingest(tmp_path / "a.csv", "SALES.t")
        lake.sql("CREATE TABLE u AS SELECT range AS x FROM range(1000)")
        lake.sql("DELETE FROM u WHERE x < 10")
        lake.sql('CREATE TABLE "odd one" AS SELECT range AS x FROM range(1000)')
    there.parent.mkdir()
    shutil.move(here, there)
    with lakehouse.open(there) as lake:
        assert lake.sql("SELECT sum(x) FROM t").fetchall() == [(1225,)]
        assert lake.sql("SELECT sum(x) FROM sales.t").fetchall() == [(1225,)]
        assert lake.sql("SELECT count(*), sum(x) FROM u").fetchall() == [(990, 499455)]
        assert lake.sql('SELECT count(*) FROM "odd one"').fetchall() == [(1000,)]
        assert lake.ingest(tmp_path / "a.csv", "t").duplicate is True
        assert lake.ingest(tmp_path / "a.csv", "u2").rows == 50
        lake.sql("INSERT INTO u VALUES (5)")
        assert lake.catalog.table("u").row_count == 991
    assert not here.exists()


def test_sizes_after_deletes_merges_and_flushes(lake):
    lake.sql("CREATE TABLE t (x INTEGER)")
    for number in range(4):
        lake.sql(f"INSERT INTO t SELECT range + {number} * 100 FROM range(100)")
    lake.sql("INSERT INTO t VALUES (1), (2)")
    lake.sql("INSERT INTO t VALUES (3)")
    expected = {
        s.id: lake.sql("SELECT count(*) FROM t", at=s.id).fetchall()[0][0] for s in lake.catalog.snapshots()[:-1]
    }
    lake.sql("CALL ducklake_flush_inlined_data('lake')")
    lake.sql("CALL ducklake_merge_adjacent_files('lake')")
    table = lake.catalog.table("t")
    for version, count in expected.items():
        assert table.at(version).row_count == count
        assert lake.sql("SELECT count(*) FROM t", at=version).fetchall() == [(count,)]
    assert table.row_count == 403


def test_a_table_stays_itself_when_another_takes_its_name(lake):
    lake.sql("CREATE TABLE b AS SELECT range AS i FROM range(30)")
    table = lake.catalog.table("b")
    lake.sql("ALTER TABLE b RENAME TO c")
    lake.sql("CREATE TABLE b AS SELECT 'x' AS other")
    assert ([c.name for c in table.schema], table.row_count) == (["i"], 30)
    table.add_column("j", "INTEGER")
    table.set_comment("the first")
    table.rename_column("i", "k")
    assert [c.name for c in lake.catalog.table("c").schema] == ["k", "j"]
    assert lake.catalog.table("c").comment == "the first"
    assert [c.name for c in lake.catalog.table("b").schema] == ["other"]
    assert lake.catalog.current_snapshot().message == "rename c.i to k"
    lake.catalog.drop("c")
    with pytest.raises(errors.TableNotFound, match="not there"):
        table.add_column("l", "INTEGER")


def test_a_past_view_is_not_read_as_it_is_now(lake):
    lake.sql("CREATE TABLE t AS SELECT range AS i FROM range(30)")
    view = lake.catalog.create_view("v", "FROM t")
    then = lake.catalog.current_snapshot().id
    assert view.at(then).row_count == 30
    lake.sql("DELETE FROM t WHERE i < 10; ALTER TABLE t ADD COLUMN j INTEGER")
    assert view.row_count == 20
    for read in (lambda: view.at(then).row_count, lambda: view.at(then).schema):
        with pytest.raises(errors.QueryError, match=f"cannot be read at snapshot {then} here"):
            read()
    with lakehouse.open(lake.path, at=then) as past:
        assert past.catalog.table("v").row_count == 30
        assert past.catalog.table("v").at(then).row_count == 30


@pytest.mark.parametrize(
    "sql", ["SELECT 1 AS x; CREATE TABLE inj (a INTEGER)", "DROP TABLE flights", "SELECT 1 AS x; SELECT 2", "", "-- no"]
)
def test_a_view_is_one_query_and_nothing_else(filled, sql):
    before = filled.catalog.snapshots()
    with pytest.raises(errors.QueryError, match="exactly one SELECT"):
        filled.catalog.create_view("v", sql)
    assert filled.catalog.snapshots() == before


def test_relations_are_found_by_id_and_kept(filled):
    found = filled.catalog.table("flights").relation
    metadata = filled.catalog.metadata
    assert metadata.relation(found.id, 2) == found
    assert metadata.relation(found.id, 2) is metadata.relations(2)["main", "flights"]
    assert metadata.relation(found.id, 0) is None


def test_another_thread_that_asks_for_another_snapshot_is_not_in_the_way(filled):
    metadata = filled.catalog.metadata

    class Meddled:
        """What another thread puts in the place of the kept relations after two looks at it."""

        def __init__(self, kept):
            self.kept, self.looks = kept, 0

        def __get__(self, _instance, _owner):
            self.looks += 1
            return self.kept if self.looks <= 2 else (0, {}, {})

        def __set__(self, _instance, _value): ...

    metadata.relations(2)
    kind = type("Meddled", (type(metadata),), {"_relations": Meddled(metadata._relations)})
    metadata.__class__ = kind
    assert list(metadata.relations(2)) == [("main", "flights")]
