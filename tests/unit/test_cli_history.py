"""`lakehouse history`, `diff`, `tag` and `rollback`."""

import json

import pytest
from click.testing import CliRunner

import lakehouse
from lakehouse.cli import main


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "lake"
    with lakehouse.open(path) as lake:
        lake.sql("CREATE TABLE t AS SELECT range AS i, 'row' AS s FROM range(50)")
        lake.sql("DELETE FROM t WHERE i < 5")
        lake.sql("UPDATE t SET s = 'new' WHERE i = 7")
    return path


@pytest.fixture
def run(folder):
    def call(*arguments, code=0):
        done = CliRunner().invoke(main, ["--lake", str(folder), *map(str, arguments)])
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done.stdout if code == 0 else done.stderr

    return call


def test_history(run):
    rows = json.loads(run("history", "t", "--json"))
    assert [(r["snapshot"], r["inserted"], r["updated"], r["deleted"]) for r in rows] == [
        (3, 0, 1, 0),
        (2, 0, 0, 5),
        (1, 50, 0, 0),
    ]
    assert set(rows[0]) == {"snapshot", "time", "author", "message", "inserted", "updated", "deleted"}
    assert "UPDATE t" in run("history", "t", "--limit", 1)
    changed = json.loads(run("history", "t", "--since", 3, "--json"))
    assert [(r["change_type"], r["i"], r["s"]) for r in changed] == [
        ("update_preimage", 7, "row"),
        ("update_postimage", 7, "new"),
    ]
    assert len(json.loads(run("history", "t", "--since", 2, "--until", 2, "--json"))) == 5
    assert "delete" in run("history", "t", "--since", 2)
    assert "--since" in run("history", "t", "--until", 2, code=2)
    assert "no table" in run("history", "nothing", code=1)


def test_diff(run):
    assert "~ table t: 50 → 45 rows, 1 updated, 5 deleted" in run("diff", 1)
    assert json.loads(run("diff", 1, 2, "--json"))["changed"][0]["rows_after"] == 45
    assert "nothing differs" in run("diff", 2, 2)
    assert "no snapshot 99" in run("diff", 99, code=1)


def test_tag(run):
    assert "no tags" in run("tag")
    assert json.loads(run("tag", "start", 1, "--json")) == [{"name": "start", "snapshot": 1}]
    assert "latest" in run("tag", "latest")
    assert json.loads(run("tag", "--json")) == [{"name": "latest", "snapshot": 3}, {"name": "start", "snapshot": 1}]
    assert json.loads(run("sql", "SELECT count(*) AS n FROM t", "--at", "start", "--json")) == [{"n": 50}]
    assert "already" in run("tag", "start", 2, code=1)
    run("tag", "start", 2, "--replace")
    assert json.loads(run("tag", "latest", "--delete", "--json")) == [{"name": "start", "snapshot": 2}]
    assert "no tag 'latest'" in run("tag", "latest", "--delete", code=1)
    assert json.loads(run("tag", "owner=sales=x", "--table", "t", "--json")) == [{"key": "owner", "value": "sales=x"}]
    assert json.loads(run("tag", "n=12", "--table", "t", "--json"))[0] == {"key": "n", "value": "12"}
    assert json.loads(run("tag", "owner", "--table", "t", "--delete", "--json")) == [{"key": "n", "value": "12"}]
    assert "NAME=VALUE" in run("tag", "owner", "--table", "t", code=2)
    assert "NAME" in run("tag", "--delete", code=2)
    assert "VERSION" in run("tag", "a=b", 3, "--table", "t", code=2)


def test_rollback(run, folder):
    assert "snapshot 4; undo: lakehouse rollback 3 t" in run("rollback", 1, "t")
    assert json.loads(run("rollback", 3, "t", "--json")) == {"table": "t", "snapshot": 5, "before": 4}
    run("sql", "ALTER TABLE t ADD COLUMN x INTEGER")
    assert "the version comes first: lakehouse rollback 3 t" in run("rollback", "t", 3, code=2)
    assert "no table or view 'u'" in run("rollback", 3, "u", code=1)
    assert "x int32 was added" in run("rollback", 3, "t", code=1)
    run("rollback", 3, "t", "--allow-schema-change")
    run("sql", "DROP TABLE t")
    assert "undo: lakehouse rollback 8 --all" in run("rollback", 3, "--all")
    with lakehouse.open(folder) as lake:
        assert lake.catalog.table("t").row_count == 45
    assert "nothing to do" in run("rollback", 9, "--all")
    assert "TABLE or --all" in run("rollback", 3, code=2)
    assert "one TABLE" in run("rollback", 3, "--all", "--allow-schema-change", code=2)
    assert "no snapshot 99" in run("rollback", 99, "t", code=1)
