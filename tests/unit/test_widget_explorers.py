"""The kernel's side of the browsers of a lake: what they tell of it, and to what they give no answer."""

import json
import threading

import pytest

import lakehouse
from lakehouse.errors import LakeClosed, LakeReadOnly, SnapshotNotFound
from lakehouse.observer.model import Event, Problem
from lakehouse.workflow.model import Workflow
from lakehouse.workflow.modes import Sql
from lakehouse_widgets import CatalogBrowser, PathwayExplorer, RunMonitor
from lakehouse_widgets.explorer import Item, Words, sliced

ODD = 'odd "1"; DROP TABLE flights; --'


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browsed")
    with lakehouse.open(folder / "lake") as lake:
        lake.sql("CREATE TABLE flights AS SELECT range AS n, 'a' AS word FROM range(3)")
        lake.catalog.tag_snapshot("first")
        with lake.transaction("more"):
            lake.sql("INSERT INTO flights SELECT range, 'b' FROM range(2000)")
            lake.sql("COMMENT ON TABLE flights IS 'All departures'")
            lake.sql("COMMENT ON COLUMN flights.word IS 'What was said'")
            lake.sql("CREATE SCHEMA sales")
            lake.sql("CREATE VIEW sales.few AS SELECT n FROM lake.flights WHERE n < 2")
            quoted = ODD.replace('"', '""')
            lake.sql(f'CREATE TABLE sales."{quoted}" AS SELECT 7 AS seven')
        with lake.transaction("many"):
            lake.sql("CREATE SCHEMA many; " + "; ".join(f"CREATE TABLE many.t{n:03} (a INTEGER)" for n in range(55)))
        lake.sql(
            "CREATE TABLE kept_by AS SELECT 1 AS a; CREATE VIEW broken AS SELECT a FROM kept_by; DROP TABLE kept_by"
        )
        with lake.pathway.record("why are evening flights late", tags=["delays"]) as recording:
            lake.sql("SELECT count(*) FROM flights")
        recording.conclude("aircraft are late from the flights before")
        revised = lake.pathway.revise(recording.trace.uid, {"question": "why are flights late"}, tags=["delays", "new"])
        old = lake.pathway.add({"text": "<b>nothing</b>"}, kind="note")
        lake.pathway.retire(old.uid, "wrong")
        lake.browsed = recording.trace.uid, revised.uid, old.uid
        nodes = {
            "good": Sql(sql="SELECT 1 AS a", table="made"),
            "bad": Sql(sql="SELECT * FROM flights WHERE n < 2", expect="no rows", after=("good",)),
            "late": Sql(sql="SELECT a FROM made", table="made_late", after=("bad",)),
        }
        failed = lake.workflows.run(Workflow(name="fails", nodes=nodes, folder=str(folder), params={}), check=False)
        done = lake.workflows.run(
            Workflow(name="works", nodes={"good": nodes["good"]}, folder=str(folder), params={}), check=False
        )
        lake.runs = failed.id, done.id
        yield lake


@pytest.fixture(scope="module")
def catalog(lake):
    made = CatalogBrowser(lake)
    yield made
    made.close()


@pytest.fixture(scope="module")
def traces(lake):
    return PathwayExplorer(lake)


@pytest.fixture(scope="module")
def monitor(lake):
    return RunMonitor(lake)


def ask(widget, kind="list", **asked):
    answer = widget.answer({"kind": kind, "request": 1, "count": 100, "values": {}, **asked})
    json.dumps(answer)  # as it goes to the page
    return answer


def names(answer):
    return [item["text"] for item in answer["items"]]


def part(answer, kind, title=None):
    return next(one for one in answer["parts"] if one["kind"] == kind and title in (None, one.get("title")))


def told(answer):
    return dict(part(answer, "facts")["rows"])


# The catalog


def test_schemas_tables_and_views_with_their_comments(catalog, lake):
    top = ask(catalog)
    assert names(top) == ["main", "many", "sales", "Snapshots"]
    assert [item["text"] for item in top["items"] if item["opened"]] == ["main"]
    assert "snapshot" in top["said"]
    found = ask(catalog, under="schema:sales")["items"]
    assert [(item["text"], item["status"]) for item in found] == [("few", "view"), (ODD, "")]
    [flights] = [item for item in ask(catalog, under="schema:main")["items"] if item["text"] == "flights"]
    assert flights["detail"] == "All departures"
    opened = ask(catalog, "open", key=flights["key"])
    assert part(opened, "table", "2 columns")["rows"] == [
        ["n", "BIGINT", "", ""],
        ["word", "VARCHAR", "", "What was said"],
    ]
    assert told(opened)["Rows"] == "2,003"
    assert part(ask(catalog, "open", key="table:sales.few"), "text", "Query")["text"].startswith("SELECT")


def test_a_large_schema_comes_in_pages(catalog):
    first = ask(catalog, under="schema:many", count=20)
    assert (len(first["items"]), first["total"], first["next"]) == (20, 55, "20")
    last = ask(catalog, under="schema:many", after="40", count=20)
    assert (names(last), last["next"]) == ([f"t{n:03}" for n in range(40, 55)], None)
    assert names(ask(catalog, under="schema:many", after="999999999")) == []


def test_search_says_why(catalog):
    answer = ask(catalog, values={"Search": "said"})
    assert [(item["key"], item["detail"]) for item in answer["items"]] == [
        ("table:flights", "column comment: word: What was said")
    ]
    assert names(ask(catalog, values={"Search": "x' OR '1'='1"})) == []


def test_a_snapshot_shows_what_was_there_then(catalog, lake):
    snapshots = ask(catalog, under="snapshots", count=2)
    assert len(snapshots["items"]) == 2
    assert snapshots["next"] == "2"
    first = lake.catalog.snapshot_tags()["first"]
    opened = ask(catalog, "open", key=f"snapshot:{first}")
    assert told(opened)["Named"] == "first"
    assert part(opened, "buttons")["buttons"][0]["set"] == {"As of": str(first), "Search": ""}
    for then in (str(first), "first"):
        values = {"As of": then}
        assert names(ask(catalog, values=values)) == ["main", "Snapshots"]
        assert names(ask(catalog, under="schema:main", values=values)) == ["flights"]
        assert told(ask(catalog, "open", key="table:flights", values=values))["Rows"] == "3"
        assert ask(catalog, values=values | {"Search": "said"})["items"] == []
        shown = ask(catalog, "act", act="preview", key="table:flights", values=values)
        assert shown["said"] == f"flights, snapshot {first}: 3 rows"
        assert len(catalog.grid.result) == 3
    assert ask(catalog, "open", key="table:sales.few", values={"As of": "first"})["code"] == "table_not_found"
    assert ask(catalog, values={"As of": "never"})["code"] == "snapshot_not_found"


def test_a_preview_is_the_first_rows_in_one_grid(catalog):
    assert ask(catalog, "act", act="preview", key="table:flights")["said"].endswith("the first 1,000 rows")
    grid = catalog.grid
    name = next(item["key"] for item in ask(catalog, under="schema:sales")["items"] if item["text"] == ODD)
    assert ask(catalog, "act", act="preview", key=name)["kind"] == "act"
    assert grid is catalog.grid
    assert grid.answer({"kind": "rows", "request": 1, "first": 0, "count": 5})[0]["rows"] == [("7",)]
    assert ask(catalog, "act", act="preview", key="table:broken")["code"] == "table_not_found"
    assert grid.result.fetchall() == [(7,)]


def test_a_view_that_no_longer_runs_says_so_beside_its_query(catalog):
    opened = ask(catalog, "open", key="table:broken")
    assert "kept_by" in part(opened, "problem")["text"]
    assert "kept_by" in part(opened, "text", "Query")["text"]


# Traces


def test_traces_are_found_and_narrowed(traces, lake):
    recorded, revised, old = lake.browsed
    keys = [item["key"] for item in ask(traces)["items"]]
    assert {f"trace:{recorded}", f"trace:{revised}"} <= set(keys)
    assert f"trace:{old}" not in keys
    retired = ask(traces, values={"Kind": "note", "Retired too": True})["items"]
    assert [(item["key"], item["status"]) for item in retired] == [(f"trace:{old}", "retired")]
    assert ask(traces, values={"Tags": "delays, new"})["items"][0]["key"] == f"trace:{revised}"
    assert len(ask(traces, values={"Tags": "delays, new"})["items"]) == 1
    assert ask(traces, values={"Search": "evening"})["items"][0]["key"] == f"trace:{recorded}"
    page = ask(traces, count=1)
    following = ask(traces, count=1, after=page["next"])
    assert page["items"] != following["items"]
    assert ask(traces, after="no cursor")["code"] == "filter_invalid"


def test_a_trace_tells_its_content_versions_and_pathway(traces, lake):
    recorded, revised, old = lake.browsed
    opened = ask(traces, "open", key=f"trace:{recorded}")
    assert opened["title"] == "why are evening flights late"
    assert part(opened, "text", "Conclusion")["text"].startswith("aircraft")
    assert part(opened, "table", "Steps")["rows"] == [["1", "SELECT count(*) FROM flights", "1 row"]]
    assert part(opened, "table", "Revised by")["rows"][0][0]["open"] == f"trace:{revised}"
    versions = part(opened, "table", "Versions")["rows"]
    assert [row[0]["text"] for row in versions] == ["2", "1"]
    before = ask(traces, "open", key=versions[1][0]["open"])
    assert "conclusion" not in part(before, "text", "Content")["text"]
    assert (
        part(ask(traces, "open", key=f"trace:{revised}"), "table", "Revises")["rows"][0][0]["open"]
        == f"trace:{recorded}"
    )
    assert told(ask(traces, "open", key=f"trace:{old}"))["Status"] == "retired: wrong"
    assert ask(traces, "open", key="trace:none")["code"] == "trace_not_found"
    assert ask(traces, "open", key=f"version:9:{recorded}")["code"] == "message_invalid"


# Runs


def test_runs_that_failed_come_first(monitor, lake):
    failed, done = lake.runs
    listed = ask(monitor)
    assert [(item["text"], item["status"]) for item in listed["items"]] == [
        ("Events", ""),
        ("fails", "failed"),
        ("works", "done"),
    ]
    assert listed["said"] == "2 runs: 1 failed, 0 running"
    assert listed["again"] == 10
    assert names(ask(monitor, values={"Failures only": True})) == ["Events", "fails"]
    assert names(ask(monitor, values={"Workflow": "works"})) == ["Events", "works"]
    nodes = part(ask(monitor, "open", key=f"run:{failed}"), "table")["rows"]
    assert [(row[0]["text"], row[1]["text"]) for row in nodes] == [
        ("bad", "failed"),
        ("good", "done"),
        ("late", "not_run"),
    ]
    assert nodes[0][2]
    node = ask(monitor, "open", key=nodes[0][0]["open"])
    assert told(ask(monitor, "open", key=f"node:{done}:good"))["Workflow"] == "works"
    assert any("Error" in dict(one["rows"]) for one in node["parts"] if one["kind"] == "facts")
    assert ask(monitor, "open", key="run:../../lake.json")["code"] == "run_not_found"
    assert ask(monitor, "open", key=f"node:{failed}:../bad")["code"] == "message_invalid"
    assert ask(monitor, values={"Workflow": "../x"})["code"] == "workflow_not_found"


def test_events_are_listed_and_opened(monitor, lake):
    lake.observer.record(Event(run="mine", status="failed", error=Problem("Oops", "all of it"), node="step"))
    page = ask(monitor, under="events", count=2, values={"Failures only": True})
    assert names(page)[0] == "step"
    opened = ask(monitor, "open", key=page["items"][0]["key"])
    assert any(dict(one["rows"]).get("Error") == "Oops: all of it" for one in opened["parts"] if one["kind"] == "facts")
    counts = part(ask(monitor, "open", key="events"), "table", "By node")["rows"]
    assert {row[1]: row[4] for row in counts}["bad"] == "1"
    assert ask(monitor, under="events", after="99999")["code"] == "message_invalid"
    assert ask(monitor, "open", key="event:1:none")["code"] == "message_invalid"


# All of them


@pytest.mark.parametrize(
    "content",
    [
        None,
        7,
        "list",
        [],
        {},
        {"kind": "sql", "request": 1, "sql": "DROP TABLE flights"},
        {"kind": ["list"], "request": 1},
        {"kind": "list"},
        {"kind": "list", "request": {"a": 1}, "count": 1},
        {"kind": "list", "request": True, "count": 1},
        {"kind": "list", "request": 1, "count": 201},
        {"kind": "list", "request": 1, "count": -1},
        {"kind": "list", "request": 1, "count": 1, "under": 7},
        {"kind": "list", "request": 1, "count": 1, "under": "table:flights"},
        {"kind": "list", "request": 1, "count": 1, "under": "x" * 2_001},
        {"kind": "list", "request": 1, "count": 1, "after": {"a": 1}},
        {"kind": "list", "request": 1, "count": 1, "values": "Search"},
        {"kind": "list", "request": 1, "count": 1, "values": {"sql": "DROP TABLE flights"}},
        {"kind": "list", "request": 1, "count": 1, "values": {"Search": 1, "Workflow": 1}},
        {"kind": "open", "request": 1},
        {"kind": "open", "request": 1, "key": ""},
        {"kind": "open", "request": 1, "key": "table:\udfff"},
        {"kind": "open", "request": 1, "key": ["table:flights"]},
        {"kind": "open", "request": 1, "key": "sql:DROP TABLE flights"},
        {"kind": "open", "request": 1, "key": "snapshot:1 OR 1=1"},
        {"kind": "act", "request": 1, "key": "table:flights"},
        {"kind": "act", "request": 1, "key": "table:flights", "act": "drop"},
        {"kind": "act", "request": 1, "key": "table:flights", "act": ["preview"]},
        {"kind": "act", "request": 1, "key": "flights", "act": "preview"},
    ],
)
def test_a_message_that_is_none_of_ours_is_refused_by_all(catalog, traces, monitor, lake, content):
    before = lake.catalog.current_snapshot().id
    for widget in (catalog, traces, monitor):
        answer = widget.answer(content)
        assert (answer["kind"], answer["code"]) == ("error", "message_invalid")
        assert "Traceback" not in answer["message"]
    assert lake.catalog.current_snapshot().id == before


def test_a_value_is_a_value_of_its_control(catalog, traces, monitor):
    for widget, values in (
        (catalog, {"Search": None}),
        (catalog, {"As of": 7}),
        (catalog, {"As of": "\ud800"}),
        (catalog, {"Search": "x" * 1_001}),
        (traces, {"Retired too": "yes"}),
        (monitor, {"Failures only": 1}),
    ):
        assert ask(widget, values=values)["code"] == "message_invalid"
    assert ask(catalog, "open", key='table:flights" UNION SELECT 1 --')["code"] in (
        "lakehouse_error",
        "table_not_found",
    )
    assert ask(catalog, "act", act="preview", key="table:main.flights; DROP TABLE flights")["kind"] == "error"
    assert ask(catalog, "open", key="table:flights")["kind"] == "open"


def test_what_goes_wrong_inside_is_said_without_its_inside(lake, monkeypatch):
    widget = CatalogBrowser(lake)

    def broken(*_):
        raise RuntimeError("a secret of the machine")

    monkeypatch.setattr(widget, "entries", broken)
    assert ask(widget) == {
        "kind": "error",
        "request": 1,
        "message": "this could not be read",
        "hint": None,
        "code": "internal",
    }


def test_a_slow_question_keeps_no_other_waiting_and_of_those_that_wait_the_newest_counts(lake):
    widget, before = PathwayExplorer(lake), threading.active_count()
    going, answered, all_came = threading.Event(), [], threading.Event()

    def slow(key, values):
        going.wait(20)
        raise lakehouse.LakehouseError(key)

    def sent(content, buffers=None):
        answered.append(content)
        if content["request"] == 99:
            all_came.set()

    widget.opened, widget.send = slow, sent
    widget._heard(None, {"kind": "open", "request": 1, "key": "slow"}, None)
    widget._heard(None, {"kind": "list", "request": 2, "count": 1}, None)
    widget._heard(None, {"kind": "list", "request": 99, "count": 1}, None)
    assert all_came.wait(20)
    assert 1 not in [content["request"] for content in answered]
    for number in range(3, 203):  # the threads that may wait are few, and so is what waits
        widget._heard(None, {"kind": "open", "request": number, "key": "slow"}, None)
        widget._heard(None, {"kind": f"flood {number}", "request": number}, None)
    assert len(widget._waiting) <= 100
    assert threading.active_count() < before + 20
    going.set()


def test_an_answer_that_cannot_be_sent_is_an_error_and_the_next_one_is(lake):
    widget, answered, came = PathwayExplorer(lake), [], threading.Event()

    def send(content, buffers=None):
        if content["request"] == 1 and content["kind"] != "error":
            raise UnicodeEncodeError("utf-8", "x", 0, 1, "no")
        answered.append((content["request"], content["kind"]))
        if len(answered) == 2:
            came.set()

    widget.send = send
    widget._heard(None, {"kind": "list", "request": 1, "count": 1}, None)
    widget._heard(None, {"kind": "open", "request": 2, "key": "trace:none"}, None)
    assert came.wait(20)
    assert sorted(answered) == [(1, "error"), (2, "error")]


def test_a_lake_at_a_snapshot_is_read_only_and_goes_with_the_lake(tmp_path):
    with lakehouse.open(tmp_path / "lake") as lake:
        lake.sql("CREATE TABLE a AS SELECT 1 AS x")
        then = lake.at(0)
        assert (then.snapshot, then.read_only, then.catalog.tables()) == (0, True, [])
        assert lake.at(lake.catalog.current_snapshot().time).catalog.table("a").row_count == 1
        with pytest.raises(LakeReadOnly):
            then.sql("CREATE TABLE b AS SELECT 1 AS x")
        with pytest.raises(SnapshotNotFound):
            lake.at("never")
    with pytest.raises(LakeClosed):
        then.sql("SELECT 1")
    with pytest.raises(LakeClosed):
        lake.at(0)


def test_where_no_widget_lives_a_table_stands_for_it(catalog, traces, monitor, lake):
    for widget, seen in ((catalog, "All departures"), (traces, "why are flights late"), (monitor, "fails")):
        bundle, _ = widget._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in bundle
        assert seen in bundle["text/html"]
    assert "the first 50 of 60" in catalog._repr_mimebundle_()[0]["text/html"]
    lake.pathway.add("<script>alert(1)</script>")
    assert "<script>" not in traces._repr_mimebundle_()[0]["text/html"]


def test_a_read_only_lake_is_browsed_as_well(lake):
    with lakehouse.open(lake.path, read_only=True) as closed:
        widget = CatalogBrowser(closed)
        assert "main" in names(ask(widget))
        assert ask(widget, "act", act="preview", key="table:flights")["kind"] == "act"
        assert names(ask(widget, under="schema:main", values={"As of": "first"})) == ["flights"]
        assert ask(PathwayExplorer(closed))["items"]
        assert names(ask(RunMonitor(closed)))[1] == "fails"
        widget.close()


def test_pages_of_what_is_here_and_words():
    items = [Item(str(n), str(n)) for n in range(5)]
    assert [one.key for one in sliced(items, "2", 2).items] == ["2", "3"]
    assert sliced(items, "4", 2).next is None
    assert Words("w").read("  a b ") == "a b"
