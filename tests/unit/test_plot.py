"""Charts: what is drawn is what DuckDB counts, and it is little, however many rows there are."""

import datetime
import json
import subprocess
import sys

import pytest

import lakehouse


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    with lakehouse.open(tmp_path_factory.mktemp("plot") / "lake", settings={"query": {"max_rows": 1000}}) as lake:
        yield lake.sql(
            "SELECT range AS i, range % 7 AS day, 'c' || range % 100 AS carrier, sqrt(range) AS root,"
            " TIMESTAMP '2026-01-01' + to_seconds(range) AS at FROM range(100000)"
        )


def drawn(plot):
    assert plot.svg().startswith("<svg")
    return plot.values


def test_bars_are_sums_of_all_rows(rows):
    values = drawn(rows.plot("bar", x="day", y="i"))
    assert [(one["x"], one["y"]) for one in values] == [
        (str(day), float(sum(range(day, 100_000, 7)))) for day in range(7)
    ]
    assert sum(one["y"] for one in rows.plot("bar", x="day").values) == 100_000


def test_only_the_greatest_bars_and_groups_are_drawn(rows):
    assert len(rows.plot("bar", x="carrier").values) == 40
    groups = {one["color"] for one in rows.plot("bar", x="day", color="carrier").values}
    assert len(groups) == 9
    assert "others" in groups


def test_a_histogram_holds_every_row(rows):
    values = drawn(rows.plot("hist", x="root"))
    assert len(values) == 40
    assert sum(one["y"] for one in values) == 100_000
    assert values[0]["y"] < values[-1]["y"]


def test_lines_and_points_of_many_rows_are_few_marks_of_all_of_them(rows):
    line = drawn(rows.plot("line", x="at", y="i", aggregate="mean"))
    assert len(line) == 500
    assert line[0]["x"].startswith("2026-01-01T00:00")
    assert sum(one["y"] for one in rows.plot("area", x="i").values) == 100_000
    points = drawn(rows.plot("point", x="i", y="root"))
    assert len(points) < 7000
    assert sum(one["rows"] for one in points) == 100_000


def test_few_points_are_themselves(tmp_path):
    with lakehouse.open(tmp_path / "lake") as lake:
        result = lake.sql(
            "SELECT * FROM (VALUES (1, 2.5, DATE '2026-02-03'), (3, NULL, NULL), (5, 7, NULL)) AS t(a, b, d)"
        )
        assert [(one["x"], one["y"]) for one in result.plot("point").values] == [(1, 2.5), (5, 7)]
        dates = result.plot("line", x="d", y="a").values
        assert [one["x"][:10] for one in dates] == [datetime.date(2026, 2, 3).isoformat()]
        assert drawn(lake.sql("SELECT 1 AS a, 2 AS b WHERE false").plot("line")) == []


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("pie", {}),
        ("bar", {"aggregate": "evil(y)"}),
        ("bar", {"x": "nothing"}),
        ("hist", {"x": "carrier"}),
        ("line", {"x": "i", "y": "carrier"}),
        ("point", {"x": "carrier"}),
    ],
)
def test_what_cannot_be_drawn_is_said(rows, kind, options):
    with pytest.raises(lakehouse.LakehouseError) as caught:
        rows.plot(kind, **options)
    assert caught.value.hint


def test_a_chart_goes_on_as_altairs(rows):
    assert json.loads(rows.plot("bar", x="day").altair().to_json())["mark"]["type"] == "bar"


def test_importing_draws_on_nothing_heavy():
    code = "import sys, lakehouse.query.plot; print({'altair', 'vl_convert', 'duckdb'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
