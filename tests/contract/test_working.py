"""Reports, workflows, events and saved queries, asked of a lake that is opened here and of one behind a server."""

import datetime as dt

import nbformat
import pytest

import lakehouse
from lakehouse.errors import (
    AlreadyExists,
    EventInvalid,
    FilterInvalid,
    NotFound,
    QueryError,
    ReportInvalid,
    ReportNotFound,
    RunFailed,
    RunNotFound,
    SyntaxFault,
    WorkflowInvalid,
    WorkflowNotFound,
)
from lakehouse.observer.model import Data, Event, Problem

CODE = (
    "import lakehouse\nwith lakehouse.open() as lake:\n    print(lake.sql('SELECT count(*) * $n', {'n': n}).fetchall())"
)
WORKFLOWS = {
    "quick": "[params]\nn = 1\n[nodes.one]\nmode = 'sql'\nsql = 'SELECT $n AS n'\ntable = 'quick_one'\n"
    "[nodes.two]\nmode = 'sql'\nsql = 'SELECT n + 1 AS n FROM quick_one'\ntable = 'quick_two'\n",
    "fails": "[nodes.one]\nmode = 'sql'\nsql = 'SELECT 1 AS n'\ntable = 'fails_one'\n"
    "[nodes.two]\nmode = 'sql'\nsql = 'SELECT text::INTEGER AS n FROM fails_in'\ntable = 'fails_two'\nafter = ['one']\n",
    "broken": "[nodes.a]\nmode = 'none'\n",
}


@pytest.fixture(scope="module", params=["here", "behind a server"])
def lake(request, tmp_path_factory):
    """One lake for all tests of a kind, with a report and workflows in its folder."""
    if request.param == "behind a server":
        served = request.getfixturevalue("server").folder / "lake"
        furnish(served)
        yield request.getfixturevalue("client")
        return
    folder = tmp_path_factory.mktemp("here") / "lake"
    with lakehouse.open(folder, settings={"query": {"threads": 1}}) as opened:
        furnish(folder)
        yield opened


def furnish(folder):
    cells = [
        nbformat.v4.new_markdown_cell("# Counting"),
        nbformat.v4.new_code_cell("n = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(CODE),
    ]
    for name in ("reports", "workflows"):
        (folder / name).mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "reports" / "counting.ipynb")
    for name, text in WORKFLOWS.items():
        (folder / "workflows" / f"{name}.toml").write_text(text)


# reports


def test_reports(lake):
    assert "counting" in [one.name for one in lake.reports.list()]
    report = lake.reports.describe("counting")
    assert [(one.name, one.kind, one.default) for one in report.parameters] == [("n", "int", 1)]
    assert lake.reports.parsed("counting", {"n": "3"}) == {"n": 3}
    told = []
    run = lake.reports.run("counting", {"n": 3}, told=told.append)
    assert (run.status, run.error, run.parameters, run.reused) == ("ok", None, {"n": 3}, False)
    assert told[-1] == run
    assert run.snapshot == lake.catalog.current_snapshot().id
    assert b"[(3,)]" in lake.storage.get(run.artefacts["html"])
    asked = {"at": run.snapshot, "request": "contract-1"}
    again = lake.reports.start("counting", {"n": 3}, **asked)
    assert (again.id, again.reused, again.status) == (run.id, True, "ok")
    assert lake.reports.get(run.id) == run
    assert lake.reports.cancel(run.id) is False
    batch = lake.reports.batch("counting", [{"n": 3}], at=run.snapshot)
    assert ([one.id for one in batch.runs], batch.failed, batch.snapshot) == ([run.id], [], run.snapshot)
    assert b"all complete" in lake.storage.get(batch.page)
    assert [one.id for one in lake.reports.runs("counting")] == [one.id for one in lake.reports.runs()] == [run.id]
    compared = lake.reports.compare(run.id, run.id)
    assert (compared.same, compared.parameters, compared.snapshot, compared.code) == (True, {}, None, False)


def test_what_no_report_can(lake):
    for act, error in (
        (lambda: lake.reports.describe("missing"), ReportNotFound),
        (lambda: lake.reports.describe("../x"), ReportInvalid),
        (lambda: lake.reports.run("counting", {"n": "x"}), ReportInvalid),
        (lambda: lake.reports.run("counting", formats=["doc"]), ReportInvalid),
        (lambda: lake.reports.batch("counting", [{"n": 1}, {"m": 1}]), ReportInvalid),
        (lambda: lake.reports.get("counting--none"), RunNotFound),
        (lambda: lake.reports.get("none"), RunNotFound),
        (lambda: lake.reports.cancel("a/b--c"), RunNotFound),
        (lambda: lake.reports.compare("counting--a", "counting--b"), RunNotFound),
    ):
        with pytest.raises(error):
            act()


# workflows


def test_workflows(lake):
    assert lake.workflows.names() == ["broken", "fails", "quick"]
    plan = lake.workflows.validate("quick")
    assert (plan.order, plan.before["two"], plan.behind["one"]) == (("one", "two"), ("one",), ("two",))
    assert (plan.reads["two"], plan.writes["two"]) == (("quick_one",), ("quick_two",))
    seen = []
    run = lake.workflows.run("quick", {"n": 41}, progress=seen.append)
    assert (run.status, run.success, run.params, run.nodes) == ("done", True, {"n": 41}, {"one": "sql", "two": "sql"})
    assert [event.node for event in seen] == ["one", "two"]
    assert [row["status"] for row in run.rows()] == ["done", "done"]
    assert lake.sql("FROM quick_two").fetchall() == [(42,)]
    assert lake.workflows.get(run.id).events == run.events
    assert [one.id for one in lake.workflows.runs("quick")] == [run.id]
    graph = lake.workflows.graph("quick", run.id)
    assert graph.text().splitlines() == ["quick", "  one (done, sql)", "    two (done, sql)  after one"]
    assert "<svg" in graph.svg()
    assert [node["status"] for node in lake.workflows.graph("quick").to_dict()["nodes"]] == [None, None]
    assert lake.workflows.printed(run.id, "one") == lake.workflows.printed(run.id, "no such") == ""
    handle = lake.workflows.start("quick", {"n": 41}, force=True, request="contract-1")
    done = handle.wait()
    assert (done.id, done.status) == (handle.id, "done")
    assert lake.workflows.start("quick", {"n": 41}, force=True, request="contract-1").id == handle.id
    assert lake.workflows.cancel(handle.id).status == "done"
    assert lake.workflows.resume(handle.id).id == handle.id


def test_a_workflow_that_fails_is_resumed(lake):
    lake.sql("CREATE TABLE fails_in AS SELECT 'seven' AS text")
    with pytest.raises(RunFailed, match="node 'two'") as caught:
        lake.workflows.run("fails")
    (run,) = lake.workflows.runs("fails")
    assert run.id in caught.value.hint
    assert (run.status, [event.node for event in run.failed]) == ("failed", ["two"])
    lake.sql("UPDATE fails_in SET text = '7'")
    seen = []
    resumed = lake.workflows.resume(run.id, progress=seen.append)
    assert (resumed.id, resumed.status) == (run.id, "done")
    account = lake.workflows.get(run.id)
    assert (account.status, account.resumed, [event.node for event in account.attempts]) == ("done", 1, ["two"])
    assert [(event.node, event.status) for event in seen] == [("two", "done")]
    assert lake.sql("FROM fails_two").fetchall() == [(7,)]


def test_what_no_workflow_can(lake):
    for act, error in (
        (lambda: lake.workflows.run("missing"), WorkflowNotFound),
        (lambda: lake.workflows.run("broken"), WorkflowInvalid),
        (lambda: lake.workflows.validate("broken"), WorkflowInvalid),
        (lambda: lake.workflows.run("quick", {"m": 1}), WorkflowInvalid),
        (lambda: lake.workflows.graph("missing"), WorkflowNotFound),
        (lambda: lake.workflows.graph("quick", "none"), RunNotFound),
        (lambda: lake.workflows.printed("none", "one"), RunNotFound),
        (lambda: lake.workflows.get("none"), RunNotFound),
        (lambda: lake.workflows.cancel("20260101T000000-00000000"), RunNotFound),
        (lambda: lake.workflows.resume("none"), RunNotFound),
        (lambda: lake.workflows.runs("a b"), WorkflowNotFound),
    ):
        with pytest.raises(error):
            act()


# events


def test_events(lake):
    begun = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    before = lake.observer.counters()
    wrong = Event(run="e1", status="failed", node="b", workflow="ev", error=Problem("Boom", "no"), elapsed=2.0)
    good = Event(run="e1", status="done", node="a", workflow="ev", started=begun, outputs=(Data("t", rows=3),),
                 fields={"odd": {1, 2}.__class__, "n": 1})  # fmt: skip
    assert lake.observer.record(good).accepted == 1
    receipt = lake.observer.record_many([wrong, Event(run="e2", status="started", workflow="ev")])
    assert (receipt.accepted, receipt.persisted, receipt.problem) == (2, True, None)
    after = lake.observer.counters()
    assert after.accepted - before.accepted >= 3
    found = lake.observer.events(run="e1", oldest=True)
    assert [event.id for event in found] == [good.id, wrong.id]
    assert (found[0].outputs, found[0].started, found[0].fields["n"]) == (good.outputs, begun, 1)
    assert (found[1].error, found[1].seq) == (wrong.error, receipt.seq - 1)
    assert [event.run for event in lake.observer.events(workflow="ev", since=receipt.seq - 1)] == ["e2"]
    assert len(lake.observer.events(workflow="ev", since="1h", success=True)) == 1
    assert len(lake.observer.events(workflow="ev", since=dt.timedelta(hours=1), limit=2)) == 2
    assert lake.observer.events(workflow="ev", since=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)) == []
    failed = next(one for one in lake.observer.stats(workflow="ev") if one.node == "b")
    assert (failed.runs, failed.failures, failed.p50, failed.last_error) == (1, 1, 2.0, wrong.error)
    assert lake.observer.record_many([]).accepted == 0
    assert lake.observer.verify().sound
    assert lake.observer.compact("30d").dropped == 0


def test_following_events(lake):
    place = lake.observer.record(Event(run="f0", status="started", workflow="follow")).seq
    heard = lake.observer.follow(workflow="follow")
    sent = [Event(run="f1", status="started", workflow="follow", node=name) for name in ("a", "b")]
    lake.observer.record_many(sent)
    assert [next(heard).id for _ in sent] == [event.id for event in sent]
    heard.close()
    again = [*lake.observer.follow(workflow="follow", since=place, timeout=0.3)]
    assert [event.id for event in again] == [event.id for event in sent]
    assert [*lake.observer.follow(workflow="never", timeout=0.05)] == []


def test_what_no_observer_takes(lake):
    for act, error in (
        (lambda: lake.observer.record("x"), EventInvalid),
        (lambda: lake.observer.events(limit=0), FilterInvalid),
        (lambda: lake.observer.events(since="yesterday"), FilterInvalid),
        (lambda: lake.observer.events(since="17"), FilterInvalid),
        (lambda: lake.observer.events(status="odd"), FilterInvalid),
        (lambda: lake.observer.follow(status="odd"), FilterInvalid),
    ):
        with pytest.raises(error):
            act()


# saved queries


def test_saved_queries(lake):
    lake.sql("CREATE TABLE saved_t AS SELECT i AS n FROM range(10) t(i)")
    kept = lake.saved.add("many", "SELECT n FROM saved_t WHERE n > $least")
    assert (kept.name, kept.uses) == ("many", ())
    few = lake.saved.add("few", "WITH x AS (FROM many) SELECT n FROM x WHERE n < 6;", with_=["many"])
    assert few.uses == ("many",)
    assert [one.name for one in lake.saved] == ["few", "many"]
    assert (lake.saved["FEW"], "Many" in lake.saved, "none" in lake.saved, len(lake.saved)) == (few, True, False, 2)
    sql = lake.saved.compose("SELECT sum(n) FROM few", ["few"])
    assert lake.sql(sql, {"least": 3}).fetchall() == [(9,)]
    assert lake.saved.add("many", "SELECT n FROM saved_t").sql == "SELECT n FROM saved_t"
    for act, error in (
        (lambda: lake.saved.add("many", "SELECT 1", replace=False), AlreadyExists),
        (lambda: lake.saved.add("many", "FROM few", with_=["few"]), QueryError),
        (lambda: lake.saved.add("other", "DROP TABLE saved_t"), QueryError),
        (lambda: lake.saved.add("other", "SELECT 1; SELECT 2"), QueryError),
        (lambda: lake.saved.add("other", "SELEC"), SyntaxFault),
        (lambda: lake.saved.add("other", "FROM x", with_=["x"]), NotFound),
        (lambda: lake.saved.add("select", "SELECT 1"), QueryError),
        (lambda: lake.saved.get("man"), NotFound),
        (lambda: lake.saved.delete("many"), QueryError),
        (lambda: lake.saved.delete("none"), NotFound),
    ):
        with pytest.raises(error) as caught:
            act()
        assert caught.value.hint or error in (QueryError, SyntaxFault)
    lake.saved.delete("many", force=True)
    lake.saved.delete("few")
    assert lake.saved.list() == []
