"""The kernel's side of a query panel: it runs, stops and completes SQL for who may, and is not made for others."""

import threading

import pytest

import lakehouse
from lakehouse_widgets import QueryPanel

FOREVER = "SELECT count(*) FROM range(100000000000) a, range(1000) b"


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    with lakehouse.open(tmp_path_factory.mktemp("panel") / "lake") as lake:
        lake.sql("CREATE TABLE trips AS SELECT range AS trip_id, range % 3 AS wheels FROM range(100)")
        yield lake


@pytest.fixture
def panel(lake, monkeypatch):
    panel = QueryPanel(lake, "SELECT 1")
    panel.sent = []
    panel.heard = threading.Event()

    def send(content, buffers=None):
        panel.sent.append((content, buffers))
        panel.heard.set()

    monkeypatch.setattr(panel.editor, "send", send)
    yield panel
    panel.close()


def tell(panel, **content):
    panel._heard(panel.editor, content, [])


def answer(panel, **content):
    panel.heard.clear()
    tell(panel, **content)
    assert panel.heard.wait(30)
    return panel.sent[-1][0]


def begun(lake, monkeypatch):
    """An event for when a query is under way."""
    started, wait = threading.Event(), lake._runner.wait

    def waited(running, work):
        started.set()
        return wait(running, work)

    monkeypatch.setattr(lake._runner, "wait", waited)
    return started


def test_a_query_is_run_and_its_rows_are_in_a_grid(panel):
    tell(panel, kind="run", sql="SELECT wheels, count(*) AS trips FROM trips GROUP BY ALL ORDER BY ALL")
    assert panel.wait(30)
    assert panel.result.fetchall() == [(0, 34), (1, 33), (2, 33)]
    assert panel.children == (panel.editor, panel.grid)
    assert panel.grid.result is panel.result
    assert panel.editor.note["kind"] == "done"
    assert [one["name"] for one in panel.editor.columns] == ["wheels", "trips"]
    tell(panel, kind="run", sql="CREATE TABLE more AS FROM trips; DROP TABLE more")
    assert panel.wait(30)
    assert panel.editor.note["text"].startswith("done, snapshot")
    assert len(panel.result) == 3  # what has no rows leaves those that are shown


def test_queries_of_a_panel_have_one_session(panel):
    for sql in ("CREATE TEMP TABLE mine AS SELECT 42 AS n", "FROM mine"):
        tell(panel, kind="run", sql=sql)
        assert panel.wait(30)
    assert panel.result.fetchall() == [(42,)]


def test_what_is_wrong_with_a_query_is_shown(panel):
    tell(panel, kind="run", sql="SELECT wheel FROM trips")
    assert panel.wait(30)
    note = panel.editor.note
    assert (note["kind"], panel.editor.state) == ("error", "idle")
    assert "wheel" in note["text"]
    assert "Traceback" not in note["text"]


def test_cancel_stops_the_query_of_the_panel_and_no_other(panel, lake, monkeypatch):
    started = begun(lake, monkeypatch)
    errors = []

    def other():
        try:
            lake.sql(FOREVER)
        except lakehouse.LakehouseError as error:
            errors.append(error.code)

    thread = threading.Thread(target=other)
    thread.start()
    assert started.wait(30)
    started.clear()
    tell(panel, kind="run", sql=FOREVER)
    assert started.wait(30)
    tell(panel, kind="run", sql="SELECT 1")
    assert panel.editor.note["text"] == "a query is running"
    tell(panel, kind="cancel")
    assert panel.wait(30)
    assert panel.editor.note["code"] == "query_cancelled"
    assert [one.sql for one in lake.running()] == [FOREVER]
    lake.cancel(lake.running()[0].query_id)
    thread.join(30)
    assert errors == ["query_cancelled"]
    assert lake.queries(1)[0].status == "cancelled"
    tell(panel, kind="run", sql="SELECT 2 AS two")
    assert panel.wait(30)
    assert panel.result.fetchall() == [(2,)]


def test_a_query_that_is_cancelled_before_it_begins_does_not_go_on(panel, lake, monkeypatch):
    held, go, sql = threading.Event(), threading.Event(), lake.sql

    def late(text):
        held.set()
        assert go.wait(30)
        return sql(text)

    monkeypatch.setattr(lake, "sql", late)
    tell(panel, kind="run", sql=FOREVER)
    assert held.wait(30)
    tell(panel, kind="cancel")
    go.set()
    assert panel.wait(30)
    assert panel.editor.note["code"] == "query_cancelled"


def test_progress_is_told_while_a_query_runs(panel):
    told = threading.Event()
    panel.editor.observe(lambda change: told.set(), "seconds")
    tell(panel, kind="run", sql=FOREVER)
    assert told.wait(30)
    tell(panel, kind="cancel")
    assert panel.wait(30)


def test_completion_is_that_of_the_magic(panel):
    sql = "SELECT '🚲', t.whe FROM trips t"
    found = answer(panel, kind="complete", request=7, sql=sql, cursor=sql.index(" FROM"))
    assert found == {
        "kind": "complete",
        "request": 7,
        "start": sql.index("whe"),
        "items": [{"text": "wheels", "kind": "column"}],
    }
    assert answer(panel, kind="complete", request=8, sql="SELECT '", cursor=8)["items"] == []


def test_history_is_that_of_the_lake(panel, lake):
    lake.sql("SELECT 'from elsewhere'")
    tell(panel, kind="run", sql="SELECT nothing_like_it")
    assert panel.wait(30)
    found = answer(panel, kind="history", text="")["queries"]
    assert [(one["sql"], one["status"]) for one in found[:2]] == [
        ("SELECT nothing_like_it", "failed"),
        ("SELECT 'from elsewhere'", "ok"),
    ]
    assert [one["sql"] for one in answer(panel, kind="history", text="ELSEWHERE")["queries"]] == [
        "SELECT 'from elsewhere'"
    ]


def test_rows_are_drawn_when_that_is_asked_for(panel):
    drawn = threading.Event()
    panel.editor.observe(lambda change: drawn.set() if change["new"] == "chart" else None, "view")
    tell(panel, kind="chart", chart="bar", x="wheels")
    assert panel.editor.note["text"] == "there are no rows to draw"
    tell(panel, kind="run", sql="FROM trips")
    assert panel.wait(30)
    tell(panel, kind="chart", chart="bar", x="wheels", y=None, color=None, aggregate=None)
    assert drawn.wait(60)
    assert panel.chart.svg.startswith("<svg")
    assert panel.children == (panel.editor, panel.chart)
    tell(panel, kind="rows")
    assert panel.children == (panel.editor, panel.grid)


def test_the_editor_comes_from_its_package_when_a_page_asks_and_not_before(panel):
    import sys

    tell(panel, kind="code")
    content, scripts = panel.sent[-1]
    assert content == {"kind": "code"}
    assert b"ace.define" in scripts[0]
    assert b"ace/mode/sql" in scripts[1]
    assert b"ace/ext/language_tools" in scripts[2]
    assert sum(map(len, scripts)) > 20 * sum(len(str(value)) for value in panel.editor.get_state().values())
    assert not {"django", "django_ace"} & set(sys.modules)


@pytest.mark.parametrize(
    "content",
    [
        None,
        "SELECT 1",
        {},
        {"kind": ["run"], "sql": "SELECT 1"},
        {"kind": "_run", "sql": "SELECT 1"},
        {"kind": "close"},
        {"kind": "run"},
        {"kind": "run", "sql": 1},
        {"kind": "run", "sql": "SELECT '\ud800'"},
        {"kind": "run", "sql": "x" * 1_000_001},
        {"kind": "complete", "request": 1, "sql": "SELECT", "cursor": 7},
        {"kind": "complete", "request": -1, "sql": "SELECT", "cursor": 1},
        {"kind": "complete", "request": 1, "sql": None, "cursor": 0},
        {"kind": "history", "text": 5},
        {"kind": "chart", "chart": "__class__"},
        {"kind": "chart", "chart": "bar", "x": "nothing"},
        {"kind": "chart", "chart": "bar", "x": ["wheels"]},
        {"kind": "chart", "chart": "bar", "aggregate": "system"},
    ],
)
def test_a_message_that_is_none_of_ours_is_refused(panel, content):
    tell(panel, kind="run", sql="SELECT 1 AS one")
    assert panel.wait(30)
    panel._heard(panel.editor, content, [])
    assert (panel.editor.note["kind"], panel.editor.note["code"]) == ("error", "message_invalid")
    assert panel.sent == []
    assert not panel._running


@pytest.mark.parametrize(
    ("name", "value"),
    [("LAKEHOUSE_READ_ONLY", "1"), ("VOILA_REQUEST_URL", "http://127.0.0.1/"), ("SERVER_SOFTWARE", "voila/0.5.13")],
)
def test_no_panel_is_made_where_viewers_are(lake, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(lakehouse.LakehouseError, match="viewers of a dashboard must not run SQL") as refused:
        QueryPanel(lake)
    assert refused.value.code == "panel_refused"
    assert "Dashboard" in refused.value.hint


def test_a_panel_wants_an_open_lake(lake):
    with pytest.raises(lakehouse.LakehouseError, match="not str"):
        QueryPanel(str(lake.path))
