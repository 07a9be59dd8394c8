"""The `lakehouse` command: what it prints, and its exit codes."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner

import lakehouse
from lakehouse.cli import main


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "lake"
    with lakehouse.open(path) as lake:
        lake.sql("CREATE TABLE t AS SELECT range AS i, 'row ' || range AS s FROM range(50)")
        lake.catalog.table("t").set_comment("some rows")
        lake.sql("CREATE VIEW v AS SELECT i * 2 AS j FROM t")
    return path


@pytest.fixture
def run(folder):
    def call(*arguments, code=0, lake=folder, stdin=None):
        done = CliRunner().invoke(main, ["--lake", str(lake), *map(str, arguments)], input=stdin)
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done.stdout if code == 0 else done.stderr

    return call


def test_help_names_every_command_and_the_exit_codes(run):
    text = run("--help")
    for command in ("init", "demo", "ingest", "sql", "tables", "show", "snapshots", "config"):
        assert f"  {command} " in text
    assert "130 interrupted" in text


def test_init_makes_a_lake_once(run, tmp_path):
    assert "is ready (0 tables)" in run("init", lake=tmp_path / "new")
    assert "is ready (0 tables)" in run("init", lake=tmp_path / "new")


def test_sql_prints_a_table_json_or_a_file(run, tmp_path):
    assert "50 rows (first 20) × 2 columns" in run("sql", "SELECT * FROM t ORDER BY i")
    assert json.loads(run("sql", "SELECT i, s, NULL AS n FROM t WHERE i = 3", "--json")) == [
        {"i": 3, "s": "row 3", "n": None}
    ]
    assert len(json.loads(run("sql", "FROM t", "--json"))) == 50
    assert json.loads(run("sql", "FROM t WHERE false", "--json")) == []
    assert "50 rows in" in run("sql", "FROM t", "--output", tmp_path / "t.csv")
    assert len(pd.read_csv(tmp_path / "t.csv")) == 50
    run("sql", "FROM t", "--output", tmp_path / "t.parquet")
    assert len(pd.read_parquet(tmp_path / "t.parquet")) == 50
    assert "end in .csv or .parquet" in run("sql", "FROM t", "--output", "t.doc", code=2)


def test_sql_takes_parameters_limits_versions_and_standard_input(run):
    assert json.loads(run("sql", "SELECT $a AS a, $b AS b", "-p", "a=7", "-p", "b=x y", "--json")) == [
        {"a": 7, "b": "x y"}
    ]
    assert len(json.loads(run("sql", "FROM t", "--limit", 3, "--json"))) == 3
    assert json.loads(run("sql", "-", "--json", stdin="SELECT 1 AS one")) == [{"one": 1}]
    run("sql", "DELETE FROM t")
    assert json.loads(run("sql", "SELECT count(*) AS n FROM t", "--json")) == [{"n": 0}]
    assert json.loads(run("sql", "SELECT count(*) AS n FROM t", "--at", 1, "--json")) == [{"n": 50}]
    assert "SCAN" in run("sql", "SELECT i FROM t WHERE i > 3", "--explain", "--at", 1)


def test_tables_show_and_snapshots(run):
    assert json.loads(run("tables", "--json")) == [
        {"name": "t", "kind": "table", "rows": 50, "bytes": pytest.approx(1000, abs=1000), "comment": "some rows"},
        {"name": "v", "kind": "view", "rows": None, "bytes": None, "comment": None},
    ]
    assert "some rows" in run("tables")
    shown = json.loads(run("show", "t", "--json"))
    assert (shown["rows"], [c["column"] for c in shown["columns"]]) == (50, ["i", "s"])
    assert "table t: 50 rows" in run("show", "t")
    listed = json.loads(run("snapshots", "--json"))
    assert [s["snapshot"] for s in listed] == [3, 2, 1, 0]
    assert "CREATE VIEW v" in run("snapshots", "--limit", 1)
    assert json.loads(run("tables", "--at", 1, "--json"))[0]["comment"] is None


def test_ingest_says_what_it_did_and_knows_duplicates(run, tmp_path):
    file = tmp_path / "people.csv"
    file.write_text("name,age\nAda,36\nAlan,41\n")
    assert "people: 2 rows" in run("ingest", file)
    again = run("ingest", file)
    assert "loaded before (2 rows" in again
    assert "--force" in again
    receipt = json.loads(run("ingest", file, "people", "--force", "--json"))
    assert (receipt["rows"], receipt["duplicate"]) == (2, False)
    assert json.loads(run("sql", "SELECT count(*) AS n FROM people", "--json")) == [{"n": 4}]
    run("ingest", file, "odd", "-o", 'nullstr=["36"]', "--mode", "replace")
    assert json.loads(run("sql", "SELECT count(age) AS n FROM odd", "--json")) == [{"n": 1}]


def test_config_tells_values_and_origins(run, folder, monkeypatch):
    (folder / "lakehouse.toml").write_text("[query]\nmax_rows = 5\n")
    monkeypatch.setenv("LAKEHOUSE_QUERY_TIMEOUT", "9")
    found = {entry["setting"]: entry for entry in json.loads(run("config", "--json"))}
    assert found["query.max_rows"]["value"] == 5
    assert "lakehouse.toml" in found["query.max_rows"]["from"]
    assert found["query.timeout"] == {"setting": "query.timeout", "value": 9.0, "from": "$LAKEHOUSE_QUERY_TIMEOUT"}
    assert found["catalog.sync"]["from"] == "default"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sql", "SELECT * FROM tt"), ["tt", "did you mean t"]),
        (("sql", "SELEC 1"), ["^", "SELEC"]),
        (("sql", "SELECT $x"), ["$x"]),
        (("show", "nothing"), ["nothing"]),
        (("ingest", "/nowhere/at/all.csv"), ["all.csv"]),
        (("tables", "nope"), ["schema 'nope'"]),
        (("sql", "SELECT 1", "--at", "yesterday"), ["yesterday"]),
    ],
)
def test_an_error_is_a_line_and_a_hint_and_exit_code_1(run, arguments, words):
    said = run(*arguments, code=1)
    assert said.startswith("error: ")
    for word in words:
        assert word in said


def test_an_error_is_json_when_json_was_asked_for(folder, child):
    said = child(
        """
        import subprocess
        done = subprocess.run([sys.executable, "-m", "lakehouse.cli", "--lake", args[0], "sql", "FROM x", "--json"],
                              capture_output=True, text=True)
        say([done.returncode, json.loads(done.stderr)["code"], done.stdout])
        """,
        folder,
    ).end()
    assert said == [[1, "table_not_found", ""]]


def test_a_mistyped_path_makes_no_lake(run, tmp_path):
    assert "there is no lake" in run("tables", lake=tmp_path / "typo", code=1)
    assert not (tmp_path / "typo").exists()


def test_a_broken_view_is_listed_like_any_other(run):
    run("sql", "DROP TABLE t; CREATE TABLE u (i INTEGER)")
    assert [(row["name"], row["rows"]) for row in json.loads(run("tables", "--json"))] == [("u", 0), ("v", None)]
    assert "view" in run("tables")


def test_a_pattern_or_folder_needs_the_name_of_the_table(run, tmp_path):
    (tmp_path / "in-1").mkdir()
    (tmp_path / "in-1" / "sales-1.csv").write_text("id\n1\n")
    for source in (tmp_path / "in-1" / "sales-*.csv", tmp_path / "in-1"):
        assert "name the TABLE" in run("ingest", source, code=2)
        assert "all" in run("ingest", source, "all_" + str(len(str(source))))
    assert "sales-1: 1 row" in run("ingest", tmp_path / "in-1" / "sales-1.csv")


def test_a_load_of_nothing_makes_no_lake(run, tmp_path):
    assert "no file" in run("ingest", tmp_path / "nothing.csv", lake=tmp_path / "typo", code=1)
    assert not (tmp_path / "typo").exists()
    (tmp_path / "a.csv").write_text("id\n1\n")
    assert "a: 1 row" in run("ingest", tmp_path / "a.csv", lake=tmp_path / "new")


def test_usage_errors_have_exit_code_2(run):
    run("nonsense", code=2)
    run("sql", code=2)
    run("sql", "SELECT 1", "-p", "novalue", code=2)
