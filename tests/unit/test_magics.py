"""The magics in a real IPython session on real lakes."""

from __future__ import annotations

import datetime
import re

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from session import Session

import lakehouse
from lakehouse import Result
from lakehouse.errors import (
    LakehouseError,
    LakeReadOnly,
    LakeUnusable,
    NotFound,
    ParameterFault,
    QueryError,
    QueryTimeout,
    SyntaxFault,
    TableNotFound,
)
from lakehouse.magics import Notebook
from lakehouse.notebook import cells

FLIGHTS = "%sql CREATE TABLE flights AS SELECT i AS id, i % 3 AS delay, 'f' || i AS \"odd name\" FROM range(10) t(i)"


@pytest.fixture
def bare(tmp_path, monkeypatch, capsys):
    """A session without the extension, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    session = Session(capsys)
    yield session
    session.shell.run_cell("%unload_ext lakehouse")


@pytest.fixture
def session(bare):
    """A session on a lake with flights, airlines and a view."""
    bare.run("%load_ext lakehouse")
    bare.run("%lake lake")
    bare.run(FLIGHTS)
    bare.run("%sql CREATE VIEW late AS SELECT id, delay FROM flights WHERE delay = 2")
    bare.printed()
    return bare


@pytest.fixture(scope="module")
def _shared(tmp_path_factory):
    session = Session()
    session.run("%load_ext lakehouse")
    session.run(f"%lake {tmp_path_factory.mktemp('shared') / 'lake'}")
    session.run(FLIGHTS)
    yield session
    session.shell.run_cell("%unload_ext lakehouse")


@pytest.fixture
def reader(_shared, capsys):
    """A session on flights that many tests share: they read only, and leave variables behind."""
    _shared.capsys = capsys
    return _shared


def rows(value) -> list[tuple]:
    assert isinstance(value, Result)
    return value.fetchall()


# Opening lakes


def test_lake_makes_opens_and_shows(bare):
    bare.run("%load_ext lakehouse")
    made = bare.run("%lake one")
    assert isinstance(made, lakehouse.Lakehouse)
    assert "made a new lake at" in bare.printed()
    bare.run("%sql CREATE TABLE t AS SELECT 1 AS a")
    bare.run("%lake 'my other lake'")
    assert bare.run("%lake").path.name == "my other lake"
    assert "0 tables" in bare.printed()
    bare.run("%lake one")
    printed = bare.printed()
    assert "made" not in printed
    assert "1 table" in printed
    assert rows(bare.run("%sql SELECT a FROM t")) == [(1,)]


def test_sql_without_a_lake_says_what_to_type_and_makes_none(bare, tmp_path):
    bare.run("%load_ext lakehouse")
    assert "%lake PATH" in bare.fails("%sql SELECT 1", LakeUnusable)
    assert "%lake PATH" in bare.fails("%lake", LakeUnusable)
    assert list(tmp_path.iterdir()) == []


def test_sql_opens_the_default_lake_when_it_exists(bare, tmp_path, monkeypatch):
    bare.run("%load_ext lakehouse")
    lakehouse.open("lake").close()
    assert rows(bare.run("%sql SELECT 1")) == [(1,)]
    assert bare.run("%lake").path == tmp_path / "lake"


def test_sql_opens_the_lake_of_the_environment(bare, tmp_path, monkeypatch):
    lakehouse.open("elsewhere").close()
    monkeypatch.setenv("LAKEHOUSE_PATH", str(tmp_path / "elsewhere"))
    bare.run("%load_ext lakehouse")
    assert bare.run("%lake").path == tmp_path / "elsewhere"


def test_lake_at_and_read_only(session):
    session.run("%sql INSERT INTO flights VALUES (10, 0, 'x')")
    pinned = session.run("%lake lake --at 1")
    assert pinned.snapshot == 1
    assert "pinned" in session.printed()
    assert rows(session.run("%sql SELECT count(*) FROM flights")) == [(10,)]
    session.fails("%sql DELETE FROM flights", LakeReadOnly)
    session.run("%lake lake --read-only")
    assert rows(session.run("%sql SELECT count(*) FROM flights")) == [(11,)]
    session.fails("%sql DELETE FROM flights", LakeReadOnly)
    session.run("%lake --at 1")  # the same lake, pinned
    assert rows(session.run("%sql SELECT count(*) FROM flights")) == [(10,)]


def test_a_lake_opened_in_python_can_be_used(session, tmp_path):
    with lakehouse.open(tmp_path / "mine") as mine:
        mine.sql("CREATE TABLE only_here AS SELECT 7 AS seven")
        session["mine"] = mine
        assert session.run("%lake $mine") is mine
        assert rows(session.run("%sql SELECT seven FROM only_here")) == [(7,)]
        session["folder"] = str(tmp_path / "lake")
        assert session.run("%lake $folder").path == tmp_path / "lake"
    assert "there is no variable 'nowhere'" in session.fails("%lake $nowhere", LakehouseError)


def test_a_misspelt_word_makes_no_lake(session, tmp_path):
    assert "%lake tables" in session.fails("%lake tabels", LakehouseError)
    assert not (tmp_path / "tabels").exists()
    session.fails("%lake one two", LakehouseError)
    session.fails("%lake 'one", LakehouseError)
    session.fails("%lake --read-onyl lake", LakehouseError)
    (tmp_path / "file").write_text("x")
    session.fails("%lake file", LakeUnusable)
    assert session.run("%lake").path == tmp_path / "lake"


# Listings


def test_tables(session):
    session.run("%sql CREATE SCHEMA stats")
    session.run("%sql CREATE TABLE stats.daily (day DATE)")
    session.run("%sql COMMENT ON TABLE flights IS 'all <b>flights</b>'")
    shown = session.run("%lake tables")
    text, page = repr(shown), shown._repr_html_()
    assert re.search(r"flights +table +10 ", text)
    assert re.search(r"late +view", text)
    assert "stats.daily" in text
    assert "all &lt;b&gt;flights&lt;/b&gt;" in page
    only = repr(session.run("%lake tables stats"))
    assert "stats.daily" in only
    assert "flights" not in only
    assert "stats" in session.fails("%lake tables stat", lakehouse.errors.SchemaNotFound)


def test_columns(session):
    text = repr(session.run("%lake columns flights"))
    assert re.search(r"id +BIGINT", text)
    assert re.search(r"odd name +VARCHAR", text)
    assert "view late: 2 columns" in repr(session.run("%lake columns late"))
    assert "did you mean flights" in session.fails("%lake columns flihgts", TableNotFound)
    session.fails("%lake columns", LakehouseError)


def test_run(session, tmp_path):
    """`%lake run`: values reach the workflow, each node is shown as it ends, and a failure is one of the cell."""
    definition = (
        '[params]\nleast = 0\nword = "x"\n[nodes.made]\nmode = "sql"\n'
        'sql = "SELECT id, $word AS word FROM flights WHERE id >= $least"\ntable = "made"\n'
        '[nodes.check]\nmode = "sql"\nsql = "FROM made"\nexpect = "rows"\n'
    )
    (tmp_path / "refresh.toml").write_text(definition)
    done = session.run('%lake run refresh.toml least=8 "word=two words"')
    shown = session.printed()
    assert re.search(r"made +sql +done", shown)
    assert "2 of 2 nodes" in shown
    assert done.success
    assert session.run("%sql SELECT id, word FROM made ORDER BY id").fetchall() == [(8, "two words"), (9, "two words")]
    assert session.run("%lake lake").workflows.store("refresh.toml") == "refresh"
    assert session.run("%lake run refresh").params == {"least": 0, "word": "x"}
    shown = session.fails("%lake run refresh least=99", lakehouse.errors.RunFailed)
    assert "node 'check'" in shown
    assert "resume" in shown
    assert "did you mean refresh" in session.fails("%lake run refrsh", lakehouse.errors.WorkflowNotFound)
    session.fails("%lake run refresh least", LakehouseError)
    session.fails("%lake run", LakehouseError)


def test_snapshots(session):
    text = repr(session.run("%lake snapshots"))
    assert text.count("CREATE") == 2
    assert "1 snapshot;" in repr(session.run("%lake snapshots 1"))
    session.fails("%lake snapshots soon", LakehouseError)
    session.fails("%lake tables --at 1", LakehouseError)


# Running SQL


def test_line_and_cell(reader):
    assert rows(reader.run("%sql SELECT count(*) FROM flights")) == [(10,)]
    assert rows(reader.run("%%sql\nSELECT count(*) -- all of them\nFROM flights\nWHERE id > 7")) == [(2,)]
    assert rows(reader.run("%%sql SELECT id\nFROM flights WHERE id = 3")) == [(3,)]
    assert rows(reader.run("answer = %sql SELECT 42\nanswer")) == [(42,)]
    assert rows(reader.run("%sql SELECT 8 << 1")) == [(16,)]
    assert rows(reader.run("%%sql\nSELECT '{x}', '$y', \"odd name\" FROM flights WHERE id = 0")) == [
        ("{x}", "$y", "f0")
    ]


@pytest.mark.parametrize(
    "cell",
    [
        "%sql kept << SELECT 42 AS x",
        "%sql kept<<SELECT 42 AS x",
        "%%sql kept <<\nSELECT 42 AS x",
        "%%sql\nkept << SELECT 42\nAS x",
        "%%sql\n\nkept <<\nSELECT 42 AS x",
        "%sql --output kept SELECT 42 AS x",
        "%sql -o kept SELECT 42 AS x",
        "%sql --output=kept SELECT 42 AS x",
        "%%sql --output kept\nSELECT 42 AS x",
        "%sql SELECT 42 AS x --output kept",
        "%sql kept << --limit 1 SELECT 42 AS x",
        "%sql --limit 1 kept << SELECT 42 AS x",
    ],
)
def test_results_go_into_a_variable_and_show_nothing(reader, cell):
    assert reader.run(cell) is None
    assert reader.printed() == ""
    assert rows(reader["kept"]) == [(42,)]
    assert reader["kept"].columns == ["x"]


def test_a_result_can_be_kept_and_shown(reader):
    assert rows(reader.run("%sql kept= << SELECT 42")) == [(42,)]
    assert rows(reader["kept"]) == [(42,)]


def test_results_show_themselves(session):
    session.run("%sql SELECT id FROM flights ORDER BY 1")
    printed = session.printed()
    assert "│    9 │" in printed.replace("│     9 │", "│    9 │")
    assert "10 rows × 1 column, snapshot 2" in printed


@pytest.mark.parametrize("name", ["2x", "a-b", "class", "a.b"])
def test_only_variables_can_take_a_result(reader, name):
    assert "cannot be the name of a variable" in reader.fails(f"%sql {name} << SELECT 1", LakehouseError)
    reader.fails(f"%sql --output {name} SELECT 1", LakehouseError)


def test_two_targets_are_one_too_many(reader):
    reader.fails("%sql --output a b << SELECT 1", LakehouseError)


def test_types(reader):
    query = "SELECT id, delay FROM flights WHERE id < 2 ORDER BY 1"
    assert isinstance(reader.run(f"%sql {query}"), Result)
    frame = reader.run(f"%sql --type df {query}")
    assert isinstance(frame, pd.DataFrame)
    assert frame["delay"].tolist() == [0, 1]
    table = reader.run(f"%sql --type arrow {query}")
    assert isinstance(table, pa.Table)
    polars = reader.run(f"%sql --type pl {query}")
    assert isinstance(polars, pl.DataFrame)
    reader.run(f"%sql kept << --type relation {query}")
    assert reader["kept"].filter("id = 1").fetchall() == [(1, 1)]
    assert "df" in reader.fails(f"%sql --type dff {query}", LakehouseError)


def test_at(session):
    session.run("%sql DELETE FROM flights WHERE id > 4")
    assert rows(session.run("%sql --at 1 SELECT count(*) FROM flights")) == [(10,)]
    session["before"] = 1
    assert rows(session.run("%sql --at $before SELECT count(*) FROM flights")) == [(10,)]
    session["moment"] = datetime.datetime.now() + datetime.timedelta(hours=1)
    assert rows(session.run("%sql --at $moment SELECT count(*) FROM flights")) == [(5,)]
    assert rows(session.run("%sql --at '2999-01-31 18:00' SELECT count(*) FROM flights")) == [(5,)]
    assert "snapshots go from" in session.fails("%sql --at 99 SELECT 1", lakehouse.errors.SnapshotNotFound)
    session.fails("%sql --at soon SELECT 1", lakehouse.errors.SnapshotNotFound)
    session.fails("%sql --at $never SELECT 1", ParameterFault)


def test_limit(reader):
    assert len(reader.run("%sql --limit 3 SELECT * FROM flights")) == 3
    assert len(reader.run("%sql SELECT * FROM flights --limit 3")) == 3
    assert len(reader.run("%sql --limit 0 SELECT * FROM flights")) == 0
    for wrong in ("-1", "x", "1.5"):
        assert "--limit" in reader.fails(f"%sql --limit {wrong} SELECT 1", LakehouseError)


def test_timeout(reader):
    endless = "SELECT count(*) FROM range(100000000000) t(i) WHERE i % 7 = 3"
    assert "0.3 s" in reader.fails(f"%sql --timeout 0.3 {endless}", QueryTimeout)
    assert rows(reader.run("%sql SELECT 1")) == [(1,)]
    reader.fails("%sql --timeout 0 SELECT 1", LakehouseError)
    reader.fails("%sql --timeout nan SELECT 1", LakehouseError)


def test_no_execute_runs_nothing(session):
    session["n"] = 3
    session["frame"] = pd.DataFrame({"a": [1]})
    shown = repr(
        session.run("%%sql --no-execute\nDELETE FROM flights WHERE id < $n;\nSELECT * FROM frame;\nDROP TABLE flights")
    )
    for part in ("1. write (DELETE)", "$n = 3", "2. read (SELECT)", "3. ddl (DROP)", "table frame = pandas DataFrame"):
        assert part in shown
    assert rows(session.run("%sql SELECT count(*) FROM flights")) == [(10,)]
    session.fails("%sql --no-execute SELECT $unknown", ParameterFault)
    session.fails("%sql --no-execute SELEC 1", SyntaxFault)


def test_no_execute_needs_no_lake(bare):
    bare.run("%load_ext lakehouse")
    assert "1. read (SELECT)" in repr(bare.run("%sql --no-execute SELECT 1"))


def test_explain(session):
    session["n"] = 3
    session["frame"] = pd.DataFrame({"a": [1]})
    plan = repr(session.run("%sql --explain SELECT * FROM flights JOIN frame ON id = a WHERE id = $n"))
    assert "flights" in plan
    assert "JOIN" in plan
    assert "Total Time" in repr(session.run("%sql --explain --analyze SELECT * FROM flights"))
    assert "flights" in repr(session.run("%sql EXPLAIN SELECT * FROM flights"))
    assert repr(session.run("%sql --explain PIVOT flights ON delay")) == "DuckDB shows no plan for this statement"
    session.run("%sql --explain DELETE FROM flights")
    assert rows(session.run("%sql SELECT count(*) FROM flights")) == [(10,)]
    session.fails("%sql --explain --analyze DELETE FROM flights", QueryError)
    session.fails("%sql --explain SELECT 1; SELECT 2", QueryError)
    session.fails("%sql --analyze SELECT 1", LakehouseError)
    session.fails("%sql --explain --limit 3 SELECT 1", QueryError)
    assert rows(session.run("%sql SELECT count(*) FROM flights")) == [(10,)]


def test_writes_show_one_line(session):
    for cell, line in [
        ("%sql INSERT INTO flights VALUES (10, 1, 'x'), (11, 1, 'y')", "2 rows changed, snapshot 3"),
        ("%sql UPDATE flights SET delay = 9 WHERE id = 10", "1 row changed, snapshot 4"),
        ("%sql CREATE TABLE empty (a INTEGER)", "done, snapshot 5"),
        ("%sql SET threads = 1", "done"),
    ]:
        assert repr(session.run(cell)) == line
    session.run("%sql kept << DELETE FROM flights WHERE id = 10")
    assert session["kept"].snapshot == 6


def test_a_script_is_one_commit_and_gives_its_last_rows(session):
    found = session.run(
        "%%sql\nBEGIN;\nINSERT INTO flights VALUES (20, 0, 'z');\nDELETE FROM flights WHERE id = 0;\nCOMMIT;"
    )
    assert found.snapshot == 3
    assert rows(session.run("%%sql\nCREATE TABLE t AS SELECT 1 AS a;\nSELECT a + 1 FROM t")) == [(2,)]


# Values and tables of the notebook


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (2.5, 2.5),
        ("it's; --", "it's; --"),
        (None, None),
        (True, True),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.timedelta64(1_500_000_000, "ns"), datetime.timedelta(seconds=1.5)),
        (np.datetime64("2020-01-31"), datetime.date(2020, 1, 31)),
        (pd.Timestamp("2020-01-31 12:00"), datetime.datetime(2020, 1, 31, 12)),
        (pd.NA, None),
        (pd.NaT, None),
        (datetime.date(2020, 1, 31), datetime.date(2020, 1, 31)),
        ([1, 2], [1, 2]),
        ((1, 2), [1, 2]),
        (np.array([1, 2]), [1, 2]),
        (pd.Series([1, 2]), [1, 2]),
        (pd.Index([1, 2]), [1, 2]),
        (pl.Series([1, 2]), [1, 2]),
        (pa.array([1, 2]), [1, 2]),
        ({7}, [7]),
        (range(2), [0, 1]),
        ({"a": 1}, {"a": 1}),
    ],
)
def test_values(reader, value, expected):
    reader["value"] = value
    assert rows(reader.run("%sql SELECT $value")) == [(expected,)]


@pytest.mark.parametrize("ids", [[1, 2], (1, 2), np.array([1, 2]), pd.Series([1, 2]), {1, 2}])
def test_lists_of_values(reader, ids):
    reader["ids"] = ids
    assert len(reader.run("%sql SELECT * FROM flights WHERE id = ANY($ids)")) == 2
    assert len(reader.run("%%sql\nSELECT * FROM flights WHERE id IN $ids")) == 2


def test_values_are_never_sql(reader):
    reader["name"] = "x'; DROP TABLE flights; --"
    assert rows(reader.run("%sql SELECT $name")) == [("x'; DROP TABLE flights; --",)]
    assert rows(reader.run("%sql SELECT count(*) FROM flights")) == [(10,)]


def test_values_of_a_function(reader):
    reader.run("def of(n):\n    return get_ipython().run_line_magic('sql', 'SELECT $n + 1')")
    reader.run("def inner(m):\n    found = %sql SELECT $m * 2\n    return found")
    assert rows(reader.run("inner(21)")) == [(42,)]


def test_unusable_values_are_named(reader):
    reader["origin"] = "JFK"
    shown = reader.fails("%sql SELECT $orign", ParameterFault)
    assert "'orign'" in shown
    assert "did you mean origin?" in shown
    reader["frame"] = pd.DataFrame({"a": [1]})
    assert "without $" in reader.fails("%sql SELECT $frame", ParameterFault)
    reader["function"] = len
    assert "$function" in reader.fails("%sql SELECT $function", ParameterFault)
    assert "$name instead of ?" in reader.fails("%%sql\nSELECT ?", ParameterFault)


FRAMES = {
    "pandas": lambda: pd.DataFrame({"a": [1, 2]}),
    "polars": lambda: pl.DataFrame({"a": [1, 2]}),
    "lazy": lambda: pl.LazyFrame({"a": [1, 2]}),
    "arrow": lambda: pa.table({"a": [1, 2]}),
    "batch": lambda: pa.record_batch({"a": [1, 2]}),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_are_tables(session, kind):
    session["mine"] = FRAMES[kind]()
    assert rows(session.run("%sql SELECT sum(a)::INT FROM mine")) == [(3,)]
    assert rows(session.run("%sql SELECT a FROM mine m JOIN flights f ON m.a = f.id ORDER BY 1")) == [(1,), (2,)]
    assert repr(session.run("%sql INSERT INTO flights SELECT a, a, 'new' FROM mine")).startswith("2 rows changed")
    assert repr(session.run("%sql CREATE TABLE mine AS SELECT * FROM mine")).startswith("2 rows changed")


def test_results_are_tables(session):
    session.run("%sql first << SELECT id FROM flights WHERE id > 7")
    session.run("%sql second << --type relation SELECT id + 1 AS id FROM first")
    assert rows(session.run("%sql SELECT id FROM second ORDER BY 1")) == [(9,), (10,)]


def test_the_lakes_own_tables_go_first(session):
    session["flights"] = session["late"] = pd.DataFrame({"id": [99]})
    session["Flights"] = pd.DataFrame({"id": [98]})
    assert rows(session.run("%sql SELECT max(id) FROM flights")) == [(9,)]
    assert rows(session.run("%sql SELECT max(id) FROM late")) == [(8,)]
    assert rows(session.run("%sql SELECT max(id) FROM Flights")) == [(9,)]
    assert rows(session.run("%sql WITH mine AS (SELECT 1 AS id) SELECT * FROM mine")) == [(1,)]
    session.run("%sql CREATE TEMP TABLE passing AS SELECT 5 AS id")
    session["passing"] = pd.DataFrame({"id": [97]})
    assert rows(session.run("%sql SELECT id FROM passing")) == [(5,)]


def test_a_frame_is_used_where_an_older_snapshot_has_no_such_table(session):
    session.run("%sql CREATE TABLE young AS SELECT 1 AS id")
    session["young"] = pd.DataFrame({"id": [99]})
    assert rows(session.run("%sql SELECT id FROM young")) == [(1,)]
    assert rows(session.run("%sql --at 1 SELECT id FROM young")) == [(99,)]


def test_frames_do_not_stay(session):
    session["mine"] = pd.DataFrame({"a": [1]})
    session.run("%sql SELECT * FROM mine")
    session["mine"] = pd.DataFrame({"a": [2]})
    assert rows(session.run("%sql SELECT * FROM mine")) == [(2,)]
    session.run("del mine")
    session.fails("%sql SELECT * FROM mine", TableNotFound)


def test_a_view_cannot_keep_a_variable(session):
    session["mine"] = pd.DataFrame({"a": [1]})
    shown = session.fails("%sql CREATE VIEW v AS SELECT * FROM mine", QueryError)
    assert "'mine'" in shown
    session.fails("%sql SELECT * FROM v", TableNotFound)


def test_a_name_that_is_a_variable_and_made_by_the_script(session):
    session["mine"] = pd.DataFrame({"a": [1]})
    script = "%%sql\nCREATE TABLE mine AS SELECT 2 AS a;\nSELECT a FROM mine"
    assert "rename" in session.fails(script, QueryError)
    session.fails("%sql SELECT * FROM lake.mine", TableNotFound)
    session.run("del mine")
    assert rows(session.run(script)) == [(2,)]


# Errors


def test_errors_are_short_and_the_cell_fails(reader):
    shown = reader.fails("%%sql\nSELECT *\nFORM flights", SyntaxFault)
    assert "^" in shown
    assert "did you mean flights?" in reader.fails("%sql SELECT * FROM flihgts", TableNotFound)
    shown = reader.fails("%sql SELECT * FROM {{table}}", SyntaxFault)
    assert "$name" in shown
    assert "templates are not supported" in shown
    assert "--limit" in reader.fails("%sql --limt 3 SELECT 1", LakehouseError)
    assert "needs a value" in reader.fails("%sql --limit", LakehouseError)
    reader.fails("%sql", SyntaxFault)
    reader.fails("%sql SELECT 1/0::DECIMAL(", SyntaxFault)
    assert rows(reader.run("%sql SELECT 1")) == [(1,)]


def test_python_can_catch_them(reader):
    reader.run(
        "import lakehouse\ntry:\n    get_ipython().run_line_magic('sql', 'SELECT * FROM nowhere')\n"
        "except lakehouse.LakehouseError as error:\n    code = error.code"
    )
    assert reader["code"] == "table_not_found"


def test_a_failed_cell_leaves_the_variable_alone(reader):
    reader.run("%sql kept << SELECT 1")
    reader.fails("%sql kept << SELECT * FROM nowhere", TableNotFound)
    assert rows(reader["kept"]) == [(1,)]


# Names of the magics


class Other:
    """Another extension's %sql."""

    def __call__(self, line, cell=None):
        return f"other {line}"


def register_other(session, name="sql"):
    other = Other()
    for kind in ("line", "cell"):
        session.shell.magics_manager.magics[kind][name] = other
    return other


def test_another_sql_magic_is_not_overwritten(bare):
    register_other(bare)
    bare.run("%load_ext lakehouse")
    assert len(bare.printed().strip().splitlines()) == 1
    bare.run("%lake lake")
    assert bare.run("%sql SELECT 1") == "other SELECT 1"
    assert rows(bare.run("%lakesql SELECT 1")) == [(1,)]
    assert rows(bare.run("%%lakesql\nSELECT 2")) == [(2,)]
    assert "SELECT" in bare.complete("%lakesql SEL|")
    bare.run("%lake --magic q")
    assert rows(bare.run("%q SELECT 3")) == [(3,)]
    assert bare.shell.find_line_magic("lakesql") is None
    bare.run("%lake --magic sql")
    assert rows(bare.run("%sql SELECT 4")) == [(4,)]
    bare.run("%unload_ext lakehouse")
    assert bare.run("%sql SELECT 1") == "other SELECT 1"


def test_a_magic_needs_a_usable_name(session):
    session.fails("%lake --magic 2x", LakehouseError)
    session.fails("%lake --magic lake", LakehouseError)
    assert rows(session.run("%sql SELECT 1")) == [(1,)]


def test_unloading_leaves_nothing_behind(bare):
    before = {kind: set(table) for kind, table in bare.shell.magics_manager.magics.items()}
    matchers = list(bare.shell.Completer.custom_matchers)
    bare.run("%load_ext lakehouse")
    bare.run("%lake lake")
    bare.run("%sql kept << SELECT 42")
    bare.run("%unload_ext lakehouse")
    assert {kind: set(table) for kind, table in bare.shell.magics_manager.magics.items()} == before
    assert bare.shell.Completer.custom_matchers == matchers
    assert rows(bare["kept"]) == [(42,)]
    bare.run("%load_ext lakehouse")
    assert rows(bare.run("%lake lake\n%sql SELECT 1")) == [(1,)]
    bare.run("%reload_ext lakehouse")
    assert len(bare.shell.Completer.custom_matchers) == len(matchers) + 1


def test_a_magic_that_came_later_stays(session):
    other = register_other(session)
    session.run("%unload_ext lakehouse")
    assert session.shell.find_line_magic("sql") is other


def test_the_help_names_every_option():
    for option in (*cells.SQL_OPTIONS, *cells.LAKE_OPTIONS):
        documented = Notebook.sql.__doc__ if option in cells.SQL_OPTIONS else Notebook.lake.__doc__
        assert option.name in documented
    for word in cells.LAKE_WORDS:
        assert f"%lake {word}" in Notebook.lake.__doc__


# Completion


def test_completion_in_cells(session):
    session["code"] = "JFK"
    session["mine"] = pd.DataFrame({"aa": [1], "ab": [2]})
    assert session.complete("%sql SELECT * FROM fli|") == ["flights"]
    assert session.complete("%%sql\nSELECT f.del|\nFROM flights f") == ["delay"]
    assert session.complete('%%sql\nSELECT * FROM flights f WHERE f."odd|') == ['"odd name"']
    assert session.complete("%%sql\nSELECT l.| FROM late l") == ["id", "delay"]
    assert session.complete("x = %sql SELECT * FROM mine m WHERE m.a|") == ["aa", "ab"]
    assert session.complete("%sql SELECT $co|") == ["$code"]
    assert session.complete("%sql --lim|") == ["--limit"]
    assert session.complete("%lake columns la|") == ["late"]
    assert session.complete("%lake |")[:3] == ["tables", "columns", "snapshots"]  # then files
    assert "lake/" in session.complete("%lake lak|")
    assert "date_trunc" in session.complete("%sql SELECT date_tr|")
    assert session.complete("%sql SELECT 'é🙂', dela| FROM flights") == ["delay"]
    assert "code" in session.complete("cod|")


def test_completion_follows_the_lake(session, tmp_path):
    assert session.complete("%sql SELECT * FROM fres|") == []
    session.run("%sql CREATE TABLE fresh AS SELECT 1 AS newest")
    assert session.complete("%sql SELECT * FROM fres|") == ["fresh"]
    with lakehouse.open(tmp_path / "lake") as beside:
        beside.sql("ALTER TABLE fresh ADD COLUMN latest INTEGER")
    assert session.complete("%sql SELECT lates| FROM fresh") == ["latest"]


def test_completion_without_a_lake_or_on_a_closed_one_is_silent(bare):
    bare.run("%load_ext lakehouse")
    bare.printed()
    bare.complete("%sql SELECT * FROM fli|")
    bare.run("lake = %lake lake")
    bare.run("lake.close()")
    bare.printed()
    bare.complete("%sql SELECT * FROM fli|")
    assert bare.printed() == ""


def test_completion_on_a_lake_of_a_thousand_tables(session):
    lake = session.run("%lake wide")
    columns = ", ".join(f"column_{i} INTEGER" for i in range(10))
    with lake.transaction() as transaction:
        for i in range(1000):
            transaction.execute(f"CREATE TABLE table_{i:04} ({columns})")
    assert session.complete("%sql SELECT * FROM table_099|") == [f"table_{i:04}" for i in range(990, 1000)]
    assert session.complete("%%sql\nSELECT t.| FROM table_0500 t") == [f"column_{i}" for i in range(10)]
    assert session.complete("%%sql\nSELECT column_9|") == ["column_9"]


# Saved queries, formatting, and what %lake tells


def test_saved_queries_are_built_upon(session):
    session["least"] = 1
    assert rows(session.run("%%sql --save late1\nSELECT id, delay FROM flights WHERE delay >= $least"))
    session.run("%%sql --save late2 --with late1 --no-execute\nSELECT * FROM late1 WHERE delay = 2")
    assert rows(session.run("%%sql --with late2 --with late1\nSELECT count(*) FROM late2 JOIN late1 USING (id)")) == [
        (3,)
    ]
    assert rows(session.run("%sql --with=late2 SELECT count(*) FROM late2")) == [(3,)]
    plan = session.run("%%sql --with late2 --explain\nSELECT * FROM late2")
    assert "flights" in repr(plan)
    assert "WITH late1 AS" in repr(session.run("%sql --with late2 --no-execute FROM late2"))
    session.run("%sql --with late2 --output three SELECT count(*) FROM late2")
    assert rows(session["three"]) == [(3,)]
    assert "late2" in repr(session.run("%lake saved"))
    assert repr(session.run("%lake saved late2")) == "SELECT * FROM late1 WHERE delay = 2"


def test_saving_goes_wrong_in_words(session):
    assert "cannot be the name" in session.fails("%%sql --save my-query\nSELECT 1", LakehouseError)
    assert "one SELECT" in session.fails("%%sql --save gone\nDELETE FROM flights", QueryError)
    assert rows(session.run("%sql SELECT count(*) FROM flights")) == [(10,)]
    assert "no saved query 'nope'" in session.fails("%sql --with nope SELECT 1", NotFound)
    session.run("%sql --save a --no-execute SELECT 1 AS x")
    assert "would read itself" in session.fails("%%sql --save a --with a\nSELECT 1", QueryError)
    session.run("%lake lake --read-only")
    session.fails("%%sql --save late3\nSELECT 1", LakeReadOnly)


def test_format_lays_out_the_cell_and_runs_nothing(session, monkeypatch):
    replaced = []
    monkeypatch.setattr(
        session.shell, "set_next_input", lambda text, replace=False: replaced.append((text, replace)), raising=False
    )
    shown = session.run(
        "%%sql --format --limit 5\nSELECT id, -- the key\ndelay FROM flights WHERE delay>1 AND id<$least"
    )
    assert repr(shown) == ("select\n    id,  -- the key\n    delay\nfrom flights\nwhere delay > 1 and id < $least")
    assert replaced == [(f"%%sql --limit 5\n{shown!r}\n", True)]
    assert repr(session.run("%sql --format DELETE FROM flights")) == "DELETE from flights"  # of DML it knows little
    assert rows(session.run("%sql SELECT count(*) FROM flights")) == [(10,)]
    session.fails("%%sql --format\nSELEC 1", SyntaxFault)


def test_lake_tells_what_is_in_it(session):
    profile = session.run("%lake profile flights")
    assert profile["delay"].distinct == 3
    assert "late" in repr(session.run("%lake search late"))
    assert "column odd name" in repr(session.run("%lake search odd flights"))
    session.run("%sql INSERT INTO flights VALUES (10, 0, 'f')")
    history = repr(session.run("%lake history flights"))
    assert history.count("\n") == 4
    assert "INSERT INTO flights" in history
    assert "1 snapshot;" in repr(session.run("%lake history flights 1"))
    lineage = session.run("%lake lineage late")
    assert "flights" in repr(lineage)
    assert "flights" in repr(session.run("%lake diff 1 3"))
    queries = repr(session.run("%lake queries 2"))
    assert "INSERT INTO flights" in queries
    assert "2 queries" in queries
    assert "duckdb_tables" not in repr(session.run("%lake queries"))  # what we ask ourselves is no part of it
    for words, kind in (
        ("profile nowhere", TableNotFound),
        ("profile", LakehouseError),
        ("search", LakehouseError),
        ("history flights many", LakehouseError),
        ("diff 1", LakehouseError),
        ("queries 0", LakehouseError),
        ("saved nothing", NotFound),
        ("profile flights --at 1", LakehouseError),
    ):
        session.fails(f"%lake {words}", kind)
