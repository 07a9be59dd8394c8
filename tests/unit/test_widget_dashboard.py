"""The kernel's side of a dashboard: its filters act on all panels and take nothing but their own values."""

import datetime
import threading

import pytest

import lakehouse
from lakehouse_widgets import Chart, Dashboard, DateRange, Figure, MultiSelect, Number, Range, Rows, Select

SQL = """CREATE TABLE trips AS SELECT range AS n, CASE WHEN range % 2 = 0 THEN 'even' ELSE 'odd' END AS side,
    DATE '2026-01-01' + CAST(range % 10 AS INTEGER) AS day FROM range(100)"""
WHERE = (
    "FROM trips WHERE side = ANY($side) AND day BETWEEN $when_from AND $when_to AND n BETWEEN $size_from AND $size_to"
)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    with lakehouse.open(tmp_path_factory.mktemp("dashboard") / "lake") as lake:
        lake.sql(SQL)
        yield lake


@pytest.fixture(scope="module")
def shared(lake):
    return Dashboard(
        lake,
        "Trips",
        filters=[
            MultiSelect("side", ["even", "odd"]),
            DateRange("when", datetime.date(2026, 1, 1), datetime.date(2026, 1, 10)),
            Range("size", 0, 100),
            Select("unit", ["$side", "km"]),
        ],
        rows=[
            [Number("Trips", f"SELECT count(*) {WHERE}", unit="trips"), Number("Largest", f"SELECT max(n) {WHERE}")],
            [
                Figure(
                    "By day", f"SELECT day, count(*) AS trips {WHERE} GROUP BY ALL ORDER BY ALL", kind="line", x="day"
                )
            ],
            [Rows("All", f"SELECT *, $unit AS unit, '$text' AS text {WHERE} ORDER BY n -- not $one")],
        ],
    )


@pytest.fixture
def dashboard(shared):
    yield shared
    for name, one in shared._filters.items():
        shared._values[name] = one.start()
    shared.refresh(wait=True)


def state(dashboard):
    return [panel.card.state for panel in dashboard.panels.values()]


def test_a_filter_acts_on_every_panel(dashboard):
    assert state(dashboard) == ["ready"] * 4
    assert dashboard["Trips"].card.text == "100 trips"
    before = dashboard["By day"].card.svg
    dashboard.set("side", ["odd"])
    dashboard.set("when", ["2026-01-02", "2026-01-04"])
    dashboard.set("size", [10, 40.5])
    dashboard.refresh(wait=True)
    assert dashboard["Trips"].card.text == "6 trips"
    assert dashboard["Largest"].card.text == "33"
    assert dashboard["By day"].card.svg != before
    assert [row[0] for row in dashboard["All"].data().fetchall()] == [11, 13, 21, 23, 31, 33]
    assert len(dashboard["All"].grid.result) == 6
    assert "$side" in dashboard["All"].sql


def test_empty_and_broken_panels_say_so_and_the_others_go_on(dashboard, lake):
    dashboard.set("side", [])
    dashboard.refresh(wait=True)
    assert state(dashboard) == ["ready", "empty", "empty", "ready"]
    broken = Dashboard(
        lake, "Broken", rows=[[Number("Bad", "SELECT nothing FROM nowhere"), Number("Good", "SELECT 1")]]
    )
    assert state(broken) == ["error", "ready"]
    assert "nowhere" in broken["Bad"].card.text
    assert "Traceback" not in broken["Bad"].card.text


@pytest.mark.parametrize(
    "content",
    [
        None,
        "side",
        {},
        {"kind": "sql", "name": "Trips", "value": "DROP TABLE trips"},
        {"kind": "filter", "name": "sql", "value": "x"},
        {"kind": "filter", "name": ["side"], "value": ["odd"]},
        {"kind": "filter", "name": "unit", "value": "mile"},
        {"kind": "filter", "name": "unit", "value": None},
        {"kind": "filter", "name": "side", "value": "odd"},
        {"kind": "filter", "name": "side", "value": ["odd') OR 1=1 --"]},
        {"kind": "filter", "name": "side", "value": [["odd"]]},
        {"kind": "filter", "name": "when", "value": ["2026-01-01"]},
        {"kind": "filter", "name": "when", "value": ["2026-01-05", "2026-01-02"]},
        {"kind": "filter", "name": "when", "value": ["1999-01-01", "2026-01-02"]},
        {"kind": "filter", "name": "when", "value": 5},
        {"kind": "filter", "name": "size", "value": [float("nan"), 5]},
        {"kind": "filter", "name": "size", "value": [1, 10**400]},
        {"kind": "filter", "name": "size", "value": [True, 5]},
        {"kind": "filter", "name": "size", "value": [5, 1]},
    ],
)
def test_a_message_that_is_none_of_ours_changes_nothing(dashboard, content):
    before = dashboard.values
    dashboard._heard(dashboard, content, [])
    assert dashboard.controls.message
    assert dashboard.values == before


def test_a_change_from_the_page_is_shown_without_holding_the_kernel(dashboard):
    shown = threading.Event()
    dashboard["Trips"].card.observe(lambda change: shown.set() if change["new"] == "50 trips" else None, "text")
    dashboard._heard(dashboard, {"kind": "filter", "name": "side", "value": ["even"]}, [])
    assert shown.wait(30)
    assert dashboard.controls.message == ""


def test_a_dashboard_that_cannot_be_is_refused(lake):
    with pytest.raises(lakehouse.LakehouseError, match=r"names \$place"):
        Dashboard(lake, "No", rows=[[Number("One", "SELECT $place")]])
    with pytest.raises(lakehouse.LakehouseError, match="name of its own"):
        Dashboard(lake, "No", rows=[[Number("One", "SELECT 1"), Number("One", "SELECT 2")]])


def test_a_chart_shows_itself_without_widgets_too(lake):
    chart = Chart(lake.sql("SELECT side, n FROM trips"), {"kind": "bar", "y": "n", "title": "<b>Trips</b>"})
    bundle, _ = chart._repr_mimebundle_()
    assert bundle["image/svg+xml"].startswith("<svg")
    assert "<b>" not in chart.svg
    assert chart.state == "ready"


def only(lake, panel, **more):
    """The panel of a dashboard of one."""
    return Dashboard(lake, "One", rows=[[panel]], **more)[panel.name]


def test_a_finding_is_the_title_where_there_are_rows(lake):
    says = "SELECT side, count(*) AS trips FROM trips WHERE n < $most_to GROUP BY ALL ORDER BY ALL"
    made = Figure(
        "Sides", says, kind="bar", y="trips", finding=lambda rows: f"{rows[0]['side']}: {rows[0]['trips']} <i>"
    )
    board = Dashboard(lake, "", filters=[Range("most", 0, 50, label="Most")], rows=[[made]])
    assert (made.card.title, made.card.name) == ("even: 25 <i>", "Sides")
    board.set("most", [0, 0])
    board.refresh(wait=True)
    assert (made.card.title, made.card.state) == ("Sides", "empty")
    wrong = only(lake, Number("Bad", "SELECT 1 AS a", finding=lambda rows: rows[0]["b"]))
    assert (wrong.card.state, wrong.card.text) == ("error", "This could not be shown.")


@pytest.mark.parametrize(
    ("sql", "more", "shown"),
    [
        ("SELECT 1234567", {}, "1,234,567"),
        ("SELECT 1234.56", {"unit": "km"}, "1,234.6 km"),
        ("SELECT 12.345::DOUBLE", {"digits": 2}, "12.35"),
        ("SELECT 7", {"digits": 1, "unit": "%"}, "7.0 %"),
        ("SELECT true", {}, "True"),
        ("SELECT 'text'", {}, "text"),
        ("SELECT 'nan'::DOUBLE", {}, ""),
        ("SELECT NULL", {}, ""),
    ],
)
def test_numbers_read_well(lake, sql, more, shown):
    card = only(lake, Number("One", sql, **more)).card
    assert (card.text, card.state) == (shown, "ready" if shown else "empty")


def test_a_spec_draws_the_rows_as_they_are(lake):
    spec = {"mark": "bar", "encoding": {"x": {"field": "side"}, "y": {"field": "n", "type": "quantitative"}}}
    card = only(lake, Figure("Drawn", "SELECT '</script><b>' AS side, 1.5::DECIMAL(4,1) AS n", spec)).card
    assert card.state == "ready"
    assert "<b>" not in card.svg
    assert "currentColor" in card.svg
    many = only(lake, Figure("Many", "SELECT 'a' AS side, range AS n FROM range(5001)", spec)).card
    assert many.state == "error"
    assert "more than 5,000 rows" in many.text
    with pytest.raises(lakehouse.LakehouseError, match="a spec and options"):
        Figure("Both", "SELECT 1", spec, kind="bar")


@pytest.mark.parametrize(
    "one",
    [
        Select("a", {"x": "Ex", "y": "Why"}),
        MultiSelect("a", {"x": "Ex"}, label="Letters"),
        DateRange("a", datetime.date(2026, 1, 1), datetime.date(2026, 2, 1)),
        Range("a", -1.5, 2),
    ],
)
def test_what_a_filter_shows_is_what_it_reads(one):
    assert one.read(one.shown(one.start())) == one.start()
    assert one.described()["label"] == (one.label or one.name)


def test_a_dashboard_is_shown_without_scripts_too(lake):
    filters = [
        Select("s", {"": "any <b>"}, label="<i>S</i>"),
        MultiSelect("m", ["1", "2"]),
        MultiSelect("f", [str(n) for n in range(9)]),
        DateRange("d", datetime.date(2026, 1, 1), datetime.date(2026, 2, 1)),
        Range("r", 1, 2, unit="km"),
    ]
    panels = [Number("<b>Trips</b>", "SELECT count(*) FROM trips"), Number("None", "SELECT NULL")]
    bundle = Dashboard(
        lake, "<script>", filters=filters, rows=[panels, [Rows("All", "FROM trips")]]
    )._repr_mimebundle_()
    bundle = bundle[0] if isinstance(bundle, tuple) else bundle
    assert "application/vnd.jupyter.widget-view+json" in bundle
    page = bundle["text/html"]
    for said in (
        "100",
        "Nothing meets the filters",
        "any &lt;b&gt;",
        "all 9",
        'value="2026-02-01"',
        "km",
        "&lt;script&gt;",
    ):
        assert said in page, said
    for markup in ("<script", "<b>", "<i>"):
        assert markup not in page
