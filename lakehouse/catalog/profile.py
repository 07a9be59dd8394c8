"""`Table.profile()`: what each column of a table or view holds.

Counts, nulls, smallest and largest values, mean and deviation are always of all rows: one pass gives them. What
needs more than a pass (quantiles, histogram, the most frequent values) is of all rows up to a number of rows, and of
a random sample of about so many beyond it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb

from lakehouse.catalog import faults
from lakehouse.catalog.attach import ALIAS, Database
from lakehouse.catalog.names import quote
from lakehouse.catalog.profiles import Bin, ColumnProfile, Profile
from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    from lakehouse.catalog.table import Table

SAMPLE = 1_000_000
"""Rows up to which a table is profiled whole."""

_EXACT_QUANTILES = 100_000  # rows; finding them exactly keeps every value in memory
_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_BINS = 20
_TOP = 10
_SHOWN = 200  # characters kept of a long value
_AT_ONCE = 50  # columns in one query
_HUGE = 1e150  # the square of what is larger is no float any more
_REPEATS = 20
_WORK = "lakehouse_profile"

_NUMBER = re.compile(r"U?(?:TINY|SMALL|BIG|HUGE)INT|U?INTEGER|DECIMAL\(\d+,\d+\)|FLOAT|DOUBLE|BIGNUM")
_WHOLE = re.compile(r"U?(?:TINY|SMALL|BIG|HUGE)INT|U?INTEGER")
_TIME = re.compile(r"DATE|TIMESTAMP(?:_S|_MS|_NS| WITH TIME ZONE)?")
_ORDERED = re.compile(r"VARCHAR|BOOLEAN|UUID|BLOB|BIT|INTERVAL|TIME(?: WITH TIME ZONE|_NS)?|ENUM\(.*\)", re.S)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one column is measured."""

    name: str
    type: str

    @property
    def column(self) -> str:
        return quote(self.name)

    @property
    def is_number(self) -> bool:
        return bool(_NUMBER.fullmatch(self.type))

    @property
    def is_time(self) -> bool:
        return bool(_TIME.fullmatch(self.type))

    @property
    def measured(self) -> bool:
        """Whether it lies on a scale: then it has a mean, quantiles and a histogram."""
        return self.is_number or self.is_time

    @property
    def ordered(self) -> bool:
        return self.measured or bool(_ORDERED.fullmatch(self.type))

    @property
    def finite(self) -> str:
        """A FILTER that leaves out NaN and infinity, where the type has them."""
        return f" FILTER (WHERE isfinite({self.column}))" if self.type in ("FLOAT", "DOUBLE") or self.is_time else ""

    @property
    def scale(self) -> str:
        """The value as a DOUBLE; a time as seconds since 1970."""
        if self.type == "TIMESTAMP WITH TIME ZONE":
            return f"epoch({self.column})"
        return f"epoch({self.column}::TIMESTAMP)" if self.is_time else f"{self.column}::DOUBLE"

    def value(self, expression: str) -> str:
        """A value as it is handed to Python: short, and of a type that Python has."""
        if self.is_number or self.type == "BOOLEAN":
            return f"{expression}::VARCHAR" if self.type == "BIGNUM" else expression
        if self.is_time:
            return f"{expression}::VARCHAR"  # Python's own times end with the year 9999
        return f"left({expression}::VARCHAR, {_SHOWN})"


def profile(table: Table, database: Database, *, sample: int | None = SAMPLE) -> Profile:
    """The profile of a table or view; see `Table.profile`."""
    if sample is not None and (isinstance(sample, bool) or not isinstance(sample, int) or sample < 1):
        raise LakehouseError(f"sample must be a number of rows from 1, or None, not {sample!r}")
    started = time.perf_counter()
    kinds = [_Kind(column.name, column.type) for column in table.schema]
    version = table.version
    with _reading(database) as connection:
        source = _source(table, version)
        view = table.kind == "view"
        rows = 0 if view else table.at(version).row_count
        estimate = view or (sample is not None and rows > sample)
        rows, columns = _basics(connection, source, kinds, estimate=estimate)
        sampled = sample is not None and rows > sample
        if view or sampled:  # a view's query is run twice and not once for every column
            share = f" TABLESAMPLE bernoulli({100 * (sample or 0) / rows}%)" if sampled else ""
            connection.execute(f"CREATE TEMP TABLE {_WORK} AS SELECT * FROM {source}{share}")
            source = f"temp.{_WORK}"
        looked = _one(connection, f"SELECT count(*) FROM {source}")[0] if sampled else rows
        exact = looked <= _EXACT_QUANTILES and not sampled
        columns = _spread(connection, source, list(zip(kinds, columns, strict=True)), exact=exact)
        columns = _frequent(connection, source, list(zip(kinds, columns, strict=True)), whole=not sampled)
    return Profile(
        table=table.full_name,
        snapshot=version,
        rows=rows,
        columns=tuple(columns),
        sample=int(looked) if sampled else None,
        method="Bernoulli sample" if sampled else "all rows",
        elapsed=time.perf_counter() - started,
    )


def _source(table: Table, version: int) -> str:
    relation = table._refreshed()
    name = quote(ALIAS, relation.schema, relation.name)
    return name if table.kind == "view" else f"{name} AT (VERSION => {version})"


@contextmanager
def _reading(database: Database) -> Iterator[duckdb.DuckDBPyConnection]:
    """One moment of the lake for all passes; what the work has made is gone at the end."""
    with database.lent() as connection, faults.translated():
        connection.execute("BEGIN TRANSACTION")
        try:
            yield connection
        finally:
            try:
                connection.execute("ROLLBACK")
            except duckdb.Error:
                pass  # the error that comes out of the block says what was wrong


def _one(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    row = connection.execute(sql).fetchone()
    assert row is not None
    return row


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]


def _basics(
    connection: duckdb.DuckDBPyConnection, source: str, kinds: list[_Kind], *, estimate: bool
) -> tuple[int, list[ColumnProfile]]:
    """What one pass over all rows tells."""
    rows = 0
    found: list[ColumnProfile] = []
    for chunk in _chunks(kinds):
        parts = ["count(*)"]
        for kind in chunk:
            parts += _basic(kind, estimate=estimate)
        values = iter(_one(connection, f"SELECT {', '.join(parts)} FROM {source}"))
        rows = int(next(values))
        for kind in chunk:
            count, odd, least, most, mean, std, low, high, distinct = (next(values) for _ in range(9))
            found.append(
                ColumnProfile(
                    name=kind.name,
                    type=kind.type,
                    nulls=rows - count,
                    not_finite=odd,
                    min=least,
                    max=most,
                    mean=_from_scale(kind, mean) if _fits(low, high) else None,
                    std=std if _fits(low, high) else None,
                    distinct=distinct or 0,
                    range=(low, high) if _fits(low, high, 1e300) else None,
                )
            )
    return rows, found


def _basic(kind: _Kind, *, estimate: bool) -> list[str]:
    column, finite, scale = kind.column, kind.finite, kind.scale
    odd = f"count({column}) - count({column}){finite}" if finite else "0"
    parts = [f"count({column})", odd]
    if kind.ordered:
        parts += [kind.value(f"(min({column}){finite})"), kind.value(f"(max({column}){finite})")]
    else:
        parts += ["NULL", "NULL"]
    if kind.measured:
        inside = f"{finite[:-1]} AND" if finite else " FILTER (WHERE"
        bounded = f"{inside} abs({scale}) < {_HUGE})"
        low, high = f"(min({column}){finite})", f"(max({column}){finite})"
        as_scale = [kind.scale.replace(column, end, 1) for end in (low, high)]
        parts += [f"avg({scale}){bounded}", f"stddev_samp({scale}){bounded}", *as_scale]
    else:
        parts += ["NULL"] * 4
    return [*parts, f"approx_count_distinct({column})" if estimate else "NULL"]


def _fits(low: float | None, high: float | None, most: float = _HUGE) -> bool:
    return low is not None and high is not None and max(abs(low), abs(high)) < most


def _spread(
    connection: duckdb.DuckDBPyConnection, source: str, pairs: list[tuple[_Kind, ColumnProfile]], *, exact: bool
) -> list[ColumnProfile]:
    """Quantiles and histograms of the columns that lie on a scale."""
    found = {kind.name: column for kind, column in pairs}
    for chunk in _chunks([(kind, column) for kind, column in pairs if column.range is not None]):
        parts = []
        for kind, column in chunk:
            low, width, bins = _bins(kind, column)
            function = "quantile_cont" if exact else "approx_quantile"
            parts.append(f"{function}({kind.scale}, {list(_LEVELS)}){kind.finite}")
            place = f"least({bins - 1}, greatest(0, floor(({kind.scale} - {low!r}) / {width!r})))::UTINYINT"
            parts.append(f"histogram({place}){kind.finite}")
        values = iter(_one(connection, f"SELECT {', '.join(parts)} FROM {source}"))
        for kind, column in chunk:
            quantiles, counts = next(values) or (), next(values) or {}
            low, width, bins = _bins(kind, column)
            edges = [low + i * width for i in range(bins + 1)]
            if width != 1.0 and column.range is not None:
                edges[-1] = column.range[1]
            shown = [_from_scale(kind, edge) for edge in edges]
            found[kind.name] = replace(
                column,
                quantiles=tuple((p, _from_scale(kind, q)) for p, q in zip(_LEVELS, quantiles, strict=False)),
                quantiles_exact=exact,
                histogram=tuple(Bin(shown[i], shown[i + 1], counts.get(i, 0)) for i in range(bins)) if counts else (),
            )
    return list(found.values())


def _bins(kind: _Kind, column: ColumnProfile) -> tuple[float, float, int]:
    """Where the first bin begins, how wide each is, and how many there are; whole numbers get bins of their own."""
    assert column.range is not None
    low, high = column.range
    if _WHOLE.fullmatch(kind.type) and high - low < _BINS:
        return low, 1.0, int(high - low) + 1
    width = (high - low) / _BINS
    if not width or low + width == low:  # all values are one, or as good as one
        return low, max(high - low, math.ulp(low), 1e-300), 1
    return low, width, _BINS


def _frequent(
    connection: duckdb.DuckDBPyConnection, source: str, pairs: list[tuple[_Kind, ColumnProfile]], *, whole: bool
) -> list[ColumnProfile]:
    """The most frequent values, and how many different ones there are."""
    found = []
    for chunk in _chunks(pairs):
        parts = []
        for number, (kind, _) in enumerate(chunk):
            key = kind.column if kind.ordered else f"{kind.column}::VARCHAR"
            groups = f"SELECT {key} AS v, count(*) AS n FROM {source} WHERE {kind.column} IS NOT NULL GROUP BY ALL"
            best = f"SELECT v, n FROM g{number} ORDER BY n DESC, v LIMIT {_TOP}"
            parts.append(
                f"(WITH g{number} AS MATERIALIZED ({groups}) SELECT {{'d': (SELECT count(*) FROM g{number}),"
                f" 'r': (SELECT sum(n) FROM g{number}),"
                f" 't': (SELECT list({{'v': {kind.value('v')}, 'n': n}} ORDER BY n DESC, v) FROM ({best}))}})"
            )
        for (_, column), answer in zip(chunk, _one(connection, f"SELECT {', '.join(parts)}"), strict=True):
            top = tuple((entry["v"], entry["n"]) for entry in answer["t"] or ())
            # Values that repeat this often in the sample are all in it; else there are more than it shows.
            seen = whole or answer["d"] * _REPEATS <= (answer["r"] or 0)
            distinct = answer["d"] if seen else max(column.distinct, answer["d"])
            found.append(replace(column, distinct=distinct, distinct_exact=whole, top=top))
    return found


def _from_scale(kind: _Kind, number: float | None) -> Any:
    """A number on a column's scale as a value of the column: a time is its text, as DuckDB writes it."""
    if number is None or not kind.is_time:
        return number
    try:
        moment = _EPOCH + timedelta(seconds=number)
    except OverflowError:
        return f"{number:.0f} s after 1970"
    text = moment.strftime("%Y-%m-%d %H:%M:%S") if kind.type != "DATE" else moment.strftime("%Y-%m-%d")
    return f"{text}+00" if kind.type == "TIMESTAMP WITH TIME ZONE" else text
