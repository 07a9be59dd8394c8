"""What a profile says, for every type and every odd shape of a table."""

import json
import math
import statistics
from decimal import Decimal

import pytest

from lakehouse.errors import ColumnNotFound, LakehouseError, QueryError


@pytest.fixture
def numbers(lake):
    """1,000 rows: a key, a small range, a skewed text, a float with holes."""
    lake.sql(
        "CREATE TABLE numbers AS SELECT i AS id, i % 7 AS week, CASE WHEN i < 900 THEN 'often' ELSE 's' || i END AS name,"
        " CASE WHEN i % 10 = 0 THEN NULL ELSE i / 4 END AS x, DATE '2020-01-01' + (i % 365)::INT AS day"
        " FROM range(1000) t(i)"
    )
    return lake.catalog.table("numbers")


def test_numbers_as_python_computes_them(numbers):
    found = numbers.profile()
    x = found["X"]
    values = [i / 4 for i in range(1000) if i % 10]
    assert (found.rows, found.sample, found.method) == (1000, None, "all rows")
    assert [column.name for column in found.columns] == ["id", "week", "name", "x", "day"]
    assert (x.nulls, x.distinct, x.distinct_exact, x.min, x.max) == (100, 900, True, min(values), max(values))
    assert math.isclose(x.mean, statistics.fmean(values))
    assert math.isclose(x.std, statistics.stdev(values))
    quantiles = dict(x.quantiles)
    assert list(quantiles) == [0.05, 0.25, 0.5, 0.75, 0.95]
    assert math.isclose(quantiles[0.5], statistics.median(values))
    assert x.quantiles_exact


def test_histograms_hold_every_value_once(numbers):
    found = numbers.profile()
    x = found["x"]
    values = [i / 4 for i in range(1000) if i % 10]
    assert sum(one.count for one in x.histogram) == len(values)
    assert (x.histogram[0].low, x.histogram[-1].high, len(x.histogram)) == (min(values), max(values), 20)
    for one in x.histogram[:-1]:
        assert one.count == sum(one.low <= value < one.high for value in values)
    # Few whole numbers get a bar each.
    week = found["week"].histogram
    assert [(one.low, one.count) for one in week] == [(d, len(range(d, 1000, 7))) for d in range(7)]
    day = found["day"]
    assert (day.histogram[0].low, day.histogram[-1].high, day.min, day.max) == (
        "2020-01-01", "2020-12-30", "2020-01-01", "2020-12-30"
    )  # fmt: skip
    assert sum(one.count for one in day.histogram) == 1000


def test_frequent_values_come_with_their_counts(numbers):
    name = numbers.profile()["name"]
    assert name.top[:2] == (("often", 900), ("s900", 1))
    assert (name.distinct, len(name.top)) == (101, 10)
    assert numbers.profile()["week"].top[0] == (0, 143)


def test_a_large_table_is_sampled_and_says_so(lake):
    lake.sql("CREATE TABLE big AS SELECT i AS id, i % 5 AS five, i % 2 = 0 AS even FROM range(60000) t(i)")
    found = lake.catalog.table("big").profile(sample=20_000)
    assert found.rows == 60_000
    assert 19_000 < found.sample < 21_000
    assert "Bernoulli sample" in found.method
    assert f"{found.sample:,} rows" in repr(found)
    # These are of all rows.
    assert (found["id"].min, found["id"].max, found["id"].mean, found["id"].nulls) == (0, 59_999, 29_999.5, 0)
    assert (found["five"].distinct, found["five"].distinct_exact) == (5, False)
    assert 50_000 < found["id"].distinct < 70_000
    assert sum(one.count for one in found["five"].histogram) == found.sample
    assert abs(dict(found["id"].quantiles)[0.5] - 30_000) < 2_000
    whole = lake.catalog.table("big").profile(sample=None)
    assert (whole.sample, whole["id"].distinct, whole["id"].distinct_exact) == (None, 60_000, True)


def test_every_type(lake):
    lake.sql(
        "CREATE TABLE odd AS SELECT 'ab'::BLOB AS blob, uuid() AS uuid,"
        """ '{"a": 1}'::JSON AS json, 17014118346046923::HUGEINT + i AS huge, i::UTINYINT AS tiny,"""
        " NULL::INTEGER AS nothing, [i] AS list, {'a': i, 'b': 'x'} AS struct, MAP {'k': i} AS map,"
        " i % 2 = 0 AS bool, TIMESTAMP '2020-01-01' + to_hours(i::INT) AS ts,"
        " TIMESTAMPTZ '2020-01-01 00:00:00+00' + to_hours(i::INT) AS tz, TIME '10:00' AS time,"
        " 1234567890123456789012345678.1::DECIMAL(38,10) AS money, repeat('x', 300) || i AS long"
        " FROM range(10) t(i)"
    )
    found = lake.catalog.table("odd").profile()
    assert all(column.nulls == 0 for column in found.columns if column.name != "nothing")
    assert (found["nothing"].nulls, found["nothing"].distinct, found["nothing"].min, found["nothing"].top) == (
        10, 0, None, ()
    )  # fmt: skip
    for name in ("uuid", "list", "struct", "map", "huge", "tiny", "ts", "tz", "long"):
        assert found[name].distinct == 10, name
    assert (found["list"].min, found["struct"].mean, found["map"].histogram) == (None, None, ())
    assert found["list"].top[0] == ("[0]", 1)
    assert (found["huge"].min, found["tiny"].max) == (17014118346046923, 9)
    assert (found["ts"].min, found["ts"].max) == ("2020-01-01 00:00:00", "2020-01-01 09:00:00")
    assert found["ts"].mean == "2020-01-01 04:30:00"
    assert found["tz"].max == "2020-01-01 09:00:00+00"
    assert found["money"].min == Decimal("1234567890123456789012345678.1")
    assert (found["time"].max, found["blob"].min) == ("10:00:00", "ab")
    assert len(found["long"].min) == 200
    assert found["bool"].top == ((False, 5), (True, 5))
    # A view may give types that no table can keep.
    lake.catalog.create_view(
        "strange", "SELECT tiny::BIT AS bit, [tiny, tiny]::INT[2] AS array, (CASE WHEN tiny < 3 THEN 'a' ELSE 'b' END)"
        "::ENUM ('a', 'b') AS enum, union_value(n := tiny) AS either, INTERVAL 3 DAYS AS interval FROM odd"
    )  # fmt: skip
    strange = lake.catalog.table("strange").profile()
    assert [column.distinct for column in strange.columns] == [10, 10, 2, 10, 1]
    assert strange["interval"].min == "3 days"
    assert strange["enum"].top == (("b", 7), ("a", 3))
    json.dumps(found.to_dict(), allow_nan=False)


def test_what_is_not_finite_is_counted_and_left_out(lake):
    lake.sql(
        "CREATE TABLE f AS SELECT unnest(['nan', 'inf', '-inf', '1', '3', NULL])::DOUBLE AS x,"
        " unnest([TIMESTAMP 'infinity', '-infinity', '2020-01-01', '2020-01-03', NULL, NULL]) AS ts"
    )
    found = lake.catalog.table("f").profile()
    x, ts = found["x"], found["ts"]
    assert (x.nulls, x.not_finite, x.min, x.max, x.mean) == (1, 3, 1.0, 3.0, 2.0)
    assert sum(one.count for one in x.histogram) == 2
    assert (ts.nulls, ts.not_finite, ts.min, ts.max) == (2, 2, "2020-01-01 00:00:00", "2020-01-03 00:00:00")
    json.dumps(found.to_dict(), allow_nan=False)


def test_values_beyond_floats_and_calendars(lake):
    lake.sql(
        "CREATE TABLE far AS SELECT (CASE WHEN i = 0 THEN -1.7e308 ELSE 1.7e308 END)::DOUBLE AS huge,"
        " CASE WHEN i = 0 THEN DATE '20000-01-01' ELSE DATE '0044-03-15 (BC)' END AS day, 5e-324::DOUBLE AS least,"
        " 0.1 AS same FROM range(2) t(i)"
    )
    found = lake.catalog.table("far").profile()
    assert (found["huge"].min, found["huge"].max, found["huge"].std) == (-1.7e308, 1.7e308, None)
    assert (found["day"].min, found["day"].max) == ("0044-03-15 (BC)", "20000-01-01")
    assert [one.count for one in found["least"].histogram] == [2]
    assert [one.count for one in found["same"].histogram] == [2]
    assert found._repr_html_()


def test_empty_wide_and_oddly_named(lake):
    lake.sql("CREATE TABLE empty (i INTEGER, s VARCHAR, l INTEGER[])")
    found = lake.catalog.table("empty").profile()
    assert found.rows == 0
    assert [(c.nulls, c.distinct, c.min, c.mean, c.histogram, c.top) for c in found.columns] == [
        (0, 0, None, None, (), ())
    ] * 3
    columns = ", ".join(f'i + {n} AS "col ""{n}"""' for n in range(200))
    lake.sql(f'CREATE SCHEMA "odd one"; CREATE TABLE "odd one"."t;1" AS SELECT {columns} FROM range(50) t(i)')
    wide = lake.catalog.table('"odd one"."t;1"').profile()
    assert len(wide.columns) == 200
    assert [column.min for column in wide.columns] == list(range(200))
    assert {column.distinct for column in wide.columns} == {50}


def test_views_and_past_snapshots(lake, numbers):
    lake.catalog.create_view("even", "SELECT id, random() AS r FROM numbers WHERE id % 2 = 0")
    assert lake.catalog.table("even").profile()["id"].distinct == 500
    small = lake.catalog.table("even").profile(sample=100)
    assert 40 < small.sample < 200
    before = numbers.version
    lake.sql("DELETE FROM numbers WHERE id >= 10")
    lake.sql("ALTER TABLE numbers RENAME COLUMN week TO weekday")
    lake.sql("ALTER TABLE numbers RENAME TO digits")
    past = numbers.at(before).profile()
    assert (past.rows, past.snapshot, past["week"].max) == (1000, before, 6)
    assert numbers.profile()["weekday"].distinct == 7
    assert numbers.profile().rows == 10
    with pytest.raises(QueryError, match="cannot be read at snapshot"):
        lake.catalog.table("even").at(before + 1).profile()


def test_how_it_is_shown(lake):
    lake.sql("CREATE TABLE t AS SELECT '<script>alert(1)</script>' AS \"<b>\", i AS n FROM range(100) t(i)")
    found = lake.catalog.table("t").profile()
    html, text = found._repr_html_(), repr(found)
    assert "<script>" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html
    assert html.count("<rect") == 20
    assert "████" in text
    assert "100 rows × 2 columns" in text
    assert f"snapshot {found.snapshot}" in text


def test_wrong_use(lake, numbers):
    with pytest.raises(ColumnNotFound, match="no column 'wek'") as raised:
        numbers.profile()["wek"]
    assert "week" in raised.value.hint
    for bad in (0, -1, "many", True):
        with pytest.raises(LakehouseError, match="sample must be"):
            numbers.profile(sample=bad)


def test_nothing_of_the_work_stays(lake, numbers):
    numbers.profile(sample=10)
    numbers.profile(sample=10)
    snapshot = lake.catalog.current_snapshot().id
    assert lake.sql("SELECT count(*) FROM duckdb_tables() WHERE temporary").fetchone() == (0,)
    assert lake.catalog.current_snapshot().id == snapshot
    assert numbers.version == snapshot
