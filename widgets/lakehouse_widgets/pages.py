"""The rows behind a grid: kept once in a DuckDB of their own, ordered and filtered there, given by page."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse import LakehouseError

if TYPE_CHECKING:
    import duckdb

    from lakehouse import Result

PAGE_ROWS = 500
"""A page has at most so many rows."""
CELL_CHARACTERS = 500
"""Longer values are cut for the page; an export has them whole."""
EXPORT_BYTES = 64_000_000
IN_MEMORY_ROWS = 200_000
"""Results up to so many rows are kept in memory, larger ones in a file that goes with the grid."""
MEMORY = "1GB"
"""What a grid's DuckDB takes at most; beyond, a large result is ordered on disk."""

_TERMS = 20
_VALUE_CHARACTERS = 10_000
_COMPARED = {"=": "=", "≠": "IS DISTINCT FROM", "<": "<", "≤": "<=", ">": ">", "≥": ">="}
_TEXT = {"contains": "contains", "starts with": "starts_with"}
_NULLS = {"is null": "IS NULL", "is not null": "IS NOT NULL"}
OPERATORS = (*_COMPARED, *_TEXT, *_NULLS)


class MessageInvalid(LakehouseError):
    """A message from the page that is none of those a widget understands."""

    code = "message_invalid"


@dataclass(frozen=True, slots=True)
class Sort:
    """One column to order by."""

    column: int
    descending: bool


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition that shown rows meet."""

    column: int
    operator: str
    value: str | None


@dataclass(frozen=True, slots=True)
class View:
    """An order and a choice of the rows."""

    sorts: tuple[Sort, ...] = ()
    filters: tuple[Filter, ...] = ()


@dataclass(slots=True)
class _Kept:
    connection: duckdb.DuckDBPyConnection
    end: Callable[[], object]
    view: View = field(default_factory=View)
    table: str = "rows"
    total: int = 0
    made: int = 0


class Pages:
    """The rows of a result, read from the lake when a page is first asked for.

    Args:
        result: what a query gave; of any size.
    """

    def __init__(self, result: Result) -> None:
        self._result = result
        self.names = unique(result.columns)
        """The columns as the page calls them: a name that comes twice has a number behind it."""
        self.types = result.types
        self._kept: _Kept | None = None
        self._lock = threading.Lock()

    def page(self, view: View, first: int, count: int) -> tuple[int, list[tuple[str | None, ...]]]:
        """How many rows the view has, and those from `first` as DuckDB writes their values.

        Raises:
            LakehouseError: a filter's value is not of its column's type.
        """
        with self._lock:
            kept = self._shown(view)
            last = first + min(count, PAGE_ROWS) - 1
            cells = ", ".join(f"left(CAST(c{i} AS VARCHAR), {CELL_CHARACTERS})" for i in range(len(self.names)))
            # rowid is the place in the table: DuckDB reads only the row groups that hold these.
            rows = kept.connection.sql(
                f"SELECT {cells} FROM {kept.table} WHERE rowid BETWEEN {first:d} AND {last:d} ORDER BY rowid"
            ).fetchall()
            return kept.total, rows

    def csv(self, view: View) -> bytes:
        """The rows of the view as CSV with a header.

        Raises:
            MessageInvalid: they take more than `EXPORT_BYTES`.
        """
        with self._lock, tempfile.TemporaryDirectory() as folder:
            kept = self._shown(view)
            path = Path(folder) / "rows.csv"
            columns = ", ".join(f"c{i} AS {_quoted(name)}" for i, name in enumerate(self.names))
            total = kept.total
            if total * len(self.names) * 2 <= EXPORT_BYTES:
                source = f"SELECT {columns} FROM {kept.table} ORDER BY rowid"
                kept.connection.execute(f"COPY ({source}) TO '{path}' (FORMAT csv, HEADER)")
                if path.stat().st_size <= EXPORT_BYTES:
                    return path.read_bytes()
        raise MessageInvalid(
            f"{total:,} rows are more than a page can be given as a file ({EXPORT_BYTES // 1_000_000} MB)",
            hint="filter first, or write the result in the notebook: result.to_csv(path)",
        )

    def close(self) -> None:
        """Let go of the rows; another page reads them again."""
        with self._lock:
            if self._kept is not None:
                self._kept.end()
                self._kept = None

    def interrupt(self) -> None:
        """Stop what is being ordered or filtered for another thread."""
        if self._kept is not None:
            self._kept.connection.interrupt()

    def _shown(self, view: View) -> _Kept:
        """The kept rows with `table` holding those of the view in its order."""
        import duckdb

        if self._kept is None:
            self._kept = self._keep()
        kept = self._kept
        if view == kept.view:
            return kept
        old, conditions, values = kept.table, [], {}
        for number, one in enumerate(view.filters):
            name = f"v{number}"
            conditions.append(self._condition(one, f"${name}"))
            if one.operator not in _NULLS:
                values[name] = one.value
                self._check(kept.connection, one)
        order = [f"c{one.column} {'DESC' if one.descending else 'ASC'} NULLS LAST" for one in view.sorts]
        table = "rows"
        if conditions or order:
            kept.made += 1
            table = f"view_{kept.made}"
            where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
            by = f" ORDER BY {', '.join([*order, 'rowid'])}"
            try:
                kept.connection.execute(f"CREATE TABLE {table} AS SELECT * FROM rows{where}{by}", values)
            except duckdb.Error as error:
                raise MessageInvalid(f"the rows cannot be shown so: {str(error).splitlines()[0]}") from None
        if old != "rows":
            kept.connection.execute(f"DROP TABLE {old}")
        kept.table, kept.view, kept.total = table, view, _counted(kept.connection, table)
        return kept

    def _keep(self) -> _Kept:
        import duckdb

        folder = tempfile.mkdtemp(prefix="lakehouse-grid-") if len(self._result) > IN_MEMORY_ROWS else None
        connection = duckdb.connect(":memory:" if folder is None else f"{folder}/rows.duckdb")
        end = weakref.finalize(self, _end, connection, folder)  # a grid that is forgotten leaves nothing either
        connection.execute(f"SET enable_progress_bar = false; SET memory_limit = '{MEMORY}'")
        self._result.keep(connection, "rows")
        return _Kept(connection, end, total=_counted(connection, "rows"))

    def _condition(self, one: Filter, value: str) -> str:
        column = f"c{one.column}"
        if one.operator in _NULLS:
            return f"{column} {_NULLS[one.operator]}"
        if one.operator in _TEXT:
            return f"{_TEXT[one.operator]}(lower(CAST({column} AS VARCHAR)), lower({value}))"
        return f"{column} {_COMPARED[one.operator]} CAST({value} AS {self.types[one.column]})"

    def _check(self, connection: duckdb.DuckDBPyConnection, one: Filter) -> None:
        import duckdb

        if one.operator in _COMPARED:
            kind = self.types[one.column]
            try:
                connection.execute(f"SELECT CAST($v AS {kind})", {"v": one.value}).fetchall()
            except duckdb.Error:
                raise MessageInvalid(
                    f"'{one.value}' is not a {kind}", hint=f"{self.names[one.column]} is a {kind}"
                ) from None


def view_of(content: Mapping[str, Any], names: Sequence[str]) -> View:
    """The view a message asks for: names of columns, directions, operators and values, nothing else.

    Raises:
        MessageInvalid: it is made of anything else.
    """
    sorts = [
        Sort(_column(one, names), _word(one, "direction", ("asc", "desc")) == "desc") for one in _terms(content, "sort")
    ]
    filters = []
    for one in _terms(content, "filter"):
        operator, value = _word(one, "operator", OPERATORS), one.get("value")
        if operator in _NULLS:
            value = None
        elif not isinstance(value, str) or len(value) > _VALUE_CHARACTERS:
            raise MessageInvalid(f"the value of a filter is a text of at most {_VALUE_CHARACTERS:,} characters")
        filters.append(Filter(_column(one, names), operator, value))
    return View(tuple(sorts), tuple(filters))


def number_of(content: Mapping[str, Any], key: str, most: int = 2**53) -> int:
    """A whole number of a message, not negative and at most `most`.

    Raises:
        MessageInvalid: there is none.
    """
    value = content.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise MessageInvalid(f"'{key}' is a whole number from 0 to {most:,}")
    return value


def unique(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that came before."""
    given: list[str] = []
    for name in names:
        number, free = 1, name
        while free in given:
            number += 1
            free = f"{name}_{number}"
        given.append(free)
    return given


def _end(connection: duckdb.DuckDBPyConnection, folder: str | None) -> None:
    connection.close()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _counted(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    return int(connection.sql(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def _terms(content: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = content.get(key, [])
    if not isinstance(found, list) or len(found) > _TERMS or not all(isinstance(one, dict) for one in found):
        raise MessageInvalid(f"'{key}' is a list of at most {_TERMS} terms")
    return found


def _column(term: Mapping[str, Any], names: Sequence[str]) -> int:
    name = term.get("column")
    if not isinstance(name, str) or name not in names:
        raise MessageInvalid(f"there is no column {str(name)[:100]!r}")
    return names.index(name)


def _word(term: Mapping[str, Any], key: str, known: Sequence[str]) -> str:
    word = term.get(key)
    if not isinstance(word, str) or word not in known:
        raise MessageInvalid(f"'{key}' is one of {', '.join(known)}")
    return word


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
