"""`lakehouse profile`, `search`, `queries` and `fmt`."""

import json
import stat

import pytest
from click.testing import CliRunner

import lakehouse
from lakehouse.cli import main


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "lake"
    with lakehouse.open(path) as lake:
        lake.sql("CREATE TABLE trips AS SELECT range AS i, 'row ' || range % 3 AS place FROM range(50)")
        lake.catalog.table("trips").set_comment("where people went")
    return path


@pytest.fixture
def run(folder):
    def call(*arguments, code=0, stdin=None):
        done = CliRunner().invoke(main, ["--lake", str(folder), *map(str, arguments)], input=stdin)
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done.stdout if code == 0 else done.stderr

    return call


def test_profile(run, folder):
    text = run("profile", "trips")
    assert "row 0 (17)" in text
    assert "50 rows × 2 columns" in text
    found = json.loads(run("profile", "trips", "--json"))
    assert (found["rows"], found["columns"][0]["max"], found["columns"][1]["distinct"]) == (50, 49, 3)
    with lakehouse.open(folder) as lake:
        lake.sql("DELETE FROM trips WHERE i > 9")
    assert json.loads(run("profile", "trips", "--json", "--at", "1"))["rows"] == 50
    assert json.loads(run("profile", "trips", "--json", "--sample", "5"))["sample"] is not None
    assert json.loads(run("profile", "trips", "--json", "--all"))["rows"] == 10
    assert "did you mean trips" in run("profile", "trip", code=1)
    run("profile", "trips", "--all", "--sample", "5", code=2)


def test_search(run):
    assert "comment where people went" in run("search", "people")
    (hit,) = json.loads(run("search", "PLACE", "trips", "--json"))
    assert (hit["name"], hit["matches"][0]["where"]) == ("trips", "name")
    assert run("search", "nowhere").startswith("nothing has 'nowhere'")
    assert json.loads(run("search", "nowhere", "--json")) == []


def test_queries(run, folder):
    run("sql", "SELECT 1 AS first")
    run("sql", "SELECT * FROM nowhere", code=1)
    text = run("queries")
    assert "table_not_found" in text
    assert "SELECT 1 AS first" in text
    newest, *_ = json.loads(run("queries", "--json", "--limit", "1"))
    assert (newest["status"], newest["sql"]) == ("failed", "SELECT * FROM nowhere")
    assert [one["rows"] for one in json.loads(run("queries", "--json", "--text", "FIRST"))] == [1]
    assert len(json.loads(run("queries", "--json", "--status", "failed"))) == 1
    run("queries", "--status", "odd", code=2)


def test_fmt_changes_files_and_keeps_their_mode(run, tmp_path):
    scripts = tmp_path / "scripts"
    (scripts / "deep").mkdir(parents=True)
    (scripts / "a.sql").write_text("SELECT 1 -- one\n;select A,b from T")
    (scripts / "deep" / "b.sql").write_text("select 2\n")
    (scripts / "empty.sql").write_text("")
    (scripts / "notes.txt").write_text("SELECT  1")
    (scripts / "a.sql").chmod(0o640)
    before = (scripts / "a.sql").read_text()
    run("fmt", "--check", scripts, code=1)
    assert (scripts / "a.sql").read_text() == before
    assert "3 files, 1 changed, 0 left" in run("fmt", scripts)
    assert (scripts / "a.sql").read_text() == "select 1  -- one\n;\n\nselect A, b from T\n"
    assert stat.S_IMODE((scripts / "a.sql").stat().st_mode) == 0o640
    assert (scripts / "notes.txt").read_text() == "SELECT  1"
    assert "0 to change" in run("fmt", "--check", scripts)
    assert sorted(path.name for path in scripts.iterdir()) == ["a.sql", "deep", "empty.sql", "notes.txt"]


def test_fmt_leaves_what_it_cannot_lay_out_and_goes_on(run, tmp_path):
    bad, binary, good = (tmp_path / name for name in ("bad.sql", "binary.sql", "good.sql"))
    bad.write_text("SELEC  1")
    binary.write_bytes(b"SELECT '\xff'")
    good.write_text("SELECT  1")
    told = run("fmt", bad, binary, good, code=1)
    assert "bad.sql: syntax error" in told
    assert "binary.sql: it is not UTF-8" in told
    assert (bad.read_text(), good.read_text()) == ("SELEC  1", "select 1\n")
    assert binary.read_bytes() == b"SELECT '\xff'"
    run("fmt", tmp_path / "nowhere.sql", code=2)


def test_fmt_between_pipes(run):
    assert run("fmt", stdin="SELECT  a FROM t -- x") == "select a from t  -- x\n"
    assert run("fmt", "-", stdin="") == ""
    assert "would be changed" in run("fmt", "--check", stdin="SELECT  1", code=1)
    assert run("fmt", "--check", stdin="select 1\n") == ""
    assert "syntax error" in run("fmt", stdin="SELEC 1", code=1)
    run("fmt", "-", "x.sql", code=2)
