"""What a table takes it gives back: columns that DuckLake would lose are refused, or kept in another way."""

from __future__ import annotations

from decimal import Decimal
from functools import partial

import pyarrow as pa
import pytest

import lakehouse
from lakehouse.catalog import keeping
from lakehouse.errors import IngestError, LakehouseError, QueryError
from lakehouse.query.making import made

REFUSED = {
    "HUGEINT": "DECIMAL(38,0)",
    "UHUGEINT": "DECIMAL(38,0)",
    "STRUCT(a HUGEINT)": "DECIMAL(38,0)",
    "MAP(VARCHAR, UHUGEINT[])": "DECIMAL(38,0)",
    "INTERVAL": "epoch_us",
    "INTERVAL[]": "epoch_us",
    "TIMETZ": "TIMESTAMP WITH TIME ZONE",
    "TIME_NS": "TIME",
    "VARIANT": "JSON",
    "ENUM('a', 'b')": "VARCHAR",
    "UNION(a INTEGER, b VARCHAR)": "STRUCT",
    "BIT": "VARCHAR",
    "INTEGER[3]": "FLOAT[]",
}


def test_a_type_that_no_table_keeps_is_refused_by_every_door(lake):
    lake.sql("CREATE TABLE t AS SELECT 1 AS i")
    before = lake.catalog.current_snapshot().id
    table = lake.catalog.table("t")
    for kind, way in REFUSED.items():
        doors = [
            f"CREATE TABLE other (i INTEGER, x {kind})",
            f"CREATE OR REPLACE TABLE t (x {kind})",
            f"ALTER TABLE t ADD COLUMN x {kind}",
            f"BEGIN; INSERT INTO t VALUES (2); ALTER TABLE t ADD COLUMN x {kind}; COMMIT",
        ]
        for change in [*(partial(lake.sql, door) for door in doors), partial(table.add_column, "x", kind)]:
            with pytest.raises(QueryError, match="cannot keep") as error:
                change()
            assert way in error.value.hint
    assert lake.catalog.current_snapshot().id == before
    assert [table.name for table in lake.catalog.tables()] == ["t"]
    assert lake.sql("FROM t").fetchall() == [(1,)]


def test_a_query_that_gives_such_a_type_is_refused_before_anything_is_written(lake, tmp_path):
    folder = tmp_path / "lake" / "data"
    for query in (
        "SELECT '12:00:00.123456789'::TIME_NS AS x FROM range(30)",  # DuckDB would end the process as it writes it
        "SELECT INTERVAL 1 DAY AS x FROM range(30)",
        "SELECT {'t': '12:00+05'::TIMETZ} AS x FROM range(30)",
        "WITH q AS (SELECT union_value(n := 1) AS x FROM range(30)) FROM q",
    ):
        with pytest.raises(QueryError, match="cannot keep the column x"):
            lake.sql(f"/* AS */ CREATE TABLE t AS -- AS\n {query} -- the end")
    assert lake.catalog.tables() == []
    assert not list(folder.rglob("*.parquet"))
    lake.sql("CREATE TABLE t AS SELECT 1 AS i")  # the lake goes on as before
    with pytest.raises(QueryError, match=r"^No files found"):
        lake.sql("CREATE TABLE u AS FROM read_csv('nowhere.csv')")


def test_a_column_called_rowid_is_refused_by_every_door(lake, tmp_path):
    lake.sql("CREATE TABLE t AS SELECT 1 AS i")
    before = lake.catalog.current_snapshot().id
    for statement in (
        "CREATE TABLE u (rowid INTEGER)",
        "CREATE TABLE u AS SELECT 1 AS RowId",
        "ALTER TABLE t ADD COLUMN rowid INTEGER",
        "ALTER TABLE main.t RENAME COLUMN i TO rowid",
        'ALTER TABLE lake.main.t RENAME i TO "ROWID"',
    ):
        with pytest.raises(QueryError, match="UPDATE would lose rows"):
            lake.sql(statement)
    table = lake.catalog.table("t")
    for change in (lambda: table.add_column("rowid", "INTEGER"), lambda: table.rename_column("i", "rowid")):
        with pytest.raises(QueryError, match="UPDATE would lose rows"):
            change()
    source = tmp_path / "s.csv"
    source.write_text("i,rowid\n1,2\n")
    with pytest.raises(IngestError, match="UPDATE would lose rows"):
        lake.ingest(source, "u")
    with pytest.raises(LakehouseError, match="UPDATE would lose rows"):
        lake.ingest(source, "t", contract="evolve")
    assert lake.catalog.current_snapshot().id == before
    for name in ("filename", "file_row_number", "file_index", "snapshot_id"):  # these are no harm
        lake.sql(f"CREATE OR REPLACE TABLE u AS SELECT i AS id, i AS {name} FROM range(3) t(i)")
        lake.sql(f"UPDATE u SET {name} = 9 WHERE id = 1; DELETE FROM u WHERE id = 0")
        assert lake.sql(f"SELECT id, {name} FROM u ORDER BY id").fetchall() == [(1, 9), (2, 2)]


def test_what_a_query_gives_is_kept_in_a_type_that_holds_it(lake):
    lake.sql(
        "CREATE TABLE t AS SELECT i % 20 AS g, sum(9007199254740993 + i) AS total, {'n': sum(i), 'l': [sum(i)]} AS s,"
        " MAP {'k': sum(i)} AS m, 'b'::ENUM('a', 'b') AS e, [1, 2]::INTEGER[2] AS a FROM range(40) t(i) GROUP BY g"
    )
    assert [column.type for column in lake.catalog.table("t").schema] == [
        "BIGINT", "DECIMAL(38,0)", "STRUCT(n DECIMAL(38,0), l DECIMAL(38,0)[])", "MAP(VARCHAR, DECIMAL(38,0))",
        "VARCHAR", "INTEGER[]",
    ]  # fmt: skip
    assert lake.sql("SELECT total, s.n, e, a FROM t WHERE g = 1").fetchall() == [
        (Decimal(2 * 9007199254740993 + 22), 22, "b", [1, 2])
    ]
    lake.sql("CREATE TABLE named (a, b) AS SELECT 1::HUGEINT, $x::HUGEINT WITH NO DATA", {"x": 7})
    assert [(c.name, c.type) for c in lake.catalog.table("named").schema] == [
        ("a", "DECIMAL(38,0)"),
        ("b", "DECIMAL(38,0)"),
    ]
    with pytest.raises(QueryError, match="cast"):  # beyond that it is said, not rounded
        lake.sql("CREATE TABLE far AS SELECT 170141183460469231731687303715884105727::HUGEINT AS h")
    assert lake.ingest(lake.sql("SELECT sum(i) AS n FROM range(40) t(i)").arrow(), "loaded").rows == 1
    assert [column.type for column in lake.catalog.table("loaded").schema] == ["DECIMAL(38,0)"]
    lake.sql("CREATE TEMP TABLE own AS SELECT 1::HUGEINT AS h, INTERVAL 1 DAY AS i")  # no table of the lake
    assert lake.sql("SELECT typeof(h) FROM own").fetchall() == [("HUGEINT",)]


def test_a_load_of_such_a_type_is_refused(lake):
    times = pa.table({"t": pa.array([1, 2], pa.time64("ns"))})
    with pytest.raises(IngestError, match="cannot keep the column t"):
        lake.ingest(times, "t")
    with pytest.raises(IngestError, match="cannot keep the column d"):
        lake.ingest(pa.table({"d": pa.array([1, 2], pa.duration("us"))}), "t")
    assert lake.catalog.tables() == []
    lake.sql("CREATE TABLE n AS SELECT 18446744073709551615::UBIGINT AS n")
    lake.ingest(pa.table({"n": pa.array([-1], pa.int64())}), "n", contract="evolve")  # together they are a HUGEINT
    assert [column.type for column in lake.catalog.table("n").schema] == ["DECIMAL(38,0)"]
    assert lake.sql("SELECT n::VARCHAR FROM n ORDER BY n").fetchall() == [("-1",), ("18446744073709551615",)]


VALUES = {
    "VARCHAR": "'it''s \"{},[]\\ ' || i",
    "BLOB": "('\\xAA\\x00\\x27' || i)::BLOB",
    "DATE": "DATE '2020-01-31' + i::INTEGER",
    "TIME": "TIME '12:34:56.789012'",
    "TIMESTAMP": "TIMESTAMP '2020-01-01 01:02:03.456789'",
    "TIMESTAMP_S": "TIMESTAMP_S '2020-01-01 01:02:03'",
    "TIMESTAMP_MS": "TIMESTAMP_MS '2020-01-01 01:02:03.456'",
    "TIMESTAMP_NS": "TIMESTAMP_NS '2020-01-01 01:02:03.123456789'",
    "TIMESTAMPTZ": "TIMESTAMPTZ '2020-01-01 01:02:03.456789+02'",
    "UUID": "md5(i::VARCHAR)::UUID",
    "JSON": "('{\"a\": \"x''y\", \"b\": ' || i || '}')::JSON",
    "DOUBLE": "(['nan', '-inf', '0.1'])[1 + i::INTEGER % 3]::DOUBLE",
    "UBIGINT": "18446744073709551615::UBIGINT",
    "DECIMAL(38,6)": "12345678901234567890123456789012.123456::DECIMAL(38,6)",
    "BOOLEAN": "i % 2 = 0",
}
SHAPES = {
    "kept in the catalog": ["{0}", "[{0}, NULL]", "MAP {{'k': {0}}}", "[[{0}], NULL]"],
    "kept in files": [
        "{0}", "[{0}, NULL]", "{{'a': {0}, 'b': i}}", "[{{'a': {0}}}, NULL]", "{{'a': [{0}]}}",
        "MAP {{'k': [{{'a': [{0}]}}]}}",
    ],
}  # fmt: skip


@pytest.mark.parametrize("place", SHAPES)
def test_every_type_comes_back_from_another_process(lake, tmp_path, child, place):
    inline = place == "kept in the catalog"
    given = [
        shape.format(value)
        for shape in SHAPES[place]
        for kind, value in VALUES.items()
        if not (inline and kind == "JSON" and shape != "{0}")
    ]
    columns = ", ".join(f"{value} AS c{number}" for number, value in enumerate(given))
    read = "SELECT id, " + ", ".join(f"c{number}::VARCHAR" for number in range(len(given))) + " FROM {} ORDER BY id"
    lake.sql("CREATE VIEW other AS SELECT 1 AS x")
    for name, rows in (("few", 3), ("many", 30)):
        lake.sql(f"CREATE TABLE {name} AS SELECT i AS id, {columns} FROM range({rows}) t(i)")
        lake.sql(f"INSERT INTO {name} SELECT i + 100, {columns} FROM range(2) t(i)")
        lake.sql(f"UPDATE {name} SET id = 50 WHERE id = 1; DELETE FROM {name} WHERE id = 2")
    assert (lake.catalog.table("few").bytes == 0) == inline
    kept = range(3, 30)
    made = {
        "few": [(0, 0), (50, 1), (100, 0), (101, 1)],
        "many": [(0, 0), *((i, i) for i in kept), (50, 1), (100, 0), (101, 1)],
    }
    lake.close()
    found = child(
        """
        import lakehouse
        with lakehouse.open(args[0]) as lake:
            for name in ("few", "many"):
                say(lake.sql(args[1].format(name)).fetchall())
                lake.sql("FROM " + name).fetchall()
        """,
        tmp_path / "lake",
        read,
    ).end()
    with lakehouse.open(tmp_path / "expected") as other:
        for rows, name in zip(found, made, strict=True):
            ids = ", ".join(f"({id}, {i})" for id, i in made[name])
            wanted = other.sql(read.format(f"(SELECT id, {columns} FROM (VALUES {ids}) v(id, i))")).fetchall()
            assert rows == [list(row) for row in sorted(wanted)]


def test_rows_with_structs_are_written_to_files_whoever_makes_the_table(lake):
    def holds(name):
        return (lake.sql(f"SELECT s.a FROM {name} ORDER BY 1").fetchall(), lake.catalog.table(name).bytes > 0)

    value, kept = "{'a': 'it''s'}", [("it's",)]
    lake.sql("CREATE VIEW v AS SELECT 1 AS x")
    lake.sql(
        f"CREATE TABLE plain AS SELECT 1 AS i; CREATE TABLE made (s STRUCT(a VARCHAR)); INSERT INTO made VALUES ({value})"
    )
    assert holds("made") == (kept, True)
    lake.sql(f"BEGIN; CREATE TABLE first AS SELECT {value} AS s; ALTER TABLE first RENAME TO second; COMMIT")
    lake.sql(f"INSERT INTO second VALUES ({value})")
    assert holds("second") == (kept * 2, True)
    lake.sql("CREATE TABLE grown AS SELECT 1 AS i; ALTER TABLE grown ADD COLUMN s STRUCT(a VARCHAR)")
    lake.sql(f"INSERT INTO grown VALUES (2, {value})")
    assert holds("grown") == ([*kept, (None,)], True)
    lake.ingest(pa.table({"s": [{"a": "it's"}]}), "loaded")
    lake.sql(f"INSERT INTO loaded VALUES ({value})")
    assert holds("loaded") == (kept * 2, True)
    before = lake.catalog.current_snapshot().id
    lake.sql("ALTER TABLE made ADD COLUMN n INTEGER")
    lake.catalog.table("made").rollback(before, allow_schema_change=True)
    lake.sql(f"INSERT INTO made VALUES ({value})")
    assert holds("made") == (kept * 2, True)
    with lake.branch("b") as branch:
        branch.sql(f"CREATE TABLE born AS SELECT {value} AS s")
        branch.publish()
    lake.sql(f"INSERT INTO born VALUES ({value})")
    assert holds("born") == (kept * 2, True)
    with pytest.raises(LakehouseError), lake.transaction():
        lake.sql("CREATE TABLE never (s STRUCT(a VARCHAR))")
        lake.sql("SELECT nothing FROM nowhere")
    lake.sql("INSERT INTO plain VALUES (2)")  # of other tables the catalog keeps a few rows, as ever
    assert lake.catalog.table("plain").bytes == 0


KILLED = """
import os, signal
import lakehouse
from lakehouse.catalog import inlining

lake = lakehouse.open(args[0])
inlining.narrow = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # the commit is done, the option not yet given
lake.sql({statement!r})
"""
WIDE = "CREATE TABLE late AS SELECT {'a': ''} AS s, " + ", ".join(f"0 AS c{n}" for n in range(1950))


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE late (s STRUCT(a VARCHAR))",
        WIDE,
    ],
    ids=["made", "wide"],
)
def test_a_kill_before_a_table_has_the_option_to_write_files_only(lake, child, tmp_path, statement):
    """Whoever writes next finishes it first: a lake that was open, a backup that only reads, a restored one."""
    killed = child(KILLED.format(statement=statement), lake.path)
    assert killed.process.wait(60) == -9
    with lakehouse.open(lake.path, read_only=True) as reader:
        reader.backup(tmp_path / "backup")
    lakehouse.restore(tmp_path / "backup", tmp_path / "again")
    value = """{'a': 'it''s "a" \\ {b}'}"""
    with lakehouse.open(tmp_path / "again") as again:
        for one in (lake, again):
            one.sql(f"INSERT INTO late BY NAME SELECT {value} AS s")
            one.sql("CREATE TABLE plain AS SELECT 1 AS i; INSERT INTO plain VALUES (2)")
            assert one.sql("SELECT s FROM late WHERE s.a <> ''").fetchall() == [({"a": 'it\'s "a" \\ {b}'},)]
            assert one.catalog.table("late").files()  # of rows that the catalog keeps there would be none
            assert not one.catalog.table("plain").files()  # its two rows are kept there, as ever
            assert not (one.path / "unfinished.json").read_bytes()


def test_half_a_word_of_a_writer_that_died_is_of_a_commit_that_never_was(lake):
    (lake.path / "unfinished.json").write_text('{"tables": [["main", "gone"')
    lake.sql("CREATE TABLE t AS SELECT 1 AS i")
    assert not (lake.path / "unfinished.json").read_bytes()
    (lake.path / "unfinished.json").write_text('{"tables": [["main", "gone"]], "lake": true}')
    lake.sql("INSERT INTO t VALUES (2)")
    assert not (lake.path / "unfinished.json").read_bytes()
    assert not lake.catalog.table("t").files()


def test_an_old_state_with_other_types_can_be_rolled_back_to(lake):
    """Lakes have tables that an earlier version of ours made."""
    with lake.catalog.writer.transaction("sql", "made before types were looked at") as transaction:
        transaction.execute("CREATE TABLE old AS SELECT 1::HUGEINT AS h")
    before = transaction.committed
    lake.sql("INSERT INTO old VALUES (2)")
    lake.sql("DROP TABLE old; CREATE TABLE old AS SELECT 'x' AS s")
    lake.rollback(before)
    assert lake.sql("FROM old").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("text", "name", "query"),
    [
        ("create table t as select 1", ("t",), "select 1"),
        ('-- table x as\nCREATE OR REPLACE TABLE IF NOT EXISTS lake."a ""b".t (x, y) AS (FROM f) WITH NO DATA', ("lake", 'a "b', "t"), "(FROM f) "),
        ("create table t(a decimal(3, 1) default ('as'), b int) ", ("t",), None),
        ("create table t as from u with data", ("t",), "from u "),
        ("alter table if exists s . t rename a to b", ("s", "t"), None),
    ],
)  # fmt: skip
def test_what_a_statement_makes(text, name, query):
    found = made(text)
    assert (found.name, found.query, found.renamed) == (name, query, None)
    if query is not None:
        assert found.head + found.query + found.tail == text


def test_other_statements_make_no_columns():
    assert made("create view v as select 1 as table") is None
    assert made("alter view v rename to w") is None
    assert made('alter table t rename to "a b"').renamed == "a b"
    assert keeping.kept('STRUCT(a INTEGER, "b c" HUGEINT)[2]') == 'STRUCT("a" INTEGER, "b c" DECIMAL(38,0))[]'
    assert keeping.kept("STRUCT(a INTEGER)") == "STRUCT(a INTEGER)"
