"""Charts of results: DuckDB reduces the rows to what is drawn, Vega-Lite draws it as SVG, with no network."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.errors import ColumnNotFound, QueryError

if TYPE_CHECKING:
    import altair
    import duckdb

KINDS = ("bar", "line", "area", "point", "hist")
AGGREGATES = {"sum": "sum", "mean": "avg", "median": "median", "min": "min", "max": "max", "count": "count"}
BARS, POINTS, GROUPS, BINS = 40, 2_000, 8, 40
"""How many bars, points, groups of a colour and bins of a histogram are drawn at most."""

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_NUMBERS = (*_WHOLE, "UHUGEINT", "DOUBLE", "FLOAT", "DECIMAL")
_TIMES = ("DATE", "TIMESTAMP")
_PALETTE = ["#3b7dd8", "#e07b39", "#3f9c6b", "#b65fc2", "#c9a227", "#4fb3bf", "#d1495b", "#7a6ff0", "#8a8f98"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be drawn; see `Result.plot`."""

    kind: str
    x: str | None
    y: str | None
    color: str | None
    aggregate: str | None
    title: str | None


@dataclass(frozen=True, slots=True)
class Plot:
    """A chart; a notebook shows it as SVG."""

    spec: dict[str, Any]
    """In Vega-Lite 5, with the reduced values in it."""

    @property
    def values(self) -> list[dict[str, Any]]:
        """What is drawn: one dictionary for each mark."""
        return list(self.spec["data"]["values"])

    def altair(self) -> altair.Chart:
        """The chart as Altair's, to go on with."""
        import altair

        return altair.Chart.from_dict(self.spec)

    def svg(self) -> str:
        """The chart as SVG, without a background: for light and dark."""
        import vl_convert

        return str(vl_convert.vegalite_to_svg(json.dumps(self.spec)))

    def __repr__(self) -> str:
        return f"<Plot of {len(self.values):,} marks>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"image/svg+xml": self.svg(), "text/plain": repr(self)}


def drawn(
    wanted: Wanted, names: Sequence[str], types: Sequence[str], rows: Callable[[], duckdb.DuckDBPyRelation]
) -> Plot:
    """The chart of rows whose columns are c0, c1, …, read once.

    Raises:
        ColumnNotFound: there is no such column.
        QueryError: an unknown kind or aggregate, or a column that cannot be drawn so.
    """
    _known("kind", wanted.kind, KINDS)
    if wanted.aggregate is not None:
        _known("aggregate", wanted.aggregate, tuple(AGGREGATES))
    if not names:
        raise QueryError("there is nothing to draw: the statement gave no rows")
    x = 0 if wanted.x is None else _place(wanted.x, names)
    second = 1 if wanted.kind == "point" and len(names) > 1 else None
    y = second if wanted.y is None else _place(wanted.y, names)
    color = None if wanted.color is None else _place(wanted.color, names)
    if wanted.kind == "hist" and not _numeric(types[x]):
        raise QueryError(f"a histogram is of numbers, {names[x]} is {types[x]}", hint="kind='bar' counts each value")
    if y is not None and wanted.aggregate != "count" and not _numeric(types[y]):
        raise QueryError(f"{names[y]} is {types[y]}, no number", hint="aggregate='count' counts it")
    if wanted.kind == "point" and (y is None or not _measured(types[x])):
        raise QueryError("points need two columns of numbers or times", hint="x=… and y=…")
    query = _points(x, y) if wanted.kind == "point" and y is not None else _reduced(wanted, types, x, y, color)
    found = rows().query("result", query)
    columns, values = found.columns, found.fetchall()
    labels = {"x": names[x], "y": _label(wanted, names, y), "color": "" if color is None else names[color]}
    data = [{c: _plain(v) for c, v in zip(columns, row, strict=True)} for row in values]
    return Plot(_spec(wanted, types[x], labels, data))


def _reduced(wanted: Wanted, types: Sequence[str], x: int, y: int | None, color: int | None) -> str:
    """SQL that gives x, y and color, at most some thousand rows of them, whatever was there."""
    measure = "count(*)" if y is None else f"{AGGREGATES[wanted.aggregate or 'sum']}(y)"
    value = "1" if y is None else f"CAST(c{y} AS DOUBLE)" if _numeric(types[y]) else f"c{y}"
    group = "NULL" if color is None else f"coalesce(CAST(c{color} AS VARCHAR), 'NULL')"
    base = f"base AS MATERIALIZED (SELECT c{x} AS x, {value} AS y, {group} AS color FROM result)"
    groups = f"best AS (SELECT color FROM base GROUP BY color ORDER BY count(*) DESC, color LIMIT {GROUPS})"
    hue = "CASE WHEN color IS NULL OR color IN (SELECT color FROM best) THEN color ELSE 'others' END AS color"
    if wanted.kind == "hist":
        place, many = _bucket("CAST(x AS DOUBLE)", BINS), "SELECT true AS many"
    elif _numeric(types[x]) and wanted.kind != "bar":
        place, many = (
            _bucket("CAST(x AS DOUBLE)", POINTS // 4),
            f"SELECT approx_count_distinct(x) > {POINTS // 4} AS many FROM base",
        )
    elif types[x].startswith(_TIMES):
        place = f"make_timestamp(CAST({_bucket('epoch_us(CAST(x AS TIMESTAMP))', POINTS // 4)} AS BIGINT))"
        many = f"SELECT approx_count_distinct(x) > {POINTS // 4} AS many FROM base"
    else:
        return (
            f"WITH {base}, {groups}, bars AS (SELECT x, {measure} AS size FROM base GROUP BY x"
            f" ORDER BY size DESC NULLS LAST, x LIMIT {BARS})"
            f" SELECT CAST(x AS VARCHAR) AS x, {measure} AS y, {hue} FROM base"
            f" WHERE x IN (SELECT x FROM bars) GROUP BY ALL ORDER BY ALL"
        )
    exact = "CAST(x AS TIMESTAMP)" if types[x].startswith(_TIMES) else "CAST(x AS DOUBLE)"
    edge = "" if wanted.kind != "hist" else ", first(step) AS step"
    low, high = ("epoch_us(CAST(min(x) AS TIMESTAMP))", "epoch_us(CAST(max(x) AS TIMESTAMP))")
    if not types[x].startswith(_TIMES):
        low, high = "CAST(min(x) AS DOUBLE)", "CAST(max(x) AS DOUBLE)"
    bins = BINS if wanted.kind == "hist" else POINTS // 4
    return (
        f"WITH {base}, {groups}, ends AS (SELECT {low} AS low, {high} AS high, ({high} - {low}) / {bins} AS step FROM base),"
        f" size AS ({many})"
        f" SELECT CASE WHEN many AND step > 0 THEN {place} ELSE {exact} END AS x, {measure} AS y, {hue}{edge}"
        f" FROM base, ends, size WHERE x IS NOT NULL GROUP BY 1, 3 ORDER BY 1, 3"
    )


def _bucket(x: str, bins: int) -> str:
    """The lower end of the bucket that x falls into; the greatest x is in the last one."""
    return f"(low + least(floor(({x} - low) / step), {bins - 1}) * step)"


def _points(x: int, y: int) -> str:
    """SQL that gives the points themselves, or the number of them in each field of a grid when there are many."""
    return (
        f"WITH base AS MATERIALIZED (SELECT {_axis(x)} AS x, {_axis(y)} AS y FROM result), ends AS (SELECT min(x) AS x0,"
        " (max(x) - min(x)) / 100 AS dx, min(y) AS y0, (max(y) - min(y)) / 60 AS dy, count(*) AS many FROM base)"
        f" SELECT CASE WHEN many > {POINTS} AND dx > 0 THEN x0 + (floor((x - x0) / dx) + 0.5) * dx ELSE x END AS x,"
        f" CASE WHEN many > {POINTS} AND dy > 0 THEN y0 + (floor((y - y0) / dy) + 0.5) * dy ELSE y END AS y,"
        " count(*) AS rows FROM base, ends WHERE x IS NOT NULL AND y IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2"
    )


def _axis(column: int) -> str:
    return f"CAST(c{column} AS DOUBLE)"


def _spec(wanted: Wanted, kind: str, labels: dict[str, str], data: list[dict[str, Any]]) -> dict[str, Any]:
    time = kind.startswith(_TIMES)
    scale = "temporal" if time else "quantitative" if _numeric(kind) and wanted.kind != "bar" else "nominal"
    x: dict[str, Any] = {"field": "x", "type": scale, "title": labels["x"]}
    y: dict[str, Any] = {"field": "y", "type": "quantitative", "title": labels["y"]}
    encoding: dict[str, Any] = {"x": x, "y": y}
    mark: dict[str, Any] = {"type": wanted.kind, "tooltip": True}
    if wanted.kind == "hist":
        mark, x["bin"] = {"type": "bar"}, "binned"
        step = data[0]["step"] if data else 0
        for one in data:
            one["x2"] = one["x"] + (step or 1)
        encoding["x2"] = {"field": "x2"}
    elif wanted.kind == "bar" and scale == "nominal":
        x["sort"] = None if _numeric(kind) else "-y"
        x["axis"] = {"labelAngle": 0 if len({one["x"] for one in data}) <= 12 else -60, "labelLimit": 90}
        if _numeric(kind):
            data.sort(key=lambda one: float(one["x"]))
    elif wanted.kind == "point":
        x["scale"], y["scale"] = {"zero": False}, {"zero": False}
        if any(one["rows"] > 1 for one in data):
            mark = {"type": "square", "size": 22, "opacity": 0.9}
            encoding["color"] = {
                "field": "rows",
                "type": "quantitative",
                "title": "rows",
                "scale": {"type": "log", "scheme": "blues"},
            }
    elif scale == "quantitative":
        x["scale"] = {"zero": False}
    if labels["color"]:
        encoding["color"] = {"field": "color", "type": "nominal", "title": labels["color"]}
    grey = "#808892"  # reads on white and on black
    text = {"labelColor": grey, "titleColor": grey, "titleFontWeight": "normal"}
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": data},
        "mark": mark,
        "encoding": encoding,
        "width": 520,
        "height": 240,
        "background": "transparent",
        "config": {
            "view": {"stroke": None},
            "axis": {**text, "gridColor": grey, "gridOpacity": 0.2, "domainColor": grey, "tickColor": grey},
            "legend": text,
            "title": {"color": grey, "anchor": "start"},
            "range": {"category": _PALETTE},
            "mark": {"color": _PALETTE[0]},
        },
    }
    return {**spec, "title": wanted.title} if wanted.title else spec


def _label(wanted: Wanted, names: Sequence[str], y: int | None) -> str:
    if y is None:
        return "rows"
    return names[y] if wanted.kind == "point" or wanted.aggregate is None else f"{wanted.aggregate} of {names[y]}"


def _known(what: str, word: str, words: tuple[str, ...]) -> None:
    if word not in words:
        raise QueryError(f"'{word}' is no {what} of a chart", hint=f"one of {', '.join(words)}")


def _place(name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise ColumnNotFound(f"the result has no column '{name}'", hint=f"it has {', '.join(names)}")
    return names.index(name)


def _numeric(kind: str) -> bool:
    return not kind.endswith("]") and kind.split("(", maxsplit=1)[0] in _NUMBERS


def _measured(kind: str) -> bool:
    return _numeric(kind)


def _plain(value: Any) -> Any:
    from datetime import date

    if isinstance(value, date):
        return value.isoformat()
    return value if value is None or isinstance(value, int | float | str) else str(value)
