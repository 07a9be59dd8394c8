"""How the notebook's answers look that are not query results: lists, receipts, plans and rehearsals."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.catalog.metadata import Snapshot
from lakehouse.query.statements import Statement
from lakehouse.wording import counted

if TYPE_CHECKING:
    from lakehouse.notebook.remote import Lake

_UNITS = ("B", "KB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True)
class Listing:
    """A few rows of facts, as text or HTML."""

    header: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    caption: str
    numbers: frozenset[str] = frozenset()
    """Columns that are set to the right."""

    def __repr__(self) -> str:
        cells = [self.header, *(tuple(_text(value) for value in row) for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.header))]
        right = [name in self.numbers for name in self.header]
        lines = [
            "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip()
            for row in cells
        ]
        lines.insert(1, "  ".join("─" * width for width in widths))
        return "\n".join([*lines, self.caption])

    def _repr_html_(self) -> str:
        align = [f"text-align:{'right' if name in self.numbers else 'left'}" for name in self.header]
        head = "".join(f'<th style="{a}">{html.escape(n)}</th>' for n, a in zip(self.header, align, strict=True))
        body = "".join(
            "<tr>"
            + "".join(f'<td style="{a}">{html.escape(_text(v))}</td>' for v, a in zip(row, align, strict=True))
            + "</tr>"
            for row in self.rows
        )
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p><small>{html.escape(self.caption)}</small></p>"
        )


class Text(str):
    """A text that shows itself as it is, line by line."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def tables(lake: Lake, schema: str | None) -> Listing:
    """The tables and views of the lake, or of one schema.

    Raises:
        SchemaNotFound: there is no schema of that name.
    """
    snapshot = lake.catalog.current_snapshot().id
    found: list[Any] = [*lake.catalog.tables(schema), *lake.catalog.views(schema)]
    counts = lake.catalog.sizes([one for one in found if one.kind == "table"])  # counting a view would run its query
    rows: list[tuple[Any, ...]] = []
    for one in sorted(found, key=lambda one: (one.schema_name, one.name)):
        number, size = counts.get(one.full_name, (None, None))
        facts = ("", "") if number is None or size is None else (f"{number:,}", _size(size))
        listed = getattr(one, "entry", one)  # what a server has listed is not asked for again
        rows.append((one.full_name, one.kind, *facts, listed.comment))
    where = "" if schema is None else f" in schema {schema}"
    caption = f"{counted(len(counts), 'table')}, {counted(len(rows) - len(counts), 'view')}{where}, snapshot {snapshot}"
    return Listing(("table", "kind", "rows", "size", "comment"), rows, caption, frozenset({"rows", "size"}))


def columns(lake: Lake, name: str) -> Listing:
    """The columns of one table or view.

    Raises:
        TableNotFound: there is none of that name.
    """
    table = lake.catalog.table(name)
    rows = [(c.name, c.type, "" if c.nullable else "NOT NULL", c.comment) for c in table.schema]
    caption = f"{table.kind} {table.full_name}: {counted(len(rows), 'column')}, snapshot {table.version}"
    return Listing(("column", "type", "nulls", "comment"), rows, caption)


def snapshots(found: Sequence[Snapshot]) -> Listing:
    """Commits, in the order given."""
    rows = [(s.id, s.time.astimezone().strftime("%Y-%m-%d %H:%M:%S"), s.author, s.message) for s in found]
    caption = f"{counted(len(rows), 'snapshot')}; read one with %%sql --at ID"
    return Listing(("snapshot", "time", "author", "message"), rows, caption, frozenset({"snapshot"}))


def state(lake: Lake) -> str:
    """One line about a lake: what it holds and at which snapshot."""
    snapshot = lake.catalog.current_snapshot()
    number = len(lake.catalog.views())
    views = f", {counted(number, 'view')}" if number else ""
    pinned = " (pinned)" if lake.snapshot is not None else " (read-only)" if lake.read_only else ""
    when = snapshot.time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return f"snapshot {snapshot.id} of {when}{pinned}, {counted(len(lake.catalog.tables()), 'table')}{views}"


def rehearsal(statements: Sequence[Statement], values: Mapping[str, Any], frames: Mapping[str, Any]) -> Text:
    """What would be run: every statement, what it is, its values, and the variables it uses as tables."""
    parts = []
    for number, statement in enumerate(statements, 1):
        parts.append(f"{number}. {statement.kind} ({statement.verb.replace('_', ' ')})")
        parts += [f"   {line}" for line in statement.text.splitlines()]
        parts += [f"   ${name} = {_short(values[name])}" for name in sorted(statement.parameters)]
    parts += [f"table {name} = {_kind(frame)}" for name, frame in frames.items()]
    return Text("\n".join([*parts, "nothing was run"]))


def short(sql: str) -> str:
    """The beginning of an SQL text on one line."""
    line = " ".join(sql.split())
    return line if len(line) <= 80 else line[:79] + "…"


def _kind(value: Any) -> str:
    return f"{type(value).__module__.partition('.')[0].lstrip('_')} {type(value).__name__}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:199] + "…"


def _text(value: Any) -> str:
    return "" if value is None else " ".join(str(value).split())


def _size(size: int) -> str:
    number, unit = float(size), 0
    while number >= 1000 and unit < len(_UNITS) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.0f} {_UNITS[unit]}" if unit == 0 else f"{number:.1f} {_UNITS[unit]}"
