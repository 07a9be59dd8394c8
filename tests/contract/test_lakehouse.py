"""What a lake promises, asked of one that is opened here and of one behind a server."""

import datetime as dt
import gzip
import json
import zipfile
from decimal import Decimal
from uuid import UUID

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import lakehouse
from lakehouse.errors import (
    AlreadyExists,
    ColumnNotFound,
    ConfigError,
    Conflict,
    FilterInvalid,
    IngestError,
    LakehouseError,
    ObjectNotFound,
    ObjectTooLarge,
    ParameterFault,
    QueryError,
    QueryTimeout,
    SchemaMismatch,
    SchemaNotFound,
    SnapshotNotFound,
    SourceEmpty,
    SourceNotFound,
    SourceUnreadable,
    SyntaxFault,
    TableNotFound,
    TraceInvalid,
    TraceNotFound,
)

SETTINGS = {"query": {"threads": 1}, "storage": {"put_caps": {"small/": 10}}}


@pytest.fixture(scope="module", params=["here", "behind a server"])
def lake(request, tmp_path_factory):
    """One lake for all tests of a kind: every test has tables of its own."""
    if request.param == "behind a server":
        yield request.getfixturevalue("client")
        return
    with lakehouse.open(tmp_path_factory.mktemp("here") / "lake", settings=SETTINGS) as opened:
        yield opened


@pytest.fixture
def csv(tmp_path):
    """A file that is loaded."""
    path = tmp_path / "flights.csv"
    path.write_text("id,origin,late\n1,EWR,1.5\n2,JFK,\n3,LGA,-0.25\n")
    return path


def columns(table):
    return [(column.name, column.type) for column in table.schema]


# loading


def test_a_file_is_loaded_once(lake, csv):
    receipt = lake.ingest(csv, "once")
    assert (receipt.table, receipt.rows, receipt.inserted, receipt.duplicate) == ("once", 3, 3, False)
    assert receipt.source == str(csv)
    again = lake.ingest(str(csv), "once")
    assert (again.duplicate, again.snapshot, again.sha256) == (True, receipt.snapshot, receipt.sha256)
    assert lake.ingest(csv, "once", force=True).duplicate is False
    table = lake.catalog.table("once")
    assert table.row_count == 6
    assert columns(table) == [("id", "BIGINT"), ("origin", "VARCHAR"), ("late", "DOUBLE")]


def test_modes_and_keys(lake, csv, tmp_path):
    lake.ingest(csv, "modes")
    newer = tmp_path / "newer.csv"
    newer.write_text("id,origin,late\n3,ORD,9\n4,SFO,8\n")
    receipt = lake.ingest(newer, "modes", mode="upsert", key="id")
    assert (receipt.inserted, receipt.updated, lake.catalog.table("modes").row_count) == (1, 1, 4)
    assert lake.ingest(newer, "modes", mode="replace").rows == 2
    assert lake.catalog.table("modes").row_count == 2
    assert lake.ingest(newer, "modes", mode="upsert", key=["id", "origin"]).updated == 2


@pytest.mark.parametrize("form", ["csv.gz", "tsv", "json", "ndjson", "parquet", "zip"])
def test_formats(lake, tmp_path, form):
    path = tmp_path / f"data.{form}"
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    match form:
        case "csv.gz":
            path.write_bytes(gzip.compress(b"a,b\n1,x\n2,y\n"))
        case "tsv":
            path.write_text("a\tb\n1\tx\n2\ty\n")
        case "json":
            path.write_text(json.dumps(rows))
        case "ndjson":
            path.write_text("\n".join(map(json.dumps, rows)))
        case "parquet":
            pl.DataFrame(rows).write_parquet(path)
        case "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("inner.csv", "a,b\n1,x\n2,y\n")
    name = f"form_{form.replace('.', '_')}"
    assert lake.ingest(path, name).rows == 2
    assert columns(lake.catalog.table(name)) == [("a", "BIGINT"), ("b", "VARCHAR")]


def test_reader_options(lake, tmp_path):
    path = tmp_path / "odd.txt"
    path.write_text("a;b\n1;NA\n2;05\n")
    options = {"delim": ";", "nullstr": ["NA"], "types": {"b": "VARCHAR"}}
    assert lake.ingest(path, "odd", format="csv", options=options).rows == 2
    assert columns(lake.catalog.table("odd")) == [("a", "BIGINT"), ("b", "VARCHAR")]
    with pytest.raises(IngestError, match="no option 'colour'"):
        lake.ingest(path, "odd", format="csv", options={"colour": 1})
    with pytest.raises(IngestError, match="not a mapping"):
        lake.ingest(path, "odd", format="csv", options=[1])


def frames():
    when = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, dt.UTC)
    exact = pa.table(
        {
            "n": pa.array([1, None], pa.int32()),
            "price": pa.array([Decimal("1.10"), None], pa.decimal128(10, 2)),
            "at": pa.array([when, None], pa.timestamp("us", "UTC")),
            "day": pa.array([dt.date(2026, 1, 2), None], pa.date32()),
            "raw": pa.array([b"\x00\xff", None], pa.binary()),
            "tags": pa.array([["a", None], []], pa.list_(pa.string())),
            "point": pa.array([{"x": 1.5, "y": None}, None], pa.struct([("x", pa.float64()), ("y", pa.int8())])),
        }
    )
    kinds = [
        ("n", "INTEGER"),
        ("price", "DECIMAL(10,2)"),
        ("at", "TIMESTAMP WITH TIME ZONE"),
        ("day", "DATE"),
        ("raw", "BLOB"),
        ("tags", "VARCHAR[]"),
        ("point", "STRUCT(x DOUBLE, y TINYINT)"),
    ]
    plain = [("a", "BIGINT"), ("b", "VARCHAR")]
    return {
        "arrow": (exact, kinds),
        "reader": (exact.to_reader(), kinds),
        "pandas": (pd.DataFrame({"a": [1, 2], "b": pd.Categorical(["x", "y"])}), plain),
        "polars": (pl.DataFrame({"a": [1, 2], "b": ["x", "y"]}), plain),
        "lazy": (pl.LazyFrame({"a": [1, 2], "b": ["x", "y"]}), plain),
    }


@pytest.mark.parametrize("kind", ["arrow", "reader", "pandas", "polars", "lazy"])
def test_frames_keep_their_types(lake, kind):
    frame, kinds = frames()[kind]
    receipt = lake.ingest(frame, f"frame_{kind}")
    assert (receipt.rows, columns(lake.catalog.table(f"frame_{kind}"))) == (2, kinds)
    assert receipt.source in ("Table", "RecordBatchReader", "DataFrame", "LazyFrame")
    again = lake.ingest(frames()[kind][0], f"frame_{kind}")
    assert (again.duplicate, again.snapshot, again.sha256) == (True, receipt.snapshot, receipt.sha256)


def test_objects_are_loaded(lake, csv):
    put = lake.storage.put("landing/flights.csv", csv)
    assert lake.ingest("object:landing/flights.csv", "from_object").rows == 3
    assert lake.ingest(put, "from_receipt").rows == 3
    assert lake.ingest(lake.storage.head("landing/flights.csv"), "from_info").source == "object:landing/flights.csv"
    with pytest.raises(ObjectNotFound):
        lake.ingest("object:missing.csv", "from_object")


def test_objects_that_are_too_large(lake):
    with pytest.raises(ObjectTooLarge):
        lake.storage.put("small/x", b"x" * 11)
    with pytest.raises(ObjectTooLarge):  # refused while most of it is still to come
        lake.storage.put("small/x", (b"x" * (1 << 20) for _ in range(16)))
    assert lake.storage.put("small/x", b"x" * 10).size == 10


def test_rejected_rows_are_kept_and_tried_again(lake, csv, tmp_path):
    lake.ingest(csv, "orders")
    bad = tmp_path / "bad.csv"
    bad.write_text("id,origin,late\n4,ORD,much\n5,SFO,2\n")
    with pytest.raises(SchemaMismatch):
        lake.ingest(bad, "orders", contract="freeze")
    receipt = lake.ingest(bad, "orders", contract="quarantine")
    assert (receipt.rows, receipt.rejected) == (1, 1)
    assert lake.catalog.table("orders__rejects").row_count == 1
    retried = lake.ingest.retry("orders")
    assert (retried.rows, retried.rejected, retried.mode) == (0, 1, "retry")
    with pytest.raises(TableNotFound):
        lake.ingest.retry("once_only")


def test_what_cannot_be_loaded(lake, tmp_path):
    empty, binary, odd = tmp_path / "empty.csv", tmp_path / "binary.csv", tmp_path / "data.docx"
    empty.write_text("")
    binary.write_bytes(bytes(range(256)) * 20)
    odd.write_text("x")
    for source, error in (
        (tmp_path / "missing.csv", SourceNotFound),
        (empty, SourceEmpty),
        (binary, SourceUnreadable),
        (odd, SourceUnreadable),
        (object(), IngestError),
        (pd.DataFrame(), SourceEmpty),
        (pd.DataFrame({"took": [dt.timedelta(seconds=1)]}), IngestError),
        (pa.table([[1], [2]], ["a", "A"]), SourceUnreadable),
    ):
        with pytest.raises(error):
            lake.ingest(source, "never")
    good = tmp_path / "good.csv"
    good.write_text("a\n1\n")
    for wrong in ({"mode": "somehow"}, {"mode": "upsert"}, {"key": "a"}, {"format": "docx"}, {"contract": "loose"}):
        with pytest.raises(LakehouseError) as caught:
            lake.ingest(good, "never", **wrong)
        assert caught.value.hint, wrong
    with pytest.raises(SchemaNotFound):
        lake.ingest(good, "nowhere.t")
    with pytest.raises(TableNotFound):
        lake.catalog.table("never")


# catalog


@pytest.fixture(scope="module")
def known(lake, tmp_path_factory):
    """A table with a history: made, added to, described."""
    folder = tmp_path_factory.mktemp("known")
    first, second = folder / "first.csv", folder / "second.csv"
    first.write_text("id,name\n1,ann\n2,bob\n")
    second.write_text("id,name\n3,cy\n")
    made = lake.ingest(first, "people").snapshot
    return made, lake.ingest(second, "people").snapshot


def test_schemas(lake):
    before = lake.catalog.current_snapshot().id
    assert lake.catalog.create_schema("sales") > before
    assert "sales" in lake.catalog.schemas()
    assert lake.catalog.schema("SALES") == "sales"
    with pytest.raises(AlreadyExists):
        lake.catalog.create_schema("sales")
    lake.catalog.create_schema("sales", if_not_exists=True)
    with pytest.raises(SchemaNotFound, match="nowhere"):
        lake.catalog.schema("nowhere")
    with pytest.raises(SchemaNotFound):
        lake.catalog.tables("nowhere")
    lake.ingest(pa.table({"a": [1]}), "sales.orders")
    assert [table.full_name for table in lake.catalog.tables("sales")] == ["sales.orders"]
    assert lake.catalog.views("sales") == []


def test_a_table(lake, known):
    table = lake.catalog.table("people")
    assert (table.name, table.schema_name, table.full_name, table.kind) == ("people", "main", "people", "table")
    assert (table.row_count, table.comment, table.tags, table.partitioning, table.sorting) == (3, None, {}, (), ())
    assert next((c.name, c.type, c.nullable, c.comment) for c in table.schema) == ("id", "BIGINT", True, None)
    assert "people" in [one.full_name for one in lake.catalog.tables()]
    assert lake.catalog.sizes([table])["people"][0] == 3
    assert sum(file.rows for file in table.files()) <= 3
    assert repr(table) == "<table people>"
    with pytest.raises(TableNotFound, match="peeple") as caught:
        lake.catalog.table("peeple")
    assert "people" in caught.value.hint
    for wrong in ("", "a.b.c.d", "other.main.t", "a..b"):
        with pytest.raises(LakehouseError):
            lake.catalog.table(wrong)


def test_odd_names(lake):
    for name in ('"odd name"', '"a/b"', '"100%"', '"ä?#&"', '".."'):
        lake.ingest(pa.table({"a": [1]}), name)
        table = lake.catalog.table(name)
        assert table.row_count == 1
        assert f'"{table.name}"' == name
        assert lake.catalog.drop(name) > 0
        with pytest.raises(TableNotFound):
            lake.catalog.table(name)


def test_the_past_of_a_table(lake, known):
    made, added = known
    table = lake.catalog.table("people")
    assert [one.id for one in table.snapshots()] == [added, made]
    assert table.at(made).row_count == 2
    assert (table.at(made).version, repr(table.at(made))) == (made, f"<table people at snapshot {made}>")
    assert [(change.snapshot.id, change.inserted) for change in table.history()] == [(added, 1), (made, 2)]
    changes = table.changes(made, added)
    assert changes.schema.names == ["snapshot_id", "rowid", "change_type", "id", "name"]
    assert sorted(changes.column("name").to_pylist()) == ["ann", "bob", "cy"]
    assert changes.schema.field("id").type == pa.int64()
    assert table.changes(added).num_rows == 1
    assert table.at(made).changes(1).num_rows == 2
    with pytest.raises(SnapshotNotFound):
        table.at(10**6)
    with pytest.raises(LakehouseError, match="past state"):
        table.at(made).set_comment("no")


def test_profile(lake, known):
    profile = lake.catalog.table("people").profile()
    assert (profile.rows, profile.snapshot >= known[1], len(profile.columns)) == (3, True, 2)
    assert (profile["id"].min, profile["id"].max, profile["name"].distinct) == (1, 3, 3)
    assert "people" in repr(profile)
    assert lake.catalog.table("people").profile(sample=None).rows == 3


def test_describing_a_table(lake):
    lake.ingest(pa.table({"a": [1], "b": ["x"]}), "described")
    table = lake.catalog.table("described")
    assert table.set_comment("what it is") > 0
    table.set_comment("a number", column="A")
    table.set_tag("owner", "sales")
    assert (table.comment, table.schema[0].comment, table.tags) == ("what it is", "a number", {"owner": "sales"})
    table.set_tag("owner", None)
    table.set_comment(None)
    assert (table.comment, table.tags) == (None, {})
    with pytest.raises(ColumnNotFound):
        table.set_comment("?", column="c")
    found = lake.catalog.search("number")
    assert [(hit.name, hit.matches[0].where) for hit in found] == [("described", "column comment")]
    assert lake.catalog.search("") == []


def test_changing_columns_and_layout(lake):
    lake.ingest(pa.table({"a": [1], "day": [dt.date(2026, 1, 1)]}), "changing")
    table = lake.catalog.table("changing")
    table.add_column("c", "double", default=1.5)
    table.rename_column("a", "b")
    assert columns(table) == [("b", "BIGINT"), ("day", "DATE"), ("c", "DOUBLE")]
    table.drop_column("c")
    table.set_partitioning("year(day)")
    table.set_sorting("b desc")
    assert (table.partitioning, len(table.sorting)) == (("year(day)",), 1)
    table.set_partitioning()
    assert table.partitioning == ()
    with pytest.raises(ColumnNotFound):
        table.drop_column("nothing")
    with pytest.raises(LakehouseError, match="not a DuckDB type"):
        table.add_column("d", "text; drop table changing")


def test_rolling_back(lake):
    first = lake.ingest(pa.table({"a": [1]}), "rolled").snapshot
    lake.ingest(pa.table({"a": [2]}), "rolled")
    table = lake.catalog.table("rolled")
    assert table.rollback(first) > first
    assert table.row_count == 1
    table.add_column("b", "INTEGER")
    with pytest.raises(SchemaMismatch):
        table.rollback(first)
    table.rollback(first, allow_schema_change=True)
    assert columns(lake.catalog.table("rolled")) == [("a", "BIGINT")]


def test_snapshots_and_their_names(lake, known):
    made, added = known
    newest = lake.catalog.current_snapshot()
    assert lake.catalog.snapshots(2)[0] == newest
    assert len(lake.catalog.snapshots(2)) == 2
    assert lake.catalog.snapshots()[-1].id == 0
    assert json.loads(next(s for s in lake.catalog.snapshots() if s.id == added).note)["operation"] == "ingest"
    assert lake.catalog.tag_snapshot("v1", made) == made
    assert (lake.catalog.snapshot_tags(), lake.catalog.resolve("v1")) == ({"v1": made}, made)
    assert lake.catalog.resolve(newest.time) == newest.id
    assert lake.catalog.table("people").at("v1").row_count == 2
    with pytest.raises(AlreadyExists):
        lake.catalog.tag_snapshot("v1", added)
    assert lake.catalog.tag_snapshot("v1", added, replace=True) == added
    assert lake.catalog.untag_snapshot("v1") == added
    with pytest.raises(SnapshotNotFound):
        lake.catalog.resolve("v1")


def test_what_differs(lake):
    start = lake.catalog.current_snapshot().id
    lake.ingest(pa.table({"a": [1, 2]}), "fresh")
    diff = lake.diff(start)
    assert (diff.start, diff.added, bool(diff)) == (start, {"fresh": 2}, True)
    assert "fresh" in repr(diff)
    assert not lake.diff(start, start)


def test_lineage(lake, csv):
    lake.ingest(csv, "traced")
    found = lake.catalog.table("traced").lineage()
    assert (found.root.name, found.upstream()[0].kind) == ("traced", "file")
    assert found.edges[0].operation == "ingest"
    assert "traced" in found.tree()
    assert "<svg" in found.svg()
    lake.catalog.drop("traced")
    assert lake.catalog.lineage("traced", "up").root.dropped
    with pytest.raises(TableNotFound):
        lake.catalog.lineage("never_there")


def test_dropping(lake):
    lake.ingest(pa.table({"a": [1]}), "dropped")
    assert lake.catalog.drop("dropped") == lake.catalog.current_snapshot().id
    with pytest.raises(TableNotFound):
        lake.catalog.drop("dropped")
    assert lake.catalog.drop("dropped", if_exists=True) == lake.catalog.current_snapshot().id


def test_maintenance(lake, known):
    report = lake.maintenance.compact("people")
    assert (report.operation, report.dry_run) == ("compact", False)
    expired = lake.maintenance.expire(dt.timedelta(days=30))
    assert (expired.dry_run, expired.snapshots) == (True, ())
    assert lake.maintenance.clean("1d").operation == "clean"
    assert lake.maintenance.clean(dt.datetime(2026, 1, 1, tzinfo=dt.UTC)).dry_run
    with pytest.raises(TableNotFound):
        lake.maintenance.compact("never_there")
    with pytest.raises(ConfigError, match="not an age"):
        lake.maintenance.expire("soon")


# sql


@pytest.fixture(scope="module")
def numbers(lake):
    lake.ingest(pa.table({"n": list(range(1000)), "text": [f"row {n}" for n in range(1000)]}), "numbers")
    return "numbers"


def test_rows_come_back(lake, numbers):
    result = lake.sql("SELECT n, text FROM numbers WHERE n < $most ORDER BY n", {"most": 3})
    assert result.fetchall() == [(0, "row 0"), (1, "row 1"), (2, "row 2")]
    assert (result.columns, result.types, len(result)) == (["n", "text"], ["BIGINT", "VARCHAR"], 3)
    assert (result.kind, result.snapshot, bool(result.query_id)) == ("read", lake.catalog.current_snapshot().id, True)
    assert result.df()["n"].tolist() == [0, 1, 2]
    assert result.pl()["text"].to_list() == ["row 0", "row 1", "row 2"]
    assert result.arrow().num_rows == 3
    assert result.records(1) == [{"n": 0, "text": "row 0"}]
    assert result.relation().aggregate("sum(n)").fetchone() == (3,)
    assert [row[0] for row in result] == [0, 1, 2]
    assert "row 2" in repr(result)
    assert "<td" in result._repr_html_()
    assert lake.sql("FROM numbers", limit=7).arrow().num_rows == 7
    assert lake.sql("SELECT sum(n) FROM numbers WHERE n > ?", [997]).fetchone() == (998 + 999,)
    assert sum(batch.num_rows for batch in lake.sql("FROM numbers").reader(100)) == 1000


def test_rows_are_written_to_files(lake, numbers, tmp_path):
    result = lake.sql("FROM numbers")
    assert pl.read_parquet(result.to_parquet(tmp_path / "n.parquet")).height == 1000
    assert pl.read_csv(result.to_csv(tmp_path / "n.csv")).columns == ["n", "text"]


VALUES = {
    "TINYINT": -128,
    "UBIGINT": 2**64 - 1,
    "HUGEINT": -(2**127),
    "UUID[]": [UUID("12345678-1234-5678-1234-567812345678"), None],
    "DOUBLE": 0.1,
    "DECIMAL(38,10)": Decimal("1234567890123456789012345678.0123456789"),
    "VARCHAR": "ä\u0000'\"\U0001f986",
    "BLOB": b"\x00\xff",
    "BOOLEAN": True,
    "DATE": dt.date(1, 1, 1),
    "TIME": dt.time(23, 59, 59, 999999),
    "TIMESTAMP": dt.datetime(2026, 1, 2, 3, 4, 5, 678901),
    "TIMESTAMP WITH TIME ZONE": dt.datetime(2026, 1, 2, 3, 4, 5, 678901, dt.UTC),
    "INTERVAL": dt.timedelta(days=2, microseconds=1),
    "UUID": UUID("12345678-1234-5678-1234-567812345678"),
    "INTEGER[]": [1, None, 3],
    "STRUCT(a INTEGER, b VARCHAR[])": {"a": None, "b": ["x", None]},
    "MAP(VARCHAR, INTEGER)": {"k": 1},
    "INTEGER[2]": (1, 2),
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_and_types_come_back_as_they_are(lake, kind):
    value = VALUES[kind]
    given = list(value) if isinstance(value, tuple) else value
    result = lake.sql(f"SELECT $value::{kind} AS v, NULL::{kind} AS nothing", {"value": given})
    assert (result.types, result.fetchall()) == ([kind, kind], [(value, None)])
    empty = lake.sql(f"SELECT $value::{kind} AS v WHERE false", {"value": given})
    assert (empty.types, empty.fetchall(), len(empty)) == ([kind], [], 0)


def test_values_that_arrow_has_no_type_for(lake):
    most = 2**128 - 1
    result = lake.sql(
        f"""SELECT '12:30:00+02'::TIMETZ AS t, '0101'::BIT AS b, {most}::UHUGEINT AS "u v",
                   ['01'::BIT, NULL] AS bits, {{'t': '01:00:00-05'::TIMETZ}} AS s"""
    )
    zone, other = (dt.timezone(dt.timedelta(hours=hours)) for hours in (2, -5))
    assert result.types == [
        "TIME WITH TIME ZONE", "BIT", "UHUGEINT", "BIT[]", "STRUCT(t TIME WITH TIME ZONE)"
    ]  # fmt: skip
    row = (dt.time(12, 30, tzinfo=zone), "0101", most, ["01", None], {"t": dt.time(1, tzinfo=other)})
    assert (result.columns, result.fetchall()) == (["t", "b", "u v", "bits", "s"], [row])


def test_odd_results(lake):
    twice = lake.sql("SELECT 1 AS a, 2 AS a, 'x'::ENUM('x', 'y') AS e")
    assert (twice.columns, twice.fetchall()) == (["a", "a", "e"], [(1, 2, "x")])
    assert twice.types == ["INTEGER", "INTEGER", "ENUM('x', 'y')"]
    special = lake.sql("SELECT 'nan'::DOUBLE AS n, '-inf'::DOUBLE AS i, 'infinity'::TIMESTAMP AS t").arrow()
    assert (str(special["n"][0]), special["i"][0].as_py()) == ("nan", float("-inf"))
    assert lake.sql("SELECT 1 AS a", limit=0).fetchall() == []
    assert lake.sql("SELECT 1").explain()


def test_errors_of_queries(lake, numbers):
    for sql, params, error in (
        ("SELEC 1", None, SyntaxFault),
        ("", None, SyntaxFault),
        ("SELECT nothing FROM numbers", None, ColumnNotFound),
        ("FROM numbres", None, TableNotFound),
        ("SELECT $a", None, ParameterFault),
        ("SELECT $a", {"a": 1, "b": 2}, ParameterFault),
        ("SELECT 'x'::INTEGER", None, QueryError),
        ("SELECT 1 AS a FROM numbers WHERE n = 'x'", None, QueryError),
        ("INSERT INTO numbers VALUES ('x', 1)", None, QueryError),
    ):
        with pytest.raises(error):
            lake.sql(sql, params)
    with pytest.raises(TableNotFound) as caught:
        lake.sql("FROM numbres")
    assert "numbers" in caught.value.hint
    with pytest.raises(SnapshotNotFound):
        lake.sql("FROM numbers", at=10**6)
    with pytest.raises(QueryTimeout):
        lake.sql(
            "SELECT count(*) FROM range(100000) a, range(1000000) b WHERE (a.range * b.range) % 7 = 3", timeout=0.3
        )
    with pytest.raises(QueryError):
        lake.sql("FROM numbers", limit=-1)


def test_changing_with_sql(lake):
    made = lake.sql("CREATE TABLE made (a INTEGER, b VARCHAR)")
    assert (made.kind, made.snapshot, made.is_receipt) == ("ddl", lake.catalog.current_snapshot().id, True)
    put = lake.sql("INSERT INTO made VALUES (1, $b), (2, NULL)", {"b": "x"})
    assert (put.kind, put.changed, put.snapshot) == ("write", 2, made.snapshot + 1)
    assert "2 rows changed" in repr(put)
    assert lake.sql("UPDATE made SET a = a + 1 WHERE b IS NULL").changed == 1
    assert lake.sql("FROM made ORDER BY a").fetchall() == [(1, "x"), (3, None)]
    assert lake.sql("FROM made ORDER BY a", at=put.snapshot).fetchall() == [(1, "x"), (2, None)]
    assert lake.sql("DELETE FROM made WHERE a = 1").changed == 1
    several = lake.sql("INSERT INTO made VALUES (7, 'y'); SELECT max(a) FROM made")
    assert several.fetchall() == [(7,)]
    view = lake.catalog.create_view("made_view", "SELECT a FROM made WHERE b IS NOT NULL")
    assert (view.kind, view.row_count, columns(view)) == ("view", 1, [("a", "INTEGER")])
    with pytest.raises(AlreadyExists):
        lake.catalog.create_view("made_view", "SELECT 1")
    assert lake.catalog.create_view("made_view", "SELECT 1 AS one", replace=True).row_count == 1
    assert "made_view" in [one.full_name for one in lake.catalog.views()]
    with pytest.raises(AlreadyExists):
        lake.sql("CREATE TABLE made (a INTEGER)")


def test_queries_are_remembered(lake, numbers):
    lake.sql("SELECT 42 AS remembered")
    newest = next(one for one in lake.queries(20) if "remembered" in one.sql)
    assert newest.status == "ok"
    assert lake.queries(5, text="no such text") == []
    assert lake.cancel("no-such-query") is False


# pathway


def test_a_trace(lake):
    trace = lake.pathway.add({"question": "why?"}, kind="note", tags=["a", "b"], scope={"user": "ann"})
    assert (trace.version, trace.kind, trace.tags, trace.scope["user"]) == (1, "note", ("a", "b"), "ann")
    assert lake.pathway.get(trace.uid) == trace
    assert trace.created_at.tzinfo is not None
    same = lake.pathway.add({"question": "why?"})
    assert same.uid != trace.uid
    counted = lake.pathway.add_idempotent({"question": "why?"})
    assert (counted.uid, counted.replay_count) == (trace.uid, 1)
    assert lake.pathway.has(trace.uid)
    assert not lake.pathway.has("nobody")
    with pytest.raises(TraceNotFound):
        lake.pathway.get("nobody")
    with pytest.raises(TraceInvalid):
        lake.pathway.add({"when": dt.date(2026, 1, 1)})
    with pytest.raises(TraceInvalid):
        lake.pathway.add({}, tags="one")


def test_a_trace_by_its_name(lake):
    for odd in ("a/b", "..", "100%", "ä b?#"):
        lake.pathway.add({"n": 1}, uid=odd)
        assert lake.pathway.get(odd).content == {"n": 1}
        with pytest.raises(AlreadyExists):
            lake.pathway.add({"n": 1}, uid=odd)
        kept = lake.pathway.add_idempotent({"n": 2}, uid=odd)
        assert (kept.content, kept.replay_count) == ({"n": 1}, 1)


def test_changing_a_trace(lake):
    uid = lake.pathway.add({"n": 1}, tags=["t"]).uid
    position = lake.pathway.stats().records
    assert lake.pathway.update(uid, {"n": 2}).version == 2
    assert lake.pathway.update(uid, {"n": 3}, if_version=2).version == 3
    with pytest.raises(Conflict) as caught:
        lake.pathway.update(uid, {"n": 4}, if_version=2)
    assert caught.value.code == "conflict"
    assert [one.content["n"] for one in lake.pathway.versions(uid)] == [1, 2, 3]
    assert lake.pathway.get(uid, as_of=position).content == {"n": 1}
    later = lake.pathway.revise(uid, {"n": 5})
    assert (later.predecessor, later.tags) == (uid, ("t",))
    last = lake.pathway.revise(later.uid, {"n": 6}, tags=[], kind="k", new_uid="the-last")
    assert (last.uid, last.tags, last.kind) == ("the-last", (), "k")
    assert [one.uid for one in lake.pathway.history("the-last").items] == ["the-last", later.uid, uid]
    assert [one.uid for one in lake.pathway.descendants(uid)] == [later.uid, "the-last"]
    assert lake.pathway.retire(uid, "old").retired_reason == "old"
    assert lake.pathway.restore(uid).retired is False
    assert lake.pathway.feedback(uid, 0.5, "so so").score == 0.5
    with pytest.raises(TraceInvalid):
        lake.pathway.feedback(uid, float("nan"))
    with pytest.raises(TraceNotFound):
        lake.pathway.revise("nobody", {})


def test_finding_traces(lake):
    uids = lake.pathway.add_many({"content": {"text": f"zebra number {n}", "n": n}, "kind": "zebra"} for n in range(25))
    assert len(set(uids)) == 25
    page = lake.pathway.search("zebra", limit=10, mode="lexical")
    assert (len(page), page.ranking) == (10, "lexical")
    rest = lake.pathway.search("zebra", limit=100, mode="lexical", cursor=page.next_cursor, explain=True)
    assert len(rest) == 15
    assert rest.next_cursor is None
    assert rest.results[0].why
    few = lake.pathway.search(kind="zebra", filters={"content.n": {"gte": 20}}, limit=100)
    assert {found.trace.content["n"] for found in few} == set(range(20, 25))
    assert len(lake.pathway.get_all(filters={"content.n": {"lt": 7}}, kind="zebra", limit=3)) == 7
    assert lake.pathway.search("zebra", as_of=page.position, mode="lexical").results[0].trace == page.results[0].trace
    with pytest.raises(FilterInvalid):
        lake.pathway.search(filters={"nothing": {"odd": 1}})
    with pytest.raises(FilterInvalid):
        lake.pathway.search("zebra", mode="guess")
    with pytest.raises(TraceInvalid):
        lake.pathway.add_many([{"text": "no content"}])
    assert lake.pathway.similar("zebra") == []


def test_traces_out_and_in(lake, tmp_path):
    lake.pathway.add({"n": 1}, uid="exported", tags=["out"])
    total = lake.pathway.stats().traces
    assert lake.pathway.export(tmp_path / "all.ndjson") == total
    assert len((tmp_path / "all.ndjson").read_text().splitlines()) == total
    assert lake.pathway.export(tmp_path / "few.ndjson", tags=["out"]) == 1
    again = lake.pathway.import_(tmp_path / "few.ndjson")
    assert (again.added, again.skipped) == (0, 1)
    (tmp_path / "mine.json").write_text('[{"id": "mem-1", "memory": "likes tea"}]')
    assert lake.pathway.import_(tmp_path / "mine.json").added == 1
    assert lake.pathway.import_(tmp_path / "mine.json", on_conflict="revise").revised == 1
    with pytest.raises(AlreadyExists):
        lake.pathway.import_(tmp_path / "mine.json", on_conflict="fail")
    with pytest.raises(LakehouseError):
        lake.pathway.import_(tmp_path / "missing.json")
    assert lake.pathway.verify().sound
    before, after = lake.pathway.compact()
    assert 0 < after <= before
