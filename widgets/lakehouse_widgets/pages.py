"""The rows behind a grid: kept once in a DuckDB of their own, ordered and filtered there, given by page."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
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
MOST_AWAKE = 32
"""Grids of a process that hold their rows at once; those used longest ago read them again when they are asked."""

_TERMS = 20
_VALUE_CHARACTERS = 10_000
_COMPARED = {"=": "=", "≠": "IS DISTINCT FROM", "<": "<", "≤": "<=", ">": ">", "≥": ">="}
_TEXT = {"contains": "contains", "starts with": "starts_with"}
_NULLS = {"is null": "IS NULL", "is not null": "IS NOT NULL"}
_SETTINGS = {"memory_limit": MEMORY, "autoinstall_known_extensions": False}
OPERATORS = (*_COMPARED, *_TEXT, *_NULLS)


class MessageInvalid(LakehouseError):
    """A message from the page that is none of those a widget understands."""

    code = "message_invalid"


class Overtaken(LakehouseError):
    """What was asked for is no longer wanted: something newer is."""

    code = "overtaken"


class NoRoom(LakehouseError):
    """The rows take more than may be kept on disk for a while."""

    code = "no_room"


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
    size: Callable[[], int]
    """Bytes that it takes on disk."""
    view: View = field(default_factory=View)
    table: str = "rows"
    total: int = 0
    loaded: int = 0
    """Bytes on disk that the rows alone take."""
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
        self._making: View | None = None
        self._stopped = False
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
            rows = kept.connection.execute(
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

    def stop(self) -> None:
        """Read and order nothing more: nobody will look at these rows again."""
        self._stopped = True
        if self._making is not None and (kept := self._kept) is not None:
            kept.connection.interrupt()
        self.rest()

    def rest(self) -> None:
        """Let go of the rows, unless they are being read now."""
        if self._lock.acquire(blocking=False):
            try:
                self._let_go()
            finally:
                self._lock.release()

    def wanted(self, view: View) -> None:
        """Stop ordering and filtering for any other view than this one, which another thread waits for."""
        making, kept = self._making, self._kept
        if making is not None and making != view and kept is not None:
            kept.connection.interrupt()

    def _let_go(self) -> None:
        if self._kept is not None:
            self._kept.end()
            self._kept = None

    def _shown(self, view: View) -> _Kept:
        """The kept rows with `table` holding those of the view in its order."""
        import duckdb

        if self._kept is None:
            self._kept = self._keep()
        _awake.used(self)
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
            left = self._check_room(kept, 0 if conditions else kept.loaded)
            kept.connection.execute(f"SET max_temp_directory_size = '{left}B'")
            self._making = view
            try:
                kept.connection.execute(f"CREATE TABLE {table} AS SELECT * FROM rows{where}{by}", values)
            except duckdb.InterruptException:
                raise Overtaken("another order or choice of the rows was asked for") from None
            except duckdb.OutOfMemoryException as error:
                raise self._no_room(str(error).splitlines()[0]) from None
            except duckdb.Error as error:
                raise MessageInvalid(f"the rows cannot be shown so: {str(error).splitlines()[0]}") from None
            finally:
                self._making = None
        if old != "rows":
            kept.connection.execute(f"DROP TABLE {old}")
        kept.table, kept.view, kept.total = table, view, _counted(kept.connection, table)
        return kept

    def _keep(self) -> _Kept:
        import duckdb

        folder, limit = self._folder()
        large = not self._result.complete or len(self._result) > IN_MEMORY_ROWS
        config = {**_SETTINGS, "temp_directory": str(folder), "max_temp_directory_size": f"{limit}B"}
        connection = duckdb.connect(f"{folder}/rows.duckdb" if large else ":memory:", config=config)
        end = weakref.finalize(self, _end, connection, folder)  # a grid that is forgotten leaves nothing either
        kept = _Kept(connection, end, partial(_size, folder))
        refused: list[LakehouseError] = []

        def watch() -> None:
            try:
                if self._stopped:
                    raise Overtaken("other rows are shown")
                self._check_room(kept)
            except LakehouseError as error:
                refused.append(error)
                raise

        try:
            self._result.keep(connection, "rows", watch=watch)
            kept.total, kept.loaded = _counted(connection, "rows"), kept.size()
            self._check_room(kept)
        except BaseException:
            end()
            if refused:
                raise refused[0] from None
            raise
        return kept

    def _folder(self) -> tuple[Path, int]:
        """A new folder where the lake keeps things for a while, or the system does when that cannot be written."""
        place, limit = self._result.room
        with contextlib.suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix="grid-", dir=place)), limit
        return Path(tempfile.mkdtemp(prefix="lakehouse-grid-")), limit

    def _check_room(self, kept: _Kept, more: int = 0) -> int:
        """The bytes that are left of the lake's `storage.max_temp_size` when `more` are taken as well."""
        size, limit = kept.size(), self._result.room[1]
        if size + more > limit:
            raise self._no_room(f"{size + more:,} bytes of {limit:,}")
        return limit - size - more

    def _no_room(self, detail: str) -> NoRoom:
        return NoRoom(
            f"the rows take more than may be kept on disk for a while (storage.max_temp_size): {detail}",
            hint="filter or select less, or raise storage.max_temp_size",
        )

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


class _Awake:
    """The pages that hold rows now, the one used last at the end."""

    def __init__(self) -> None:
        self._pages: dict[int, weakref.ref[Pages]] = {}
        self._lock = threading.Lock()

    def used(self, pages: Pages) -> None:
        """Move to the end; the first ones go to rest when there are too many."""
        with self._lock:
            self._pages.pop(id(pages), None)
            self._pages = {key: one for key, one in self._pages.items() if one() is not None}
            self._pages[id(pages)] = weakref.ref(pages)
            first = [self._pages.pop(key)() for key in list(self._pages)[:-MOST_AWAKE]]
        for one in first:
            if one is not None:
                one.rest()


_awake = _Awake()


def _end(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    connection.close()
    shutil.rmtree(folder, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("rows.duckdb*"))


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
