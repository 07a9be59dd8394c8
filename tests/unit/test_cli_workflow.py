"""`lakehouse workflow`: what it prints and the exit codes it ends with."""

import json

import pytest
from click.testing import CliRunner

from lakehouse.cli import main

DEFINITION = """
[params]
least = 1
[nodes.one]
mode = "sql"
sql = "SELECT 3 AS a"
table = "one"
[nodes.check]
mode = "sql"
sql = "SELECT * FROM one WHERE a < $least"
expect = "no rows"
"""


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli-workflow")
    (folder / "w.toml").write_text(DEFINITION)
    (folder / "bad.toml").write_text("[nodes.a]\nmode = 'x'\n")

    def called(*words, code=0):
        words = [word.replace("@", str(folder) + "/") for word in words]
        done = CliRunner().invoke(main, ["--lake", str(folder / "lake"), "workflow", *words])
        assert done.exit_code == code, (done.output, done.exception)
        return json.loads(done.stdout) if "--json" in words and code != 2 and done.stdout else done.output

    return called


def test_from_a_definition_to_its_runs(call):
    assert call("validate", "@w.toml", "--json")["order"] == ["one", "check"]
    assert "node 'a', key 'mode'" in call("validate", "@bad.toml", code=1)
    assert "no workflow is stored" in call("list")
    assert "stored as w" in call("store", "@w.toml")
    assert call("list", "--json") == [{"workflow": "w"}]
    run = call("run", "w", "--param", "least=2", "--json")
    assert (run["status"], run["success"], run["params"]) == ("done", True, {"least": 2})
    assert [(event["node"], event["success"]) for event in run["events"]] == [("one", True), ("check", True)]
    failed = call("run", "w", "--param", "least=9", "--json", code=1)
    assert failed["status"] == "failed"
    assert "NodeFailed" in call("show", failed["run"])
    again = call("resume", failed["run"], "--quiet", code=1)
    assert f"hint: lakehouse workflow resume {failed['run']}" in again
    call("resume", failed["run"], "--updated", "--quiet", code=1)
    assert [one["run"] for one in call("runs", "w", "--json")] == [failed["run"], run["run"]]
    assert "does not run: it is failed" in call("cancel", failed["run"])
    assert call("show", run["run"], "--log", "one") == ""
    assert "check (failed, sql)  after one" in call("graph", "w", "--run", failed["run"])
    assert call("graph", "w", "--svg").startswith("<svg")
    assert [node["after"] for node in call("graph", "w", "--json")["nodes"]] == [[], ["one"]]
    assert "there is no run" in call("show", "none", code=1)
    assert "did you mean w" in call("run", "ww", code=1)
    call("run", "w", "--param", "least", code=2)


def test_schedules(call):
    call("schedule", "@w.toml", code=2)
    units = call("schedule", "@w.toml", "--calendar", "daily", "--json")
    assert set(units) == {"lakehouse-w.service", "lakehouse-w.timer"}
    assert call("schedule", "@w.toml", "--cron", "0 0 * * *").startswith("0 0 * * * cd ")


def test_a_definition_that_was_mended_is_gone_on_with(call, tmp_path):
    file = tmp_path / "mended.toml"
    file.write_text("[nodes.a]\nmode = 'sql'\nsql = 'SELECT 1 AS a'\nexpect = 'no rows'\n")
    failed = call("run", str(file), "--json", code=1)
    file.write_text("[nodes.a]\nmode = 'sql'\nsql = 'SELECT 1 AS a'\nexpect = 'rows'\n")
    assert "mended.toml has changed since (changed: a)" in call("resume", failed["run"], code=1)
    assert call("resume", failed["run"], "--updated", "--json")["status"] == "done"
    file.unlink()
    assert "nothing to take" in call("resume", failed["run"], "--updated", code=2)
