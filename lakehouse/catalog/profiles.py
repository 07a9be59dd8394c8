"""The profile of a table as it is given and shown."""

from __future__ import annotations

import dataclasses
import html
import math
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from lakehouse.catalog.names import nearest
from lakehouse.errors import ColumnNotFound
from lakehouse.wording import counted

_BARS = "▁▂▃▄▅▆▇█"
_SHORT = 24  # characters of a value in the overview


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a histogram: from `low` up to `high`, which belongs to the next bar but for the last."""

    low: Any
    high: Any
    count: int


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """What one column holds.

    Times are texts as DuckDB writes them, because its times reach further than Python's; long values are cut.
    """

    name: str
    type: str
    nulls: int
    distinct: int
    """Different values, NULL not counted."""
    distinct_exact: bool = True
    """False: counted in the sample where its values repeat there, else estimated from all rows (HyperLogLog)."""
    not_finite: int = 0
    """NaN and infinite values; the figures below leave them out."""
    min: Any = None
    """None when there is no value, or the type has no order (lists, structs, maps)."""
    max: Any = None
    mean: Any = None
    """None but for numbers and times."""
    std: float | None = None
    """Standard deviation; of times in seconds."""
    quantiles: tuple[tuple[float, Any], ...] = ()
    """Pairs of a share and the value below which that share of the rows lies."""
    quantiles_exact: bool = True
    histogram: tuple[Bin, ...] = ()
    """Bars of equal width, for numbers and times."""
    top: tuple[tuple[Any, int], ...] = ()
    """The most frequent values with how often they occur."""
    range: tuple[float, float] | None = field(default=None, repr=False)
    """The smallest and largest value as numbers; of times in seconds since 1970."""


@dataclass(frozen=True, slots=True, repr=False)
class Profile:
    """What each column of a table or view holds at one snapshot."""

    table: str
    snapshot: int
    rows: int
    columns: tuple[ColumnProfile, ...]
    sample: int | None
    """Rows that quantiles, histograms and frequent values were taken from; None: all."""
    method: str
    """`all rows`, or how the sample was drawn."""
    elapsed: float

    def __getitem__(self, name: str) -> ColumnProfile:
        for column in self.columns:
            if column.name.lower() == name.lower():
                return column
        known = [column.name for column in self.columns]
        raise ColumnNotFound(f"{self.table} has no column '{name}'", hint=nearest(name, known))

    def to_dict(self) -> dict[str, Any]:
        """Everything as values that JSON has; decimals become floats, NaN and infinity texts."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain

    def __repr__(self) -> str:
        header = ("column", "type", "nulls", "distinct", "min", "mean", "max", "histogram", "most frequent")
        rows = [header, *(_overview(column, self.rows) for column in self.columns)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
        right = {2, 3, 5}
        lines = [
            "  ".join(
                cell.rjust(w) if i in right else cell.ljust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        lines.insert(1, "  ".join("─" * width for width in widths))
        return "\n".join([*lines, self.caption])

    def _repr_html_(self) -> str:
        names = ("column", "nulls", "distinct", "min", "quartiles", "max", "mean ± std", "histogram", "most frequent")
        head = "".join(f'<th style="text-align:left">{name}</th>' for name in names)
        body = "".join(f"<tr>{_html_row(column, self.rows)}</tr>" for column in self.columns)
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p><small>{html.escape(self.caption)}</small></p>"
        )

    @property
    def caption(self) -> str:
        """One line: the table, its snapshot, and how it was looked at."""
        how = self.method
        if self.sample is not None:
            how = (
                f"quantiles, histograms and frequent values from a {self.method} of {self.sample:,} rows, "
                "distinct estimated, the rest from all rows"
            )
        count = f"{counted(self.rows, 'row')} × {counted(len(self.columns), 'column')}"
        return f"{self.table}: {count}, snapshot {self.snapshot}; {how}; {self.elapsed:.2f} s"


def _overview(column: ColumnProfile, rows: int) -> tuple[str, ...]:
    top = ", ".join(f"{_value(value)} ({count:,})" for value, count in column.top[:2]) if _repeats(column) else ""
    return (
        column.name,
        column.type if len(column.type) <= _SHORT else f"{column.type[: _SHORT - 1]}…",
        _share(column.nulls, rows),
        _distinct(column),
        _value(column.min),
        _value(column.mean),
        _value(column.max),
        bars(column),
        top,
    )


def bars(column: ColumnProfile) -> str:
    """The histogram as a line of block characters."""
    most = max((one.count for one in column.histogram), default=0)
    if not most:
        return ""
    return "".join(" " if not one.count else _BARS[(one.count * 7) // most] for one in column.histogram)


def _html_row(column: ColumnProfile, rows: int) -> str:
    quartiles = [_value(value) for share, value in column.quantiles if share in (0.25, 0.5, 0.75)]
    deviation = "" if column.std is None else f" ± {_value(column.std)}"
    odd = f"<br><small>{column.not_finite:,} not finite</small>" if column.not_finite else ""
    kind = column.type if len(column.type) <= 60 else f"{column.type[:59]}…"
    cells = [
        f'{html.escape(column.name)}<br><small style="opacity:.8">{html.escape(kind.lower())}</small>',
        html.escape(_share(column.nulls, rows)) + odd,
        html.escape(_distinct(column)),
        html.escape(_value(column.min)),
        html.escape(" · ".join(quartiles)),
        html.escape(_value(column.max)),
        html.escape("" if column.mean is None else f"{_value(column.mean)}{deviation}"),
        _svg(column),
        "<br>".join(_top_html(value, count, rows) for value, count in column.top[:3]) if _repeats(column) else "",
    ]
    return "".join(f'<td style="text-align:left;vertical-align:top">{cell}</td>' for cell in cells)


def _top_html(value: Any, count: int, rows: int) -> str:
    width = max(1, round(60 * count / rows)) if rows else 0
    bar = f'<span style="display:inline-block;width:{width}px;height:.6em;background:#4c78a8;opacity:.7"></span>'
    return f"{bar} {html.escape(_value(value))} <small>{count:,}</small>"


def _svg(column: ColumnProfile) -> str:
    most = max((one.count for one in column.histogram), default=0)
    if not most:
        return ""
    width, height = 100 / len(column.histogram), 28
    parts = []
    for number, one in enumerate(column.histogram):
        tall = height * one.count / most
        label = html.escape(f"{_value(one.low)} – {_value(one.high)}: {one.count:,}")
        parts.append(
            f'<rect x="{number * width:.2f}" y="{height - tall:.1f}" width="{width * 0.9:.2f}" height="{tall:.1f}"'
            f' fill="#4c78a8"><title>{label}</title></rect>'
        )
    name = html.escape(f"how the values of {column.name} are spread")
    return f'<svg width="100" height="{height}" role="img" aria-label="{name}">{"".join(parts)}</svg>'


def _repeats(column: ColumnProfile) -> bool:
    """Whether some value is there more than once: of a key the most frequent ones say nothing."""
    return bool(column.top) and column.top[0][1] > 1


def _share(nulls: int, rows: int) -> str:
    if not nulls:
        return "0"
    share = 100 * nulls / rows
    return f"{nulls:,} ({share:.1f} %)" if share >= 0.1 else f"{nulls:,} (<0.1 %)"


def _distinct(column: ColumnProfile) -> str:
    return f"{column.distinct:,}" if column.distinct_exact else f"~{column.distinct:,}"


def _value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.6g}" if 1e-4 <= abs(value) < 1e9 or not value else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if abs(value) < 10**15 else str(value)
    text = " ".join(str(value).split())
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Decimal):
        return float(value)
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
